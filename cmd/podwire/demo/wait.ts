/** Waiting for a condition, never for a time. */
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';

export interface WaitOptions {
  readonly clock: Clock;
  readonly withinMs: number;
  readonly signal?: AbortSignal;
}

/**
 * Resolves to what `look` returns once that is not undefined. What `look` throws ends the wait.
 *
 * @throws {AgentError} WaitedInVain, naming `what`
 */
export async function waitFor<T>(
  what: string,
  { clock, withinMs, signal }: WaitOptions,
  look: () => T | undefined | Promise<T | undefined>,
): Promise<T> {
  const deadlineMs = clock.now() + withinMs;
  for (;;) {
    signal?.throwIfAborted();
    const found = await look();
    if (found !== undefined) return found;
    if (clock.now() > deadlineMs) {
      throw new AgentError('WaitedInVain', `Cannot go on: still no ${what} after ${withinMs} ms`);
    }
    await clock.sleep(20, signal);
  }
}
