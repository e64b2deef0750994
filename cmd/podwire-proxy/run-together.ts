/** Several tasks of which none is of use without the others. */

/**
 * Runs all until they end or the signal aborts. When one fails the others are told to stop and
 * waited for, so that nothing works on after this; then rejects with that failure.
 */
export async function runTogether(
  tasks: readonly ((signal: AbortSignal) => Promise<void>)[],
  signal: AbortSignal,
): Promise<void> {
  const failure = new AbortController();
  const until = AbortSignal.any([signal, failure.signal]);
  const ends = tasks.map(async (task) => {
    try {
      await task(until);
    } catch (error) {
      failure.abort(error);
      throw error;
    }
  });
  await Promise.allSettled(ends);
  if (failure.signal.aborted) throw failure.signal.reason;
}
