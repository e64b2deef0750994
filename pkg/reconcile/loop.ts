/**
 * The loop every daemon runs: many requests, few rounds. One round at a time; a request that
 * arrives during a round causes one more; a failed round is tried again with growing delays.
 */
import type { Clock } from '#pkg/clock/clock.ts';

export interface ReconcileOptions {
  /**
   * One pass: read a snapshot, plan, apply. Rejects when anything is left to do; resolves to 'idle'
   * when there was nothing to apply, so that the next need not wait for `minIntervalMs`.
   */
  readonly round: (signal: AbortSignal) => Promise<'idle' | void>;
  /** Least time from the end of a round to the start of the next, in milliseconds. */
  readonly minIntervalMs: number;
  /** A round nobody asked for starts this long after the last one, against unseen drift. */
  readonly maxIntervalMs: number;
  /** Delays after failures. */
  readonly retry: RetryDelays;
  readonly clock: Clock;
  /** Told of every failed round; the only place where its error can be logged. */
  readonly onError: (error: unknown, retryInMs: number) => void;
}

export interface RetryDelays {
  /** After the first failure in a row; doubled at each further one, up to `maxMs`. */
  readonly initialMs: number;
  readonly maxMs: number;
  /** The longest delay while a round is asked for; undefined = `maxMs`. */
  readonly requestedMaxMs?: number;
}

export interface ReconcileLoop {
  /** Asks for a round soon; requests collapse. Never blocks and never throws. */
  request(): void;
  /** Runs rounds until the signal aborts, then resolves. A round under way is awaited. */
  run(signal: AbortSignal): Promise<void>;
}

/**
 * The first request starts a round at once; what follows waits for `minIntervalMs`. A request cuts
 * the delay after a failure to `requestedMaxMs` and no further: a broken kernel is not helped by
 * more attempts, and what a failing round changes may itself cause requests.
 */
export function createReconcileLoop(options: ReconcileOptions): ReconcileLoop {
  const { clock, retry } = options;
  let requested = false;
  let wake: () => void = () => undefined;

  async function run(signal: AbortSignal): Promise<void> {
    let failures = 0;
    let waitMs = options.maxIntervalMs;
    while (!signal.aborted) {
      const deafMs = failures === 0 ? 0 : Math.min(waitMs, retry.requestedMaxMs ?? waitMs);
      await pause(deafMs, signal);
      if (failures === 0 || deafMs < waitMs) await waitForRequest(waitMs - deafMs, signal);
      if (signal.aborted) return;
      requested = false;
      try {
        const minMs = (await options.round(signal)) === 'idle' ? 0 : options.minIntervalMs;
        failures = 0;
        await pause(minMs, signal);
        waitMs = Math.max(0, options.maxIntervalMs - minMs);
      } catch (error) {
        if (signal.aborted) return;
        waitMs = Math.min(retry.maxMs, retry.initialMs * 2 ** failures);
        failures += 1;
        options.onError(error, waitMs);
      }
    }
  }

  async function waitForRequest(maxMs: number, signal: AbortSignal): Promise<void> {
    if (requested) return;
    const cancel = new AbortController();
    const woken = new Promise<void>((resolve) => {
      wake = resolve;
    });
    await Promise.race([woken, pause(maxMs, AbortSignal.any([signal, cancel.signal]))]);
    cancel.abort();
  }

  /** Sleeps; an abort ends it early without an error. */
  async function pause(ms: number, signal: AbortSignal): Promise<void> {
    if (ms <= 0) return;
    await clock.sleep(ms, signal).catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
  }

  return {
    request: () => {
      requested = true;
      wake();
    },
    run,
  };
}
