/** Parts of a round that must not keep each other from being done. */

/** Runs a part of the round; its failure is remembered, unless it is the end of the daemon. */
export async function collect(
  failures: unknown[],
  part: () => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  try {
    await part();
  } catch (error) {
    signal.throwIfAborted();
    failures.push(error);
  }
}
