/** The iptables writer with a model before it and a kernel of paper behind it. */
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { proxyConfig } from '#pkg/config/proxy-config.ts';
import { createIptablesWriter, type IptablesWriter } from '#cmd/podwire-proxy/iptables-writer.ts';
import type { WriteReport } from '#cmd/podwire-proxy/proxy-mode.ts';
import { iptablesOptions } from '#cmd/podwire-proxy/round-options.ts';
import { createRulesWriter } from '#cmd/podwire-proxy/rules-writer.ts';
import { planIptables } from '#pkg/iptables/plan.ts';
import type { ObservedRuleset } from '#pkg/iptables/ruleset.ts';
import { silentLogger, type Logger } from '#pkg/log/logger.ts';
import type { IptablesLayout } from '#pkg/proxy/iptables-options.ts';
import { iptablesRuleset } from '#pkg/proxy/iptables-ruleset.ts';
import { ServiceModel } from '#pkg/proxy/service-model.ts';
import { asChanges, nodeName, service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { FakeIptables } from './fake-iptables.ts';

const signal = new AbortController().signal;
const host = {
  addresses: () => ['192.168.0.2'],
  conntrackLiberal: () => false,
  allowRouteLocalnet: () => undefined,
};

export class WriterBench {
  readonly fake = new FakeIptables();
  readonly clock = new FakeClock();
  readonly warnings: object[] = [];
  /** What was logged of comparisons of everything. */
  readonly compared: object[] = [];
  readonly parked: string[] = [];
  /** What metrics were told last, by table: rules there are, and rules that were written. */
  counted: ReadonlyMap<string, { readonly total: number; readonly written: number }> = new Map();
  readonly model = new ServiceModel('ip', { name: nodeName, zone: undefined });
  readonly writer: IptablesWriter;
  readonly #config = { ...proxyConfig({}), nodePortAddresses: [] };
  readonly #layout: IptablesLayout;
  /** Keys not written with success. */
  readonly #pending = new Set<string>();

  constructor(layout: IptablesLayout = 'compatible') {
    const { clock, fake } = this;
    this.#layout = layout;
    const warn = (fields: object): void => void this.warnings.push(fields);
    const inform = (fields: object, text?: string): void => {
      if (text === 'All rules compared') this.compared.push(fields);
    };
    const log: Logger = { ...silentLogger, warn, info: inform, debug: inform };
    this.writer = createIptablesWriter({
      family: 'ip',
      randomFully: true,
      rules: createRulesWriter({
        family: 'ip',
        driver: fake,
        observeIntervalMs: 30_000,
        clock,
        log,
      }),
      config: this.#configured(),
      host,
      metrics: {
        iptablesRules: (_, rules) => void (this.counted = rules),
        restoreFailed: () => undefined,
      },
      onParked: (port) => void this.parked.push(port.printName),
      clock,
      log,
    });
  }

  /** Takes in what is new and writes. */
  async write(news: Cluster, gone: readonly string[] = []): Promise<WriteReport> {
    const changes = asChanges(news);
    const services = [...changes.services, ...gone.map((key) => ({ key, new: undefined }))];
    for (const { key } of this.model.update({ ...changes, services })) this.#pending.add(key);
    const report = await this.writer.write(
      { ports: this.model.ports, changed: new Set(this.#pending), node: undefined },
      signal,
    );
    this.#pending.clear();
    return report;
  }

  /** How many steps a fresh proxy would find to do. */
  async leftToDo(without: readonly string[] = []): Promise<number> {
    const ports = [...this.model.ports.values()].filter((p) => !without.includes(p.printName));
    const options = iptablesOptions(
      { config: this.#configured(), node: undefined, host },
      { family: 'ip', randomFully: true },
    );
    const found: ObservedRuleset = await this.fake.observe();
    return planIptables(iptablesRuleset(ports, options), found).length;
  }

  #configured(): ReturnType<typeof proxyConfig> {
    return { ...this.#config, iptables: { ...this.#config.iptables, layout: this.#layout } };
  }
}

/** N Services with two endpoints each, 10.96.0.1 and on. */
export function many(count: number, from = 0): Cluster {
  const numbers = Array.from({ length: count }, (_, i) => from + i + 1);
  const address = (net: string, n: number): string => `${net}.${n >> 8}.${n & 255}`;
  return {
    services: numbers.map((n) => service(`ns/s${n}`, { clusterIPs: [address('10.96', n)] })),
    slices: numbers.map((n) => slice(`ns/s${n}`, [address('10.1', n), address('10.2', n)])),
  };
}
