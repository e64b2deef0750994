import { describe, expect, it } from 'vitest';
import type { Cluster } from '#pkg/proxy/testdata/records.ts';
import { CleanerBench as Bench, pods, svc } from './testdata/cleaner-bench.ts';

describe('cleaning', () => {
  const stale = 'udp 10.1.0.200:4000 > 172.30.0.1:53 = 10.1.0.2:5353';
  const good = 'udp 10.1.0.201:4000 > 172.30.0.1:53 = 10.1.0.1:5353';
  const first: Cluster = {
    services: [svc('a', ['172.30.0.1'])],
    slices: [pods('a', ['10.1.0.1', '10.1.0.2'])],
  };
  const onlyOne: Cluster = { services: [], slices: [pods('a', ['10.1.0.1'])] };

  async function started(): Promise<Bench> {
    const bench = new Bench([stale, good]);
    await bench.round(first);
    await bench.clock.advance(1_000);
    expect(bench.kernel.entries).toEqual([stale, good]);
    return bench;
  }

  it('S123c. is not lost by rules that could not be written', async () => {
    await using bench = await started();
    bench.fails = 'ip';
    await bench.round(onlyOne);
    await bench.clock.advance(60_000);
    expect(bench.kernel.entries).toEqual([stale, good]);
    bench.fails = undefined;
    await bench.round({ services: [] });
    await bench.clock.advance(1_000);
    expect(bench.kernel.entries).toEqual([good]);
  });

  it('is not lost by a kernel that refuses, and is tried again ever later', async () => {
    await using bench = await started();
    const at: number[] = [];
    bench.onSearch = () => {
      at.push(bench.clock.now());
      if (at.length < 4) throw new Error('refused');
    };
    await bench.round(onlyOne);
    const start = bench.clock.now();
    await bench.clock.advance(120_000);
    expect(at.map((ms) => ms - start)).toEqual([0, 1_000, 3_000, 7_000]);
    expect(bench.warnings).toHaveLength(3);
    expect(bench.kernel.entries).toEqual([good]);
  });

  it('what failed is judged by the rules written last, with what was in doubt before', async () => {
    await using bench = await started();
    const taken = 'udp 10.1.0.203:4000 > 172.30.0.1:53 = 10.1.0.3:5353';
    let isRefused = true;
    bench.onSearch = () => {
      if (isRefused) throw new Error('refused');
    };
    await bench.round(onlyOne);
    await bench.clock.advance(100);
    // An endpoint more casts no doubt on anything by itself.
    await bench.round({ services: [], slices: [pods('a', ['10.1.0.1', '10.1.0.3'])] });
    bench.kernel.add(taken);
    isRefused = false;
    await bench.clock.advance(60_000);
    expect(bench.kernel.entries).toEqual([good, taken]);
  });

  it('ends flows of Services that were deleted while no proxy ran, and no others', async () => {
    const entries = [
      'udp 10.1.0.200:4000 > 172.30.0.9:53 = 10.1.0.2:5353',
      'udp 10.1.0.200:4001 > 192.168.0.2:30053 = 10.1.0.2:5353',
      good,
      // Not translated, another port, another host's port.
      'udp 10.1.0.200:4002 > 172.30.0.9:53 = 172.30.0.9:53',
      'udp 10.1.0.200:4003 > 172.30.0.9:54 = 10.1.0.2:5353',
      'udp 10.1.0.200:4004 > 203.0.113.9:30053 = 10.1.0.2:5353',
    ];
    await using bench = new Bench(entries);
    bench.abandoned = [
      { kind: 'address', address: '172.30.0.9', port: 53 },
      { kind: 'node-port', port: 30053 },
    ];
    await bench.round(first);
    await bench.clock.advance(1_000);
    expect(bench.kernel.entries).toEqual(entries.slice(2));
  });

  it('a family that fails does not hold up the other', async () => {
    await using bench = new Bench([stale, 'udp [fd00::5]:1 > [fd00:30::1]:53 = [fd00::9]:1']);
    bench.onSearch = () => {
      bench.onSearch = () => undefined;
      throw new Error('refused');
    };
    await bench.round({ services: [svc('a', ['172.30.0.1', 'fd00:30::1'])] });
    await bench.clock.advance(100);
    expect(bench.kernel.entries).toEqual([stale]);
    await bench.clock.advance(1_000);
    expect(bench.kernel.entries).toEqual([]);
  });

  it('S121. a table that never stands still is looked at again later', async () => {
    await using bench = await started();
    bench.kernel.interruptions = 5;
    bench.kernel.add(stale.replace(':4000', ':4001'));
    await bench.round(onlyOne);
    await bench.clock.advance(100);
    expect(bench.warnings).toHaveLength(1);
    await bench.clock.advance(1_000);
    expect(bench.kernel.entries).toEqual([good]);
  });

  it('many changes during a search are one more search', async () => {
    await using bench = await started();
    let release: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    let searches = 0;
    bench.onSearch = () => {
      searches += 1;
      return held;
    };
    await bench.round(onlyOne);
    await bench.clock.advance(0);
    for (let n = 3; n < 50; n++) {
      await bench.round({ services: [], slices: [pods('a', ['10.1.0.1', `10.1.0.${n}`])] });
    }
    expect(searches).toBe(1);
    release();
    await bench.clock.advance(60_000);
    expect(searches).toBe(2);
    expect(bench.kernel.entries).toEqual([good]);
  });

  it('rules that somebody took away are back: flows that began without them end', async () => {
    await using bench = await started();
    const untranslated = 'udp 10.1.0.203:4000 > 172.30.0.1:53 = 172.30.0.1:53';
    bench.kernel.add(untranslated);
    await bench.round({ services: [] });
    await bench.clock.advance(1_000);
    expect(bench.kernel.entries).toEqual([stale, good, untranslated]);
    bench.repairs = true;
    await bench.round({ services: [] });
    await bench.clock.advance(1_000);
    expect(bench.kernel.entries).toEqual([stale, good]);
  });

  it('rules written during a search have the last word in it', async () => {
    await using bench = await started();
    const taken = 'udp 10.1.0.203:4000 > 172.30.0.1:53 = 10.1.0.3:5353';
    let release: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    bench.onSearch = () => held;
    await bench.round(onlyOne);
    await bench.clock.advance(0);
    await bench.round({ services: [], slices: [pods('a', ['10.1.0.1', '10.1.0.3'])] });
    bench.kernel.add(taken);
    release();
    await bench.clock.advance(60_000);
    expect(bench.kernel.entries).toEqual([good, taken]);
  });

  it('searches that take long leave three quarters of the time to others', async () => {
    await using bench = await started();
    const at: number[] = [];
    bench.onSearch = async () => {
      at.push(bench.clock.now());
      await bench.clock.sleep(1_000);
    };
    const start = bench.clock.now();
    await bench.round(onlyOne);
    await bench.clock.advance(1_100);
    await bench.round({ services: [] }, { services: ['ns/a'] });
    await bench.clock.advance(10_000);
    expect(at.map((ms) => ms - start)).toEqual([0, 4_000]);
  });

  it('a Service that is deleted and comes back empty ends all its flows', async () => {
    await using bench = await started();
    await bench.round({ services: [] }, { services: ['ns/a'], slices: ['ns/a-v4'] });
    await bench.clock.advance(1_000);
    expect(bench.kernel.entries).toEqual([]);
    const untranslated = 'udp 10.1.0.200:4000 > 172.30.0.1:53 = 172.30.0.1:53';
    bench.kernel.add(untranslated);
    await bench.round({ services: [svc('a', ['172.30.0.1'])] });
    await bench.clock.advance(1_000);
    expect(bench.kernel.entries).toEqual([]);
  });
});
