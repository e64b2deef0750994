/** Notices changes that the kernel tells nobody of: somebody has to look. */

export interface SilentThing {
  /** The state as text; what is no change is not in it. */
  readonly read: () => string;
  /** Something is not as it was at the last look; it may have been us. */
  readonly onChange: () => void;
  readonly onError: (error: unknown) => void;
}

/** How long a change may stay unnoticed, while a look costs little. */
const intervalMs = 1_000;

/** With thousands of entries looking takes its time: it may have a fiftieth of all. */
const shareOfTime = 1 / 50;

export interface RunningWatch extends Disposable {
  /** Carries out a write of ours: what it changes is not told. */
  exempt<T>(write: () => T): T;
}

/** Looks until disposed. */
export function watchSilent({ read, onChange, onError }: SilentThing): RunningWatch {
  let before: string | undefined;
  let timer = setTimeout(look, intervalMs);

  function look(): void {
    const startMs = performance.now();
    try {
      const now = read();
      if (before !== undefined && now !== before) onChange();
      before = now;
    } catch (error) {
      onError(error);
    }
    const tookMs = performance.now() - startMs;
    timer = setTimeout(look, Math.max(intervalMs, tookMs / shareOfTime));
  }

  return {
    exempt: (write) => {
      try {
        return write();
      } finally {
        // The next look takes things as it finds them.
        before = undefined;
      }
    },
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}
