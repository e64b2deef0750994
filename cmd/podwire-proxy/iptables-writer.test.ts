import { describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { proxyConfig } from '#pkg/config/proxy-config.ts';
import { planIptables } from '#pkg/iptables/plan.ts';
import type { ObservedRuleset } from '#pkg/iptables/ruleset.ts';
import { silentLogger, type Logger } from '#pkg/log/logger.ts';
import type { IptablesLayout } from '#pkg/proxy/iptables-options.ts';
import { iptablesRuleset } from '#pkg/proxy/iptables-ruleset.ts';
import { ServiceModel } from '#pkg/proxy/service-model.ts';
import { asChanges, nodeName, service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { createIptablesWriter, type IptablesWriter } from './iptables-writer.ts';
import type { WriteReport } from './proxy-mode.ts';
import { iptablesOptions } from './round-options.ts';
import { createRulesWriter } from './rules-writer.ts';
import { FakeIptables } from './scratch/fake-iptables.ts';

const signal = new AbortController().signal;
const one: Cluster = {
  services: [service('ns1/svc1', { clusterIPs: ['172.30.0.41'] })],
  slices: [slice('ns1/svc1', ['10.180.0.1'])],
};
const two: Cluster = { services: [], slices: [slice('ns1/svc1', ['10.180.0.1', '10.180.0.2'])] };
const none: Cluster = { services: [] };
const host = {
  addresses: () => ['192.168.0.2'],
  conntrackLiberal: () => false,
  allowRouteLocalnet: () => undefined,
};

/** A writer with a model before it and a kernel behind it. */
class Bench {
  readonly fake = new FakeIptables();
  readonly clock = new FakeClock();
  readonly warnings: object[] = [];
  readonly parked: string[] = [];
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
    const log: Logger = { ...silentLogger, warn };
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
      metrics: { iptablesRules: () => undefined, restoreFailed: () => undefined },
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
function many(count: number, from = 0): Cluster {
  const numbers = Array.from({ length: count }, (_, i) => from + i + 1);
  const address = (net: string, n: number): string => `${net}.${n >> 8}.${n & 255}`;
  return {
    services: numbers.map((n) => service(`ns/s${n}`, { clusterIPs: [address('10.96', n)] })),
    slices: numbers.map((n) => slice(`ns/s${n}`, [address('10.1', n), address('10.2', n)])),
  };
}

describe('an iptables writer', () => {
  it('reads the kernel once, then writes differences only', async () => {
    const bench = new Bench();
    expect(await bench.write(one)).toMatchObject({ kind: 'full' });
    expect(await bench.write(two)).toMatchObject({ kind: 'partial' });
    expect(bench.fake.inputs.at(-1)?.match(/^:.{8}/gm)).toEqual([':KUBE-SEP', ':KUBE-SVC']);
    expect(await bench.write(none)).toEqual({ kind: 'partial', written: 0 });
    expect(bench.fake.calls).toEqual(['observe', 'apply', 'observe', 'apply']);
    expect(await bench.leftToDo()).toBe(0);
  });

  it('reads it again after the interval, heals what others did and says so', async () => {
    const bench = new Bench();
    await bench.write(one);
    bench.fake.kernel.get('nat')?.set('KUBE-POSTROUTING', []);
    await bench.write(none);
    expect(await bench.leftToDo()).toBe(1);
    await bench.clock.advance(30_000);
    expect(await bench.write(two)).toMatchObject({ kind: 'full' });
    expect(await bench.leftToDo()).toBe(0);
    // What was wanted anew in the same round is nobody's fault.
    expect(bench.warnings).toEqual([{ family: 'ip', count: 1, chains: ['nat KUBE-POSTROUTING'] }]);
  });

  it('reads it the less often the longer that takes', async () => {
    const bench = new Bench();
    bench.fake.before = (call) => bench.clock.advance(call === 'observe' ? 2_000 : 0);
    await bench.write(one);
    await bench.clock.advance(90_000);
    expect(await bench.write(none)).toMatchObject({ kind: 'partial' });
    await bench.clock.advance(10_000);
    expect(await bench.write(none)).toMatchObject({ kind: 'full' });
  });

  it('reads it again when in doubt, once', async () => {
    const bench = new Bench();
    await bench.write(one);
    expect(bench.writer.written).toBeDefined();
    bench.fake.kernel.get('nat')?.set('KUBE-POSTROUTING', []);
    bench.writer.doubt();
    expect(bench.writer.written).toBeUndefined();
    expect(await bench.write(none)).toMatchObject({ kind: 'full' });
    expect(await bench.leftToDo()).toBe(0);
    expect(await bench.write(none)).toMatchObject({ kind: 'partial' });
  });

  it('does not write for ever what iptables prints otherwise, and still heals it', async () => {
    const bench = new Bench();
    const { fake } = bench;
    fake.print = (rule) =>
      rule.replace('-j MASQUERADE', '-g MASQUERADE').replace('--ctstate', '-S');
    await bench.write(one);
    const rules = fake.count();
    for (let round = 0; round < 5; round++) {
      await bench.clock.advance(30_000);
      expect(await bench.write(none)).toEqual({ kind: 'full', written: 0 });
    }
    expect(bench.warnings).toHaveLength(1);
    fake.kernel.get('nat')?.set('KUBE-POSTROUTING', []);
    fake.kernel.get('filter')?.set('FORWARD', []);
    bench.writer.doubt();
    await bench.write(none);
    expect(fake.inputs.at(-1)?.match(/^(?::|-I )\S+/gm)).toEqual([
      ...Array(4).fill('-I FORWARD'),
      ':KUBE-POSTROUTING',
    ]);
    expect(fake.count()).toBe(rules);
  });

  it('heals what others delete while it looks', async () => {
    const bench = new Bench();
    bench.fake.before = (call) => {
      // The look after the first write.
      if (call === 'observe' && bench.fake.calls.length === 2) bench.fake.flush();
    };
    await bench.write(one);
    expect(await bench.leftToDo()).toBeGreaterThan(0);
    for (let round = 0; round < 2; round++) {
      bench.writer.doubt();
      await bench.write(none);
    }
    expect(await bench.leftToDo()).toBe(0);
  });

  it('a doubt that comes while the kernel is read stands', async () => {
    const bench = new Bench();
    await bench.write(one);
    bench.writer.doubt();
    bench.fake.before = () => bench.writer.doubt();
    await bench.write(none);
    bench.fake.before = () => undefined;
    expect(bench.writer.written).toBeUndefined();
    expect(await bench.write(none)).toMatchObject({ kind: 'full' });
  });

  it.each(['compatible', 'tree'] as const)(
    'converges whichever call of the kernel fails once, layout %s',
    async (layout) => {
      const news = [one, two, many(20), many(3, 20), two];
      const failures: number[] = [];
      for (let failAt = 0; failAt < 8; failAt++) {
        const bench = new Bench(layout);
        bench.fake.failAt = failAt;
        for (const cluster of news) {
          await bench.write(cluster).catch(() => failures.push(failAt));
          await bench.clock.advance(10_000);
        }
        await bench.write(none, ['ns/s1', 'ns/s7']).catch(() => failures.push(failAt));
        const last = await bench.write(none);
        expect([failAt, last.kind, await bench.leftToDo()]).toMatchObject([
          failAt,
          expect.anything(),
          0,
        ]);
      }
      expect(failures).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    },
  );

  it('after a failure reads the kernel first', async () => {
    const bench = new Bench();
    await bench.write(one);
    bench.fake.failAt = bench.fake.calls.length;
    await expect(bench.write(two)).rejects.toThrow('apply fails');
    expect(bench.writer.written).toBeUndefined();
    expect(await bench.write(none)).toMatchObject({ kind: 'full' });
    expect(await bench.leftToDo()).toBe(0);
  });
});

describe.each(['compatible', 'tree'] as const)('layout %s: a change', (layout) => {
  it('costs the same with 5,000 Services as with 100', async () => {
    const costs = [];
    for (const count of [100, 5_000]) {
      const bench = new Bench(layout);
      // Not of a large cluster in one case only.
      const large = slice(
        'ns/large',
        Array.from({ length: 1_001 }, (_, i) => `10.9.${i >> 8}.${i & 255}`),
      );
      await bench.write({ ...many(count), slices: [...(many(count).slices ?? []), large] });
      await bench.write({ services: [service('ns/large', { clusterIPs: ['10.96.255.1'] })] });
      bench.fake.inputs.length = 0;
      await bench.write({ services: [], slices: [slice('ns/s50', ['10.1.0.50', '10.3.0.1'])] });
      await bench.write({ services: [], slices: [slice('ns/s50', [])] });
      await bench.write({ services: [], slices: [slice('ns/s50', ['10.1.0.50'])] });
      await bench.write(many(1, 20_000));
      await bench.write(none, ['ns/s50']);
      expect(await bench.leftToDo()).toBe(0);
      costs.push(bench.fake.inputs.map((input) => input.length));
    }
    const [small = [], large = []] = costs;
    expect(small).toHaveLength(5);
    for (const [i, bytes] of large.entries()) {
      // In the tree a leaf has up to eight rules, and may be divided.
      expect(bytes).toBeLessThan((small[i] ?? 0) + (layout === 'tree' ? 3_000 : 20));
      expect(bytes).toBeLessThan(5_000);
    }
  }, 30_000);

  it('keeps the node port rule last and what is incremental like what is fresh', async () => {
    const bench = new Bench(layout);
    await bench.write(many(30));
    for (let n = 1; n <= 20; n++) await bench.write(many(1, 100 + n * 7), [`ns/s${n}`]);
    expect(bench.fake.calls.filter((call) => call === 'observe')).toHaveLength(2);
    expect(await bench.leftToDo()).toBe(0);
    expect(bench.fake.kernel.get('nat')?.get('KUBE-SERVICES')?.at(-1)).toContain(
      '-j KUBE-NODEPORTS',
    );
  });
});

describe('a port whose rules are refused', () => {
  const bad = (...names: string[]) => {
    const texts = names.map((name) => `"ns/${name}:p80`);
    return (rule: string): boolean => texts.some((text) => rule.includes(text));
  };

  it('is left out of the first write and told of, the others are served', async () => {
    const bench = new Bench();
    bench.fake.refuses = bad('s33', 's77');
    await bench.write(many(100));
    expect(bench.parked.toSorted()).toEqual(['ns/s33:p80', 'ns/s77:p80']);
    expect(await bench.leftToDo(bench.parked)).toBe(0);
    expect(bench.fake.calls.length).toBeLessThan(90);
    // Nothing is tried again for it.
    bench.fake.calls.length = 0;
    await bench.write(many(1, 200));
    expect(bench.fake.calls).toEqual(['apply']);
  });

  it('costs those that changed with it nothing, not for a moment', async () => {
    const bench = new Bench();
    await bench.write(many(10));
    const rule = (): boolean =>
      bench.fake.kernel
        .get('nat')
        ?.get('KUBE-SERVICES')
        ?.some((r) => r.includes('ns/s3:p80')) ?? false;
    let wasAway = 0;
    bench.fake.before = () => void (wasAway += rule() ? 0 : 1);
    bench.fake.refuses = bad('s11');
    const moved = slice('ns/s3', ['10.3.0.3']);
    await bench.write({
      services: many(1, 10).services,
      slices: [moved, ...(many(1, 10).slices ?? [])],
    });
    expect(bench.parked).toEqual(['ns/s11:p80']);
    expect(wasAway).toBe(0);
    expect(await bench.leftToDo(bench.parked)).toBe(0);
  });

  it('is tried again when it changed, and after ten minutes', async () => {
    const bench = new Bench();
    bench.fake.refuses = bad('s1');
    await bench.write(many(3));
    bench.fake.refuses = () => false;
    await bench.write(none);
    expect(await bench.leftToDo()).toBeGreaterThan(0);
    await bench.clock.advance(600_000);
    await bench.write(none);
    expect(await bench.leftToDo()).toBe(0);
    bench.fake.refuses = (rule) => rule.includes('10.3.0.9');
    await bench.write({ services: [], slices: [slice('ns/s2', ['10.3.0.9'])] });
    expect(bench.parked).toEqual(['ns/s1:p80', 'ns/s2:p80']);
    await bench.write({ services: [], slices: [slice('ns/s2', ['10.3.0.8'])] });
    expect(await bench.leftToDo()).toBe(0);
  });

  it('is not blamed when everything is refused, or when iptables names no rule', async () => {
    const bench = new Bench();
    bench.fake.refuses = () => true;
    await expect(bench.write(many(100))).rejects.toThrow('Cannot write rules');
    bench.fake.refuses = () => false;
    await bench.write(none);
    bench.fake.refuses = bad(...Array.from({ length: 100 }, (_, i) => `s${i + 1}`));
    const other = slice('ns/s1', ['10.3.0.1']);
    const slices = (many(100).slices ?? []).map((s) => ({
      ...other,
      name: s.name,
      serviceName: s.serviceName,
    }));
    await expect(bench.write({ services: [], slices })).rejects.toThrow('Cannot write rules');
    bench.fake.refuses = () => false;
    bench.fake.failAt = bench.fake.calls.length + 1;
    await expect(bench.write(none)).rejects.toThrow('apply fails');
    expect(bench.parked).toEqual([]);
    await bench.write(none);
    expect(await bench.leftToDo()).toBe(0);
  });
});
