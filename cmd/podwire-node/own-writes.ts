/**
 * Tells our own changes in the kernel from those of others: a change of ours that started the next
 * round, which reads everything back, would make one node's change cost as much as all nodes. Of
 * routes and of neighbours that are put the kernel says whose request it was, and the monitor leaves
 * ours out; of FDB entries and of neighbours that go it does not.
 */
import type { Step } from '#pkg/host-network/step.ts';
import type { KernelChange } from '#pkg/netlink/monitor.ts';

/** What the kernel tells of without a sender. */
const unsigned: ReadonlySet<string> = new Set(['neighbor', 'fdb']);

export class OwnWrites {
  readonly #look: () => void;
  /** Deletions of ours that were not reported yet; undefined = none of these is being written. */
  #deletions: number | undefined;

  /** @param look has everything reported that has happened */
  constructor(look: () => void) {
    this.#look = look;
  }

  /** Carries out steps by `write`, which must be done when it returns. */
  around<T>(steps: readonly Step[], write: () => T): T {
    // A link that goes takes things with it that are no steps.
    if (steps.length === 0 || steps.some(({ object }) => !unsigned.has(object.kind)))
      return write();
    // What others did before is theirs.
    this.#look();
    this.#deletions = steps.filter(({ op }) => op === 'delete').length;
    try {
      return write();
    } finally {
      this.#look();
      this.#deletions = undefined;
    }
  }

  /**
   * Whether a change that concerns us is one of what is being written. More deletions than we made
   * are somebody else's; an entry that is put by another at that very moment is found by the round
   * that looks at everything now and then.
   */
  isOwn(change: KernelChange): boolean {
    if (this.#deletions === undefined || change.kind !== 'neighbor') return false;
    if (!change.deleted) return true;
    this.#deletions -= 1;
    return this.#deletions >= 0;
  }
}
