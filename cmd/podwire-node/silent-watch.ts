/** Notices changes that the kernel tells nobody of: somebody has to look. */

export interface SilentThing {
  /** The state as texts by name; what is no change is not in it. */
  readonly read: () => ReadonlyMap<string, string>;
  /** Something is not as it was at the last look; it may have been us. */
  readonly onChange: () => void;
  readonly onError: (error: unknown) => void;
}

/** How long a change may stay unnoticed, while a look costs little. */
const intervalMs = 1_000;

/** With thousands of entries looking takes its time: it may have a fiftieth of all. */
const shareOfTime = 1 / 50;

export interface RunningWatch extends Disposable {
  /**
   * We have just made this one so; undefined = it is gone. Whatever it is else at the next look, somebody
   * has made it since: also what it was at the last one, before we mended it.
   */
  wrote(name: string, text: string | undefined): void;
}

/** Looks until disposed. */
export function watchSilent({ read, onChange, onError }: SilentThing): RunningWatch {
  let before: Map<string, string> | undefined;
  let timer = setTimeout(look, intervalMs);

  function look(): void {
    const startMs = performance.now();
    try {
      const now = read();
      const isChanged = before !== undefined && !isSame(before, now);
      before = new Map(now);
      if (isChanged) onChange();
    } catch (error) {
      onError(error);
    }
    const tookMs = performance.now() - startMs;
    timer = setTimeout(look, Math.max(intervalMs, tookMs / shareOfTime));
  }

  return {
    wrote: (name, text) => {
      if (text === undefined) before?.delete(name);
      else before?.set(name, text);
    },
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}

function isSame(a: ReadonlyMap<string, string>, b: ReadonlyMap<string, string>): boolean {
  return a.size === b.size && [...a].every(([name, text]) => b.get(name) === text);
}
