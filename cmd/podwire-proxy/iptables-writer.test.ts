import { describe, expect, it } from 'vitest';
import { destinationKey } from '#pkg/proxy/flow-destinations.ts';
import { service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { many, WriterBench } from './scratch/writer-bench.ts';

const one: Cluster = {
  services: [service('ns1/svc1', { clusterIPs: ['172.30.0.41'] })],
  slices: [slice('ns1/svc1', ['10.180.0.1'])],
};
const two: Cluster = { services: [], slices: [slice('ns1/svc1', ['10.180.0.1', '10.180.0.2'])] };
const none: Cluster = { services: [] };
describe('an iptables writer', () => {
  it('reads the kernel once, then writes differences only', async () => {
    const bench = new WriterBench();
    expect(await bench.write(one)).toMatchObject({ kind: 'full' });
    expect(await bench.write(two)).toMatchObject({ kind: 'partial' });
    expect(bench.fake.inputs.at(-1)?.match(/^:.{8}/gm)).toEqual([':KUBE-SEP', ':KUBE-SVC']);
    expect(await bench.write(none)).toEqual({ kind: 'partial', written: 0 });
    expect(bench.fake.calls).toEqual(['observe', 'apply', 'apply']);
    expect(await bench.leftToDo()).toBe(0);
  });

  it('S108. tells metrics what rules there are, and what the last write wrote', async () => {
    const bench = new WriterBench();
    for (const news of [many(3), many(1, 3), none]) {
      bench.fake.inputs.length = 0;
      await bench.write(news);
      const text = bench.fake.inputs.join('');
      for (const [table, { total, written }] of bench.counted) {
        const ofTable = new RegExp(`^\\*${table}$[^*]*`, 'm');
        const rules = (saved: string): number =>
          ofTable.exec(saved)?.[0].match(/^-[AI] /gm)?.length ?? 0;
        expect({ table, total, written }).toEqual({
          table,
          total: rules(bench.fake.saved().join('\n')),
          written: rules(text),
        });
      }
      expect([...bench.counted.keys()].toSorted()).toEqual(['filter', 'nat']);
    }
  });

  it('reads it again after the interval, heals what others did and says so', async () => {
    const bench = new WriterBench();
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
    const bench = new WriterBench();
    bench.fake.before = (call) => bench.clock.advance(call === 'observe' ? 2_000 : 0);
    await bench.write(one);
    await bench.clock.advance(90_000);
    expect(await bench.write(none)).toMatchObject({ kind: 'partial' });
    await bench.clock.advance(10_000);
    expect(await bench.write(none)).toMatchObject({ kind: 'full' });
  });

  it('reads it again when in doubt, once', async () => {
    const bench = new WriterBench();
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
    const bench = new WriterBench();
    const { fake } = bench;
    fake.print = (rule) =>
      rule.replace('-j MASQUERADE', '-g MASQUERADE').replace('--ctstate', '-S');
    await bench.write(one);
    const rules = fake.count();
    const written = [];
    for (let round = 0; round < 5; round++) {
      await bench.clock.advance(30_000);
      written.push((await bench.write(none)).written > 0);
    }
    expect(written).toEqual([true, false, false, false, false]);
    // That iptables prints otherwise; nobody is blamed.
    expect(bench.warnings).toMatchObject([{ count: 6, first: { step: expect.anything() } }]);
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
    const bench = new WriterBench();
    await bench.write(one);
    // As many rules as before: perhaps only other words, so that it looks again after the write.
    bench.fake.kernel.get('nat')?.set('KUBE-MARK-MASQ', ['-j RETURN']);
    bench.writer.doubt();
    const looksAgain = bench.fake.calls.length + 2;
    bench.fake.before = (call) => {
      if (call === 'observe' && bench.fake.calls.length === looksAgain) bench.fake.flush();
    };
    await bench.write(none);
    expect(await bench.leftToDo()).toBeGreaterThan(0);
    for (let round = 0; round < 2; round++) {
      bench.writer.doubt();
      await bench.write(none);
    }
    expect(await bench.leftToDo()).toBe(0);
  });

  it('in doubt writes what changed before it reads, which takes seconds', async () => {
    const bench = new WriterBench();
    await bench.write(one);
    bench.fake.calls.length = 0;
    bench.fake.kernel.get('nat')?.set('KUBE-POSTROUTING', []);
    bench.writer.doubt();
    expect(await bench.write(two)).toMatchObject({ kind: 'full' });
    expect(bench.fake.calls).toEqual(['apply', 'observe', 'apply']);
    expect(bench.fake.inputs.at(-2)?.match(/^:.{8}/gm)).toEqual([':KUBE-SEP', ':KUBE-SVC']);
    expect(bench.warnings).toEqual([{ family: 'ip', count: 1, chains: ['nat KUBE-POSTROUTING'] }]);
    // What it would change may be gone: then everything is compared without it.
    bench.fake.kernel.get('nat')?.set('KUBE-SERVICES', []);
    bench.writer.doubt();
    expect(await bench.write(many(0), ['ns1/svc1'])).toMatchObject({ kind: 'full' });
    expect(await bench.leftToDo()).toBe(0);
  });

  it('says why it compared everything, and how long that took', async () => {
    const bench = new WriterBench();
    bench.fake.before = (call) => bench.clock.advance(call === 'observe' ? 40 : 2);
    const causes = async (act: () => unknown): Promise<unknown> => {
      bench.compared.length = 0;
      await act();
      return bench.compared;
    };
    const line = (cause: string, chains = 0): object[] => [
      { family: 'ip', cause, chains, readMs: 40, ms: chains > 0 ? 42 : 40 },
    ];
    expect(await causes(() => bench.write(one))).toEqual(line('start', 21));
    expect(await causes(() => bench.write(two))).toEqual([]);
    bench.writer.doubt();
    expect(await causes(() => bench.write(none))).toEqual(line('change by others'));
    await bench.clock.advance(30_000);
    expect(await causes(() => bench.write(none))).toEqual(line('interval'));
    bench.fake.failAt = bench.fake.calls.length;
    await bench.write(one).catch(() => undefined);
    expect(await causes(() => bench.write(none))).toEqual(line('failure', 2));
  });

  it.each(['compatible', 'tree'] as const)(
    'lets others have their turn while it writes everything, layout %s',
    async (layout) => {
      const bench = new WriterBench(layout);
      let turns = 0;
      let isDone = false;
      const turn = (): void => {
        turns += 1;
        if (!isDone) setImmediate(turn);
      };
      setImmediate(turn);
      await bench.write(many(3_000));
      isDone = true;
      expect(turns).toBeGreaterThan(3);
    },
  );

  it('tells once of UDP Services that its predecessor served and nobody knows', async () => {
    const dns = (name: string, clusterIP: string, nodePort: number): Cluster['services'] => [
      service(name, {
        type: 'NodePort',
        clusterIPs: [clusterIP],
        ports: [{ name: 'p80', protocol: 'UDP', port: 53, nodePort }],
      }),
    ];
    const pods = (name: string): NonNullable<Cluster['slices']> => [
      slice(name, ['10.1.0.1'], { ports: [{ name: 'p80', protocol: 'UDP', port: 53 }] }),
    ];
    const kept = { services: dns('ns/kept', '10.96.0.1', 30001), slices: pods('ns/kept') };
    const gone = { services: dns('ns/gone', '10.96.0.2', 30002), slices: pods('ns/gone') };
    const tcp = many(1, 5);
    for (const layouts of [
      ['compatible', 'tree'],
      ['tree', 'tree'],
    ] as const) {
      const before = new WriterBench(layouts[0]);
      for (const cluster of [kept, gone, tcp]) await before.write(cluster);
      const bench = new WriterBench(layouts[1]);
      bench.fake.kernel = before.fake.kernel;
      bench.fake.failAt = 1;
      await expect(bench.write(kept)).rejects.toThrow('apply fails');
      expect((await bench.write(none)).abandoned?.map(destinationKey).toSorted()).toEqual([
        '10.96.0.2:53',
        'node-port 30002',
      ]);
      bench.writer.doubt();
      expect((await bench.write(none)).abandoned).toBeUndefined();
    }
  });

  it('a doubt that comes while the kernel is read stands', async () => {
    const bench = new WriterBench();
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
      for (let failAt = 0; failAt < 7; failAt++) {
        const bench = new WriterBench(layout);
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
      // The fifth is that of a change just before everything is compared, which heals it.
      expect(failures).toEqual([0, 1, 2, 3, 5, 6]);
    },
  );

  it('after a failure reads the kernel first', async () => {
    const bench = new WriterBench();
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
      const bench = new WriterBench(layout);
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
    const bench = new WriterBench(layout);
    await bench.write(many(30));
    for (let n = 1; n <= 20; n++) await bench.write(many(1, 100 + n * 7), [`ns/s${n}`]);
    expect(bench.fake.calls.filter((call) => call === 'observe')).toHaveLength(1);
    expect(await bench.leftToDo()).toBe(0);
    expect(bench.fake.kernel.get('nat')?.get('KUBE-SERVICES')?.at(-1)).toContain(
      '-j KUBE-NODEPORTS',
    );
  });
});
