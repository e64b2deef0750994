/** Long work that decides and does not act, in parts: whoever runs it may see to others between. */

/** Yields after each part, of which none takes longer than a millisecond or two; returns its result. */
export type Parts<T> = Generator<void, T, void>;

/** Runs work without a pause: for tests, and where nobody else waits. */
export function atOnce<T>(work: Parts<T>): T {
  for (;;) {
    const { done, value } = work.next();
    if (done === true) return value;
  }
}
