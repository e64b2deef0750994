import { EventEmitter } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { silentLogger } from '#pkg/log/logger.ts';
import { startCniServer } from './cni-server.ts';

let runDir: string;
beforeEach(() => (runDir = mkdtempSync(join(tmpdir(), 'podwire-cni-server-'))));
afterEach(() => rmSync(runDir, { recursive: true }));

it('goes on with the threads there are when the kernel gives no more, and asks again', async () => {
  const threads: EventEmitter[] = [];
  let isRefused = false;
  const errors: unknown[] = [];
  const log = { ...silentLogger, error: (fields: unknown) => void errors.push(fields) };
  const server = await startCniServer(runDir, log, () => {
    // As node:worker_threads does, at once and not as an event.
    if (isRefused) throw Object.assign(new Error('EAGAIN'), { code: 'ERR_WORKER_INIT_FAILED' });
    const thread = Object.assign(new EventEmitter(), { unref: () => undefined });
    threads.push(thread);
    return thread as unknown as Worker;
  });
  const [ofAdd] = threads;
  expect(threads).toHaveLength(2);

  isRefused = true;
  ofAdd?.emit('message', { kind: 'busy' });
  await expect.poll(() => errors).toMatchObject([{ err: { message: 'EAGAIN' }, worker: 1 }]);
  isRefused = false;
  ofAdd?.emit('message', { kind: 'busy' });
  await expect.poll(() => threads).toHaveLength(3);

  // One has to be there always.
  isRefused = true;
  ofAdd?.emit('exit', 1);
  await expect.poll(() => errors.length).toBeGreaterThan(1);
  isRefused = false;
  await expect.poll(() => threads).toHaveLength(4);

  const stopped = server[Symbol.asyncDispose]();
  for (const thread of threads) thread.emit('exit', 0);
  await stopped;
});
