/**
 * Tells our own changes in the kernel from those of others: a change of ours that started the next
 * round, which reads everything back, would make one node's change cost as much as all nodes. Of
 * routes and of neighbours that are put the kernel says whose request it was, and the monitor leaves
 * ours out; of FDB entries and of neighbours that go it does not. Of entries that are put the monitor
 * hears nothing meanwhile; what goes is counted.
 */
import type { Step } from '#pkg/host-network/step.ts';
import type { KernelChange, KernelWatch } from '#pkg/netlink/monitor.ts';

/** What the kernel tells of without a sender. */
const unsigned: ReadonlySet<string> = new Set(['neighbor', 'fdb']);

export class OwnWrites {
  readonly #watch: Pick<KernelWatch, 'look' | 'withoutForwarding'>;
  /** Deletions of ours that were not reported yet; undefined = none of these is being written. */
  #deletions: number | undefined;

  constructor(watch: Pick<KernelWatch, 'look' | 'withoutForwarding'>) {
    this.#watch = watch;
  }

  /** Carries out steps by `write`, which must be done when it returns. */
  around<T>(steps: readonly Step[], write: () => T): T {
    // A link that goes takes things with it that are no steps.
    if (steps.length === 0 || steps.some(({ object }) => !unsigned.has(object.kind)))
      return write();
    const deletions = steps.filter(({ op }) => op === 'delete').length;
    if (deletions === 0) return this.#watch.withoutForwarding(write);
    // What others did before is theirs.
    this.#watch.look();
    this.#deletions = deletions;
    try {
      return this.#watch.withoutForwarding(write);
    } finally {
      this.#watch.look();
      this.#deletions = undefined;
    }
  }

  /**
   * Whether a change that concerns us is one of what is being written: more deletions than we made
   * are somebody else's. An entry that another puts at that very moment, which nobody hears of, is
   * found by the round that looks at everything now and then.
   */
  isOwn(change: KernelChange): boolean {
    if (this.#deletions === undefined) return false;
    if (change.kind !== 'neighbor' || !change.deleted) return false;
    this.#deletions -= 1;
    return this.#deletions >= 0;
  }
}
