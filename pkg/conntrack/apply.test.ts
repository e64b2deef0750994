import { describe, expect, it } from 'vitest';
import { removeFlows } from './apply.ts';
import type { FlowSearch } from './flow.ts';
import { FakeConntrack } from './testdata/fake-conntrack.ts';

const signal = new AbortController().signal;
const gone = '10.1.0.9:53';
const search = (fields: Partial<FlowSearch> = {}): FlowSearch => ({
  family: 'ip',
  protocol: 17,
  destinations: [{ addresses: ['172.30.0.1'], port: 53 }],
  isStale: ({ server }) => server === gone,
  ...fields,
});
const stale = 'udp 10.1.0.1:4000 > 172.30.0.1:53 = 10.1.0.9:53';
const others = [
  'udp 10.1.0.2:4000 > 172.30.0.1:53 = 10.1.0.8:53',
  'tcp 10.1.0.3:4000 > 172.30.0.1:53 = 10.1.0.9:53',
  'sctp 10.1.0.3:4000 > 172.30.0.1:53 = 10.1.0.9:53',
  'udp 10.1.0.4:4000 > 172.30.0.1:54 = 10.1.0.9:53',
  'udp [fd00::1]:4000 > [fd00::2]:53 = [fd00::3]:53',
];

describe('removeFlows()', () => {
  it('deletes what is stale, asking for nothing but one destination', async () => {
    const kernel = new FakeConntrack([stale, ...others]);
    const removed = await removeFlows(kernel, search(), signal);
    expect(removed).toEqual({ deleted: 1, listed: 2, requests: 2, complete: true });
    expect(kernel.entries).toEqual(others);
    expect(kernel.queries).toMatchObject([{ destinationPort: 53, protocol: 17, family: 'ip' }]);
  });

  it('asks by port alone where a destination has many addresses', async () => {
    const kernel = new FakeConntrack([stale, ...others]);
    const destinations = [{ addresses: ['172.30.0.1', '172.30.0.2'], port: 53 }];
    expect(await removeFlows(kernel, search({ destinations }), signal)).toMatchObject({
      deleted: 1,
    });
    expect(kernel.queries).toMatchObject([{ destination: undefined, destinationPort: 53 }]);
  });

  it('IPv6 alike', async () => {
    const kernel = new FakeConntrack([stale, ...others]);
    const destinations = [{ addresses: ['fd00::2'], port: 53 }];
    const isStale: FlowSearch['isStale'] = (flow) => {
      expect(flow).toEqual({ destination: '[fd00::2]:53', server: '[fd00::3]:53' });
      return true;
    };
    await removeFlows(kernel, search({ family: 'ip6', destinations, isStale }), signal);
    expect(kernel.entries).toEqual([stale, ...others.slice(0, -1)]);
    // By an address the kernel would list all others.
    expect(kernel.queries).toMatchObject([{ destination: undefined, destinationPort: 53 }]);
  });

  it('S122. many destinations share one dump, and requests do not grow with the table', async () => {
    const table = Array.from(
      { length: 5_000 },
      (_, i) => `udp 10.2.${i >> 8}.${i & 255}:4000 > 172.30.0.${i % 200}:53 = 10.1.0.8:53`,
    );
    const kernel = new FakeConntrack([stale, ...table]);
    const destinations = Array.from({ length: 100 }, (_, i) => ({
      addresses: [`172.30.0.${i}`],
      port: 53,
    }));
    const removed = await removeFlows(kernel, search({ destinations }), signal);
    expect(removed).toMatchObject({ deleted: 1, listed: 5_001, requests: 2 });
  });

  it('what one query covers is not asked for twice', async () => {
    const kernel = new FakeConntrack([stale, ...others]);
    const destinations = ['fd00::2', 'fd00::4'].map((address) => ({
      addresses: [address],
      port: 53,
    }));
    await removeFlows(kernel, search({ family: 'ip6', destinations }), signal);
    expect(kernel.queries).toHaveLength(1);
  });

  it('does nothing, and asks nothing, for no destinations', async () => {
    const kernel = new FakeConntrack([stale]);
    await removeFlows(kernel, search({ destinations: [] }), signal);
    expect(kernel.queries).toEqual([]);
  });

  const two = [
    { addresses: ['172.30.0.7'], port: 55 },
    { addresses: ['172.30.0.1'], port: 53 },
  ];

  it('a kernel before 5.8 lists everything: one listing serves all destinations', async () => {
    const kernel = new FakeConntrack([stale, ...others]);
    kernel.filters = 'ignored';
    const removed = await removeFlows(kernel, search({ destinations: two }), signal);
    expect(removed).toEqual({ deleted: 1, listed: 5, requests: 2, complete: true });
    expect(kernel.entries).toEqual(others);
  });

  it('a kernel that refuses the filter is asked once for all flows of the protocol', async () => {
    const kernel = new FakeConntrack([stale, ...others]);
    kernel.filters = 'refused';
    await removeFlows(kernel, search({ destinations: two }), signal);
    expect(kernel.entries).toEqual(others);
    expect(kernel.queries.map((q) => q.destinationPort)).toEqual([55, undefined]);
  });

  it('a kernel that tracks nothing has nothing to delete', async () => {
    const kernel = new FakeConntrack([stale]);
    kernel.absent = true;
    expect(await removeFlows(kernel, search(), signal)).toMatchObject({
      deleted: 0,
      complete: true,
    });
  });

  it('S121. an interrupted dump is used as far as it goes, and made again', async () => {
    const kernel = new FakeConntrack([stale, ...others]);
    kernel.interruptions = 2;
    const removed = await removeFlows(kernel, search(), signal);
    expect(removed).toMatchObject({ deleted: 1, complete: true });
    expect(kernel.queries).toHaveLength(3);
  });

  it('S121. a table that never stands still: what was seen is done, and the rest admitted', async () => {
    const kernel = new FakeConntrack([stale, ...others]);
    kernel.interruptions = 99;
    expect(await removeFlows(kernel, search(), signal)).toMatchObject({
      deleted: 1,
      complete: false,
    });
    expect(kernel.queries).toHaveLength(5);
  });

  it('a flow that ended meanwhile is no error and not counted', async () => {
    const kernel = new FakeConntrack([stale, stale.replace(':4000', ':4001')]);
    kernel.deletionErrnos = [2];
    expect(await removeFlows(kernel, search(), signal)).toMatchObject({ deleted: 1, requests: 3 });
  });

  it('a refusal to delete is an error', async () => {
    const kernel = new FakeConntrack([stale]);
    kernel.deletionErrnos = [1];
    await expect(removeFlows(kernel, search(), signal)).rejects.toMatchObject({ code: 'EPERM' });
  });

  it('ends when told', async () => {
    const kernel = new FakeConntrack([stale, ...others]);
    await expect(removeFlows(kernel, search(), AbortSignal.abort())).rejects.toThrow();
    expect(kernel.queries).toHaveLength(1);
  });
});
