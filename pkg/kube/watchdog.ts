/** Ends a stream that has gone silent or has outlived its time. */
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';

export interface Watchdog extends Disposable {
  /** Aborts when the parent does, with its reason, or with an AgentError `Idle` or `Overdue`. */
  readonly signal: AbortSignal;
  /** Something arrived. */
  feed(): void;
}

export interface WatchdogLimits {
  readonly idleMs: number;
  /** Undefined = only silence ends it. */
  readonly overdueMs: number | undefined;
}

/** Watches from now until disposed. */
export function startWatchdog(clock: Clock, limits: WatchdogLimits, parent: AbortSignal): Watchdog {
  const bite = new AbortController();
  const stop = new AbortController();
  const stopped = AbortSignal.any([parent, stop.signal]);
  const startedMs = clock.monotonicMs();
  const overdueAtMs = startedMs + (limits.overdueMs ?? Infinity);
  let fedMs = startedMs;

  async function watch(): Promise<void> {
    while (!stopped.aborted) {
      const dueMs = Math.min(fedMs + limits.idleMs, overdueAtMs) - clock.monotonicMs();
      if (dueMs > 0) {
        await clock.sleep(dueMs, stopped).catch((error: unknown) => {
          if (!stopped.aborted) throw error;
        });
        continue;
      }
      bite.abort(
        clock.monotonicMs() >= overdueAtMs
          ? new AgentError('Overdue', 'Cannot go on: the server did not end the stream in time')
          : new AgentError('Idle', `Cannot go on: nothing arrived for ${limits.idleMs / 1000} s`),
      );
      return;
    }
  }
  void watch();

  return {
    signal: AbortSignal.any([parent, bite.signal]),
    feed: () => {
      fedMs = clock.monotonicMs();
    },
    [Symbol.dispose]: () => stop.abort(),
  };
}
