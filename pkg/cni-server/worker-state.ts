/**
 * What the threads of the server know of each other, in memory they share: who works on which
 * container, on whose connection, and how many wait for work. When a thread ends in the middle,
 * whoever started it can tell, and clear up.
 */

export interface WorkerState {
  readonly buffer: SharedArrayBuffer;
  /**
   * Locks a container against all other threads; disposing unlocks. Waits, but not for "": a call
   * for no container (STATUS, GC) has nothing to wait for.
   */
  lockContainer(worker: number, containerId: string): Disposable;
  /** The worker waits for callers now. */
  waiting(pool: number): void;
  /** The worker has one; true when it was the last that waited. */
  taken(pool: number): boolean;
  /** Whether nobody waits: the next caller has to. */
  isBusy(pool: number): boolean;
  /** The open descriptor the worker talks to; undefined for none. */
  setConnection(worker: number, fd: number | undefined): void;
  /** Takes back what a worker held that has ended; returns the connection it left open. */
  reclaim(worker: number): number | undefined;
}

/** Two containers in one slot only wait for each other now and then. */
const lockSlots = 1024;
const maxWorkers = 64;
const pools = 2;

/** State of a new pool, shared by its threads. */
export function createWorkerState(): WorkerState {
  const cells = lockSlots + maxWorkers + pools;
  return openWorkerState(new SharedArrayBuffer(cells * Int32Array.BYTES_PER_ELEMENT));
}

/** The same state in another thread. */
export function openWorkerState(buffer: SharedArrayBuffer): WorkerState {
  const locks = new Int32Array(buffer, 0, lockSlots);
  const connections = new Int32Array(buffer, locks.byteLength, maxWorkers);
  const idle = new Int32Array(buffer, locks.byteLength + connections.byteLength, pools);
  const unlock = (slot: number, owner: number): void => {
    if (Atomics.compareExchange(locks, slot, owner, 0) === owner) Atomics.notify(locks, slot);
  };
  return {
    buffer,
    lockContainer(worker, containerId) {
      if (containerId === '') return { [Symbol.dispose]: () => undefined };
      const slot = slotOf(containerId);
      const owner = worker + 1;
      for (;;) {
        const held = Atomics.compareExchange(locks, slot, 0, owner);
        if (held === 0) return { [Symbol.dispose]: () => unlock(slot, owner) };
        Atomics.wait(locks, slot, held);
      }
    },
    waiting: (pool) => void Atomics.add(idle, pool, 1),
    taken: (pool) => Atomics.sub(idle, pool, 1) === 1,
    isBusy: (pool) => Atomics.load(idle, pool) === 0,
    // 0 is standard input, and no connection.
    setConnection: (worker, fd) => void Atomics.store(connections, worker, fd ?? 0),
    reclaim(worker) {
      for (let slot = 0; slot < lockSlots; slot++) unlock(slot, worker + 1);
      const fd = Atomics.exchange(connections, worker, 0);
      return fd === 0 ? undefined : fd;
    },
  };
}

/** FNV-1a. */
function slotOf(containerId: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < containerId.length; i++) {
    hash = Math.imul(hash ^ containerId.charCodeAt(i), 0x01000193);
  }
  return (hash >>> 0) % lockSlots;
}
