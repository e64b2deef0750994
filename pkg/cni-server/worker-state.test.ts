import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { createWorkerState, openWorkerState } from './worker-state.ts';

it('says when the last one that waited has work', () => {
  const state = createWorkerState();
  state.waiting(0);
  state.waiting(0);
  expect([state.taken(0), state.isBusy(0)]).toEqual([false, false]);
  expect([state.taken(0), state.isBusy(0)]).toEqual([true, true]);
  expect(state.isBusy(1)).toBe(true);
});

it('takes back what a thread held that has ended', () => {
  const state = createWorkerState();
  state.lockContainer(3, 'pod');
  state.setConnection(3, 17);
  expect(state.reclaim(2)).toBeUndefined();
  expect(state.reclaim(3)).toBe(17);
  expect(state.reclaim(3)).toBeUndefined();
  // Would wait for ever were it still locked.
  state.lockContainer(4, 'pod')[Symbol.dispose]();
});

it('lets one thread at a time work on a container, and any on another or on none', async () => {
  const state = createWorkerState();
  const first = state.lockContainer(0, 'pod');
  // As the garbage is collected, which may take long, and the runtime asks for the status.
  state.lockContainer(0, '');
  const worker = new Worker(new URL('./testdata/lock-worker.ts', import.meta.url), {
    workerData: { buffer: state.buffer, worker: 1, containerIds: ['', 'other', 'pod'] },
  });
  const locked: unknown[] = [];
  const { promise: gotOther, resolve } = Promise.withResolvers<void>();
  worker.on('message', (id) => {
    locked.push(id);
    if (id === 'other') resolve();
  });
  await gotOther;
  expect(locked).toEqual(['', 'other']);
  const ended = new Promise((resolve) => worker.once('exit', resolve));
  locked.push('released');
  openWorkerState(state.buffer);
  first[Symbol.dispose]();
  await ended;
  expect(locked).toEqual(['', 'other', 'released', 'pod']);
});
