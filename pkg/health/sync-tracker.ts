/**
 * Whether what is asked for gets written: the truth behind /healthz. Unlike kube-proxy's it is
 * unhealthy until the first write, so that a node on which nothing works does not look fine.
 */
import type { Clock } from '#pkg/clock/clock.ts';

export interface PartStatus {
  /** Nothing has waited too long. True also while there was nothing to write yet. */
  readonly alive: boolean;
  /** Alive, and written at least once. */
  readonly healthy: boolean;
  /** When this part was last written, in milliseconds since the Unix epoch; 0 = never. */
  readonly lastUpdatedMs: number;
}

export interface SyncTracker<Part extends string> {
  /** Something changed that has to be written. */
  queued(): void;
  /** A round starts; it will take up all that is queued by now. */
  roundStarted(): void;
  /** The round wrote this part. */
  written(part: Part): void;
  /** The round did not write this part: what it took up stays to be done. */
  failed(part: Part): void;
  /** Every part's state now. */
  status(): ReadonlyMap<Part, PartStatus>;
}

interface PartState {
  lastUpdatedMs: number;
  /** The oldest request that the round under way has taken up. */
  takenUpSinceMs: number | undefined;
  /** The oldest request that a failed round left unwritten. */
  unwrittenSinceMs: number | undefined;
}

/**
 * @param parts what is written separately: the IP families
 * @param timeoutMs a request that waits longer makes its part unhealthy; asked for when it may change
 */
export function createSyncTracker<Part extends string>(
  parts: readonly Part[],
  timeoutMs: number | (() => number),
  clock: Clock,
): SyncTracker<Part> {
  const states = new Map<Part, PartState>(
    parts.map((part) => [
      part,
      { lastUpdatedMs: 0, takenUpSinceMs: undefined, unwrittenSinceMs: undefined },
    ]),
  );
  let queuedSinceMs: number | undefined;

  const isAlive = (state: PartState): boolean => {
    const waiting = [state.unwrittenSinceMs, state.takenUpSinceMs, queuedSinceMs];
    const limitMs = typeof timeoutMs === 'number' ? timeoutMs : timeoutMs();
    return waiting.every((ms) => ms === undefined || clock.monotonicMs() - ms <= limitMs);
  };

  return {
    queued: () => {
      queuedSinceMs ??= clock.monotonicMs();
    },
    roundStarted: () => {
      for (const state of states.values()) state.takenUpSinceMs = queuedSinceMs;
      queuedSinceMs = undefined;
    },
    written: (part) => {
      const state = states.get(part);
      if (state === undefined) return;
      state.lastUpdatedMs = clock.now();
      state.takenUpSinceMs = undefined;
      state.unwrittenSinceMs = undefined;
    },
    failed: (part) => {
      const state = states.get(part);
      if (state === undefined) return;
      state.unwrittenSinceMs ??= state.takenUpSinceMs ?? clock.monotonicMs();
      state.takenUpSinceMs = undefined;
    },
    status: () =>
      new Map(
        [...states].map(([part, state]) => {
          const alive = isAlive(state);
          const { lastUpdatedMs } = state;
          return [part, { alive, healthy: alive && lastUpdatedMs !== 0, lastUpdatedMs }];
        }),
      ),
  };
}
