/** How long one turn of the event loop works, whatever else the machine does meanwhile. */

export interface LoopTurns {
  /** Processor time of the longest turn since the last call, in milliseconds. */
  longestMs(): number;
  stop(): void;
}

/**
 * Counts the thread's processor time from turn to turn, which on a busy machine says more than the
 * delay of a timer. Keeps the loop turning.
 */
export function watchLoopTurns(): LoopTurns {
  let longestMicros = 0;
  let before = process.threadCpuUsage();
  let next: NodeJS.Immediate | undefined;
  const turn = (): void => {
    const now = process.threadCpuUsage();
    longestMicros = Math.max(longestMicros, now.user + now.system - before.user - before.system);
    before = now;
    next = setImmediate(turn);
  };
  turn();
  return {
    longestMs: () => {
      const found = longestMicros / 1000;
      longestMicros = 0;
      return found;
    },
    stop: () => clearImmediate(next),
  };
}
