import { describe, expect, it } from 'vitest';
import type { CountedFlow } from '#pkg/netlink/conntrack-counters.ts';
import { FlowTally, TrafficAccount } from './flow-tally.ts';

/** Of the flow with this ID; its address says whose it is. */
function flow(id: number, bytes: readonly [into: number, out: number], ended = false): CountedFlow {
  const [bytesIn, bytesOut] = bytes;
  const counted = { packetsIn: bytesIn / 100, bytesIn, packetsOut: bytesOut / 100, bytesOut };
  const address = Uint8Array.of(10, 0, 0, 1);
  return { id, ended, protocol: 6, address, port: 80, server: address, serverPort: 80, ...counted };
}

/** A tally with one account, of all flows with even IDs. */
function tally() {
  const account = new TrafficAccount();
  let asked = 0;
  const of = new FlowTally(({ id }) => {
    asked += 1;
    return id % 2 === 0 ? [account] : [];
  });
  return {
    of,
    asked: () => asked,
    bytes: () => [account.in.bytes, account.out.bytes],
    packets: () => [account.in.packets, account.out.packets],
    look: (flows: readonly CountedFlow[], { during = [] as CountedFlow[], whole = true } = {}) => {
      of.beginLook();
      for (const one of [...during, ...flows]) of.take(one);
      of.endLook(whole);
    },
  };
}

describe('what flows have carried is added once', () => {
  it('however often a flow is seen', () => {
    const t = tally();
    t.look([flow(2, [100, 1000])]);
    t.look([flow(2, [100, 1000])]);
    t.look([flow(2, [300, 1500])]);
    expect([t.bytes(), t.packets()]).toEqual([
      [300, 1500],
      [3, 15],
    ]);
    expect(t.asked()).toBe(1);
  });

  it('when it ended, seen before or not', () => {
    const t = tally();
    t.look([flow(2, [100, 1000])]);
    t.of.take(flow(2, [200, 1100], true));
    t.of.take(flow(4, [50, 50], true));
    expect(t.bytes()).toEqual([250, 1150]);
    expect(t.of.size).toBe(0);
  });

  it('when it ended during a look that shows it after all', () => {
    const t = tally();
    t.look([flow(2, [100, 1000])], { during: [flow(2, [200, 1100], true)] });
    expect(t.bytes()).toEqual([200, 1100]);
    // Its ID may come again later.
    t.look([flow(2, [10, 10])]);
    expect(t.bytes()).toEqual([210, 1110]);
  });

  it('when a look misses it', () => {
    const t = tally();
    t.look([flow(2, [100, 1000])]);
    t.look([]);
    t.look([flow(2, [200, 1000])]);
    expect(t.bytes()).toEqual([200, 1000]);
  });

  it('when somebody set the kernel’s counters to zero', () => {
    const t = tally();
    t.look([flow(2, [100, 1000])]);
    t.look([flow(2, [0, 40])]);
    t.look([flow(2, [30, 50])]);
    expect(t.bytes()).toEqual([130, 1050]);
  });
});

it('flows of others are not remembered', () => {
  const t = tally();
  t.look([flow(1, [100, 1000]), flow(2, [1, 1])]);
  t.of.take(flow(3, [100, 100], true));
  expect([t.of.size, t.bytes()]).toEqual([1, [1, 1]]);
});

it('those that went without a word are forgotten after some looks, whole ones only', () => {
  const t = tally();
  t.look([flow(2, [100, 1000])]);
  for (let i = 0; i < 9; i++) t.look([], { whole: false });
  expect(t.of.size).toBe(1);
  for (let i = 0; i < 2; i++) t.look([]);
  expect(t.of.size).toBe(1);
  t.look([]);
  expect([t.of.size, t.bytes()]).toEqual([0, [100, 1000]]);
});
