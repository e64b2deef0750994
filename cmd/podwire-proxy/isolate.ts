/** Finds, of things that cannot be done together, the ones that cannot be done at all. */

export interface IsolateOptions {
  /** Whether an error is the fault of what was attempted, and not of the moment. */
  readonly isFault: (error: unknown) => boolean;
  /** With more guilty ones than this, something else must be wrong. */
  readonly maxGuilty: number;
}

/**
 * Does all `items` that can be done, in halves and halves of those that fail, and returns the others
 * with the error each fails with alone. `attempt` does some more, or rejects and leaves them undone.
 *
 * @throws what an attempt rejected with, when that is no fault of the items or too many are guilty
 */
export async function isolate<T>(
  items: readonly T[],
  attempt: (items: readonly T[]) => Promise<void>,
  { isFault, maxGuilty }: IsolateOptions,
): Promise<ReadonlyMap<T, unknown>> {
  const guilty = new Map<T, unknown>();

  async function divide(part: readonly T[]): Promise<void> {
    try {
      await attempt(part);
      return;
    } catch (error) {
      if (!isFault(error)) throw error;
      const [item] = part;
      if (part.length === 1 && item !== undefined) {
        guilty.set(item, error);
        if (guilty.size > maxGuilty) throw error;
        return;
      }
    }
    const middle = part.length >> 1;
    await divide(part.slice(0, middle));
    await divide(part.slice(middle));
  }

  if (items.length > 0) await divide(items);
  return guilty;
}
