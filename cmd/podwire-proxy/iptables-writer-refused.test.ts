import { describe, expect, it } from 'vitest';
import { slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { many, WriterBench } from './scratch/writer-bench.ts';

const none: Cluster = { services: [] };

describe('a port whose rules are refused', () => {
  const bad = (...names: string[]) => {
    const texts = names.map((name) => `"ns/${name}:p80`);
    return (rule: string): boolean => texts.some((text) => rule.includes(text));
  };

  it('is left out of the first write and told of, the others are served', async () => {
    const bench = new WriterBench();
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
    const bench = new WriterBench();
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
    const bench = new WriterBench();
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
    const bench = new WriterBench();
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
