/**
 * Resident mode of the CNI plugin: callers find a process that is running already. Their work is
 * done by threads, those for ADD apart from those for DEL: a DEL waits in the kernel for tens of
 * milliseconds, and one that runs a foreign program for as long as that likes.
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { Worker } from 'node:worker_threads';
import { listenUnix, type UnixListener } from '#pkg/cni-server/unix-listener.ts';
import { createWorkerState, type WorkerState } from '#pkg/cni-server/worker-state.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { warmUpThreadPool } from '#pkg/netns/netns.ts';
import { SO_RCVTIMEO, SOL_SOCKET } from '#pkg/sys/constants.ts';
import { openListenSys } from '#pkg/sys/listen-sys.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import type { CniWorkerData, CniWorkerMessage } from './cni-worker-data.ts';

/**
 * ADD, CHECK, STATUS and VERSION go to the first, DEL and GC to the second. An ADD keeps a processor
 * busy: more threads only wait for each other. DELs all wait for the kernel, which removes many links
 * as fast as one.
 */
const sockets = [
  { name: 'cni.sock', maxWorkers: Math.min(Math.max(2, availableParallelism()), 4) },
  { name: 'cni-del.sock', maxWorkers: 8 },
] as const;

/** Numbers of threads are unique among both. */
const numbersPerPool = 8;

/**
 * One thread has to be busy for as long before there is another: calls that come one after the other
 * find one whose code is compiled, and a burst has all of them soon enough.
 */
const growAfterMs = 10;

/** A thread beyond the first ends after as long without a caller. */
const idleSeconds = 30;

const restartAfterMs = 1000;

/** Running calls may end; what takes longer than this is left behind by a daemon that stops. */
const stopTimeoutMs = 5000;

/** Serves in `runDir`, by threads that `start` starts, until disposed. */
export async function startCniServer(
  runDir: string,
  log: Logger,
  start = startWorker,
): Promise<AsyncDisposable> {
  // A node's pods come in a burst of some dozens, which is over before V8 finds any code worth
  // compiling. Compiled as it comes, calls 3 to 30 took a fifth to a third less processor time, the
  // first three a fifth more (measured once, in turn, by a loop that is not kept).
  setFlagsFromString('--always-sparkplug');
  // Its threads are born where the process is, and not where one of ours is just then.
  await warmUpThreadPool();
  const sys = await openSys();
  const listenSys = openListenSys();
  using opened = new DisposableStack();
  const state = createWorkerState();
  const pools = sockets.map(({ name, maxWorkers }, pool) => {
    const listener = opened.use(listenUnix(sys, listenSys, join(runDir, name)));
    // struct timeval: how long accept(2) waits.
    const value = new Uint8Array(BigInt64Array.of(BigInt(idleSeconds), 0n).buffer);
    sys.setsockopt({ fd: listener.fd, level: SOL_SOCKET, name: SO_RCVTIMEO, value });
    return new WorkerPool({ sys, listener, pool, maxWorkers, state, log, start });
  });
  for (const pool of pools) pool.grow();
  const listeners = opened.move();
  return {
    async [Symbol.asyncDispose]() {
      const ended = await Promise.all(pools.map((pool) => pool.stop()));
      listeners.dispose();
      if (ended.every(Boolean)) return;
      log.warn(
        { waitedMs: stopTimeoutMs },
        'Left CNI calls behind that do not end; their callers do without',
      );
      // The end of a process waits for its threads, and those for a program that is not ours.
      process.once('exit', (code) => listenSys.exitNow(code));
    },
  };
}

interface PoolContext {
  readonly sys: Sys;
  readonly listener: UnixListener;
  readonly pool: number;
  readonly maxWorkers: number;
  readonly state: WorkerState;
  readonly log: Logger;
  readonly start: (workerData: CniWorkerData) => Worker;
}

/** The threads of one socket. */
class WorkerPool {
  readonly #context: PoolContext;
  readonly #workers = new Map<number, Worker>();
  #stopping = false;

  constructor(context: PoolContext) {
    this.#context = context;
  }

  /** Starts one more thread, up to the maximum. */
  grow(): void {
    const { listener, pool, maxWorkers, state, log } = this.#context;
    if (this.#stopping || this.#workers.size >= maxWorkers) return;
    let index = 0;
    while (this.#workers.has(index)) index++;
    const number = pool * numbersPerPool + index;
    const workerData: CniWorkerData = {
      listenFd: listener.fd,
      pool,
      worker: number,
      keep: index === 0,
      state: state.buffer,
    };
    const worker = this.#tryStart(workerData);
    if (worker === undefined) return;
    this.#workers.set(index, worker);
    worker.on('message', (message: CniWorkerMessage) => {
      if (message.kind === 'busy') void this.#growIfStillBusy();
      else log.warn({ worker: number }, message.text);
    });
    worker.on('error', (err) => log.error({ err, worker: number }, 'A CNI thread failed'));
    worker.on('exit', (code) => void this.#ended(index, code));
  }

  /** A node whose processes and threads are as many as may be has none for us: those there are go on. */
  #tryStart(workerData: CniWorkerData): Worker | undefined {
    try {
      return this.#context.start(workerData);
    } catch (err) {
      this.#context.log.error({ err, worker: workerData.worker }, 'Cannot start a CNI thread');
      if (workerData.keep) void this.#growLater();
      return undefined;
    }
  }

  /** Takes no more callers, and waits for those it has; false when some take too long. */
  async stop(): Promise<boolean> {
    this.#stopping = true;
    const workers = [...this.#workers.values()];
    const ended = Promise.all(
      workers.map((worker) => new Promise((resolve) => worker.once('exit', resolve))),
    ).then(() => true);
    this.#context.listener.stop();
    const allEnded = await Promise.race([ended, sleep(stopTimeoutMs, false, { ref: false })]);
    for (const worker of workers) worker.unref();
    return allEnded;
  }

  async #growIfStillBusy(): Promise<void> {
    await sleep(growAfterMs, undefined, { ref: false });
    if (this.#context.state.isBusy(this.#context.pool)) this.grow();
  }

  async #ended(index: number, code: number): Promise<void> {
    const { sys, pool, state } = this.#context;
    const fd = state.reclaim(pool * numbersPerPool + index);
    // Its caller must not wait for an answer that nobody will give.
    if (fd !== undefined) sys.close(fd);
    this.#workers.delete(index);
    if (code === 0 && index !== 0) return;
    await this.#growLater();
  }

  async #growLater(): Promise<void> {
    await sleep(restartAfterMs, undefined, { ref: false });
    this.grow();
  }
}

/** Put in by the build: the thread's program, which is a bundle of its own. */
declare const PODWIRE_CNI_WORKER: string | undefined;

function startWorker(workerData: CniWorkerData): Worker {
  const options = { workerData, resourceLimits: { maxYoungGenerationSizeMb: 4 } };
  return typeof PODWIRE_CNI_WORKER === 'string'
    ? new Worker(PODWIRE_CNI_WORKER, { ...options, eval: true })
    : new Worker(new URL('./cni-worker.ts', import.meta.url), options);
}
