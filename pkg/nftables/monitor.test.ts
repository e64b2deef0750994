import { expect, test, vi } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { pollNftables } from './monitor.ts';

/** A kernel whose socket overflowed with this many datagrams of others waiting in it. */
function overflown(waiting: number): { readonly sys: Sys; left(): number } {
  let left = waiting;
  let told = false;
  const done = (): undefined => undefined;
  const sys: Sys = {
    socket: () => 77,
    bind: done,
    connect: done,
    getsockname: () => 12,
    setsockopt: done,
    send: () => 0,
    recv() {
      if (!told) {
        told = true;
        throw new AgentError('ENOBUFS', 'Cannot receive from a socket');
      }
      left -= 1;
      return 0;
    },
    poll: () => (left > 0 ? 1 : 0),
    setns: done,
    flock: done,
    close: done,
  };
  return { sys, left: () => left };
}

test('pollNftables() tells of lost events once the socket is empty and hears everything again', async () => {
  const kernel = overflown(500);
  const leftWhenTold: number[] = [];
  using _poll = pollNftables(
    kernel.sys,
    (events) => {
      if (events.some(({ kind }) => kind === 'lost')) leftWhenTold.push(kernel.left());
    },
    () => undefined,
  );
  await expect.poll(() => leftWhenTold, { timeout: 19_000 }).toHaveLength(1);
  expect(leftWhenTold).toEqual([0]);
});

test('pollNftables() looks every 200 ms', () => {
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  try {
    const { sys } = overflown(0);
    const onLooked = vi.fn();
    using _poll = pollNftables(sys, () => undefined, onLooked);
    expect(onLooked).not.toHaveBeenCalled();
    for (const looks of [1, 2, 3]) {
      vi.advanceTimersByTime(200);
      expect(onLooked).toHaveBeenCalledTimes(looks);
    }
  } finally {
    vi.useRealTimers();
  }
});
