/** Tells what changes in the kernel's nftables, so that what somebody deletes by hand comes back at once. */
import { breathe } from '#pkg/reconcile/slices.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { openNftablesEvents, type NftablesEvent } from './events.ts';

/** Node cannot wait for a descriptor of ours: we look this often. */
const intervalMs = 200;

/** Then others get their turn. */
const maxDatagramsPerLook = 64;

export interface NftablesPoll extends Disposable {
  /** Looks now, until there is nothing left to read; others get their turn between. */
  look(): Promise<void>;
}

/**
 * Reads events as they come: `onEvents` gets those of each datagram, `onLooked` is called after
 * each look, of which there are some a second. Works in the network namespace of the calling thread.
 */
export function pollNftables(
  sys: Sys,
  onEvents: (events: readonly NftablesEvent[]) => void,
  onLooked: () => void,
): NftablesPoll {
  const source = openNftablesEvents(sys);
  let lost = false;
  let timer: NodeJS.Timeout | undefined = setTimeout(lookNext, intervalMs);

  function look(maxDatagrams: number): boolean {
    for (let left = maxDatagrams; left > 0; left--) {
      const events = source.read();
      if (events === undefined) {
        // An overflown socket gets nothing more, and no word of it, until it has been emptied. Who
        // looks at the kernel before that would miss what changes meanwhile.
        if (lost) onEvents([{ kind: 'lost' }]);
        lost = false;
        onLooked();
        return true;
      }
      if (events.some(({ kind }) => kind === 'lost')) lost = true;
      else onEvents(events);
    }
    onLooked();
    return false;
  }

  function lookNext(): void {
    const isDone = look(maxDatagramsPerLook);
    if (timer !== undefined) timer = setTimeout(lookNext, isDone ? intervalMs : 0);
  }

  return {
    look: async () => {
      while (!look(maxDatagramsPerLook)) await breathe();
    },
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      timer = undefined;
      source[Symbol.dispose]();
    },
  };
}
