/** Random changes, written as differences to the real kernel, leave what a fresh proxy would write. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#pkg/clock/clock.ts';
import { proxyConfig } from '#pkg/config/proxy-config.ts';
import type { Family } from '#pkg/ip/address.ts';
import { applyIptables } from '#pkg/iptables/apply.ts';
import type { IptablesTool } from '#pkg/iptables/detect.ts';
import { observeIptables } from '#pkg/iptables/observe.ts';
import { planIptables } from '#pkg/iptables/plan.ts';
import { probeBackends, scratchTools } from '#pkg/iptables/testdata/scratch-tools.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import type { IptablesLayout } from '#pkg/proxy/iptables-options.ts';
import { iptablesRuleset } from '#pkg/proxy/iptables-ruleset.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { ServiceModel } from '#pkg/proxy/service-model.ts';
import { RandomCluster } from '#pkg/proxy/testdata/random-cluster.ts';
import { asChanges, nodeName } from '#pkg/proxy/testdata/records.ts';
import { createIptablesWriter } from './iptables-writer.ts';
import type { WriteReport } from './proxy-mode.ts';
import { iptablesOptions } from './round-options.ts';
import { createRulesWriter } from './rules-writer.ts';

const probes = await probeBackends();
const signal = new AbortController().signal;
const host = {
  addresses: () => [],
  conntrackLiberal: () => false,
  allowRouteLocalnet: () => undefined,
};

/** The daemon's writer on a namespace's iptables, fed by hand. */
class Bench {
  readonly ports = new Map<string, ProxiedPort>();
  readonly parked: string[] = [];
  readonly #tool: IptablesTool;
  readonly #writer;
  readonly #given;

  constructor(tool: IptablesTool, layout: IptablesLayout) {
    this.#tool = tool;
    const config = proxyConfig({});
    this.#given = { config: { ...config, iptables: { ...config.iptables, layout } }, host };
    const { family, randomFully } = tool;
    const driver = {
      observe: (s: AbortSignal) => observeIptables(tool, s),
      apply: (steps: Parameters<typeof applyIptables>[1], s: AbortSignal) =>
        applyIptables(tool, steps, s),
    };
    const common = { family, clock: systemClock, log: silentLogger };
    this.#writer = createIptablesWriter({
      ...common,
      ...this.#given,
      randomFully,
      rules: createRulesWriter({ ...common, driver, observeIntervalMs: 3_600_000 }),
      metrics: { iptablesRules: () => undefined, restoreFailed: () => undefined },
      onParked: ({ printName }) => void this.parked.push(printName),
    });
  }

  write(changed: ReadonlySet<string>): Promise<WriteReport> {
    return this.#writer.write({ ports: this.ports, changed, node: undefined }, signal);
  }

  /** What a fresh proxy would find to do. */
  async leftToDo(without: readonly string[] = []): Promise<unknown[]> {
    const ports = [...this.ports.values()].filter((p) => !without.includes(p.printName));
    const options = iptablesOptions({ ...this.#given, node: undefined }, this.#tool);
    const found = await observeIptables(this.#tool, signal);
    return planIptables(iptablesRuleset(ports, options), found);
  }
}

describe.each(probes)('iptables, backend $title', ({ backend, usable }) => {
  describe.skipIf(!usable)('written as differences', () => {
    let netns: ScratchNetns;
    let tools: (family: Family) => IptablesTool;
    beforeAll(async () => {
      netns = await createScratchNetns('pw-changes');
      tools = await scratchTools(netns, backend);
    });
    afterAll(async () => netns?.[Symbol.asyncDispose]());

    it.each([
      ['ip', 'compatible'],
      ['ip', 'tree'],
      ['ip6', 'tree'],
      // Last: the chains of the other layout go.
      ['ip6', 'compatible'],
    ] as const)('%s, layout %s: a full look finds nothing to do', async (family, layout) => {
      const cluster = new RandomCluster(11, family);
      const model = new ServiceModel(family, { name: nodeName, zone: undefined });
      const bench = new Bench(tools(family), layout);
      for (let round = 0; round < 30; round++) {
        const { gone, ...news } = cluster.change(round === 0 ? 120 : 4);
        const changes = asChanges(news);
        const services = [...changes.services, ...gone.map((key) => ({ key, new: undefined }))];
        const changed = model.update({ ...changes, services });
        for (const { key, new: port } of changed) {
          if (port === undefined) bench.ports.delete(key);
          else bench.ports.set(key, port);
        }
        const report = await bench.write(new Set(changed.map(({ key }) => key)));
        expect(report.kind).toBe(round === 0 ? 'full' : 'partial');
        if (round % 10 === 9) expect(await bench.leftToDo()).toEqual([]);
      }
      expect(bench.parked).toEqual([]);
    });

    it('a port that the kernel refuses is left out, the others are served', async () => {
      const cluster = new RandomCluster(12);
      const model = new ServiceModel('ip', { name: nodeName, zone: undefined });
      model.update(asChanges(cluster.change(40)));
      const bench = new Bench(tools('ip'), 'tree');
      for (const [key, port] of model.ports) bench.ports.set(key, port);
      const [port] = [...model.ports.values()].filter((p) => p.endpoints.hasAny);
      if (port === undefined) throw new Error('no port with endpoints');
      const printName = 'ns/bad';
      bench.ports.set('ns/bad/tcp', { ...port, printName, protocol: 'tcp', port: 70_000 });
      await bench.write(new Set(bench.ports.keys()));
      expect(bench.parked).toEqual([printName]);
      expect(await bench.leftToDo([printName])).toEqual([]);
    });
  });
});
