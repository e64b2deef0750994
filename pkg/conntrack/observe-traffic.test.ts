import { expect, it } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { FlowTally } from './flow-tally.ts';
import { watchTraffic } from './observe-traffic.ts';

/** A kernel whose sockets give this, one call after the other, and then nothing. */
function kernel(...answers: readonly string[]) {
  const left = [...answers];
  const closed: number[] = [];
  let opened = 70;
  const done = (): undefined => undefined;
  const sys: Sys = {
    socket: () => (opened += 1),
    bind: done,
    connect: done,
    getsockname: () => 12,
    setsockopt: done,
    send: () => 0,
    recv: () => {
      throw new AgentError(left.shift() ?? 'EAGAIN', 'Cannot receive from a socket');
    },
    poll: () => 0,
    setns: done,
    flock: done,
    close: (fd) => void closed.push(fd),
  };
  return { sys, closed, left: () => left.length };
}

it('counts how often word of ended flows was lost, and reads on', async () => {
  const { left, sys } = kernel('ENOBUFS', 'ENOBUFS', 'EAGAIN', 'ENOBUFS');
  using watch = watchTraffic(sys, new FlowTally(() => []));
  await expect.poll(left, { timeout: 10_000 }).toBe(0);
  expect(watch.overflows).toBe(3);
});

it('closes what it opened', async () => {
  const { closed, sys } = kernel();
  watchTraffic(sys, new FlowTally(() => []))[Symbol.dispose]();
  await expect.poll(() => closed.toSorted((a, b) => a - b)).toEqual([71, 72]);
});
