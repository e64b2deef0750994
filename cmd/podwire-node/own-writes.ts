/**
 * Tells our own changes in the kernel from those of others: a change of ours that started the next
 * round, which reads everything back, would make one node's change cost as much as all nodes.
 */
import type { Step } from '#pkg/host-network/step.ts';
import type { KernelChange } from '#pkg/netlink/monitor.ts';

/** Kinds of which there are some for each peer. */
const peerKinds: ReadonlySet<string> = new Set(['route', 'neighbor', 'fdb', 'wireguard-peer']);

export class OwnWrites {
  readonly #look: () => void;
  /** Deletions of ours that were not reported yet; undefined = nothing is being written. */
  #deletions: number | undefined;

  /** @param look has everything reported that has happened */
  constructor(look: () => void) {
    this.#look = look;
  }

  /** Carries out steps by `write`, which must be done when it returns. */
  around<T>(steps: readonly Step[], write: () => T): T {
    // What others did before is theirs.
    this.#look();
    const ours = steps.filter(({ object }) => peerKinds.has(object.kind));
    // A link that goes takes things with it that are no steps.
    if (ours.length < steps.length) return write();
    this.#deletions = ours.filter(({ op }) => op === 'delete').length;
    try {
      return write();
    } finally {
      this.#look();
      this.#deletions = undefined;
    }
  }

  /**
   * Whether a change that concerns us is one of what is being written. More deletions than we made
   * are somebody else's; a thing that is put by another at that very moment is found by the round
   * that looks at everything now and then.
   */
  isOwn(change: KernelChange): boolean {
    if (this.#deletions === undefined) return false;
    if (change.kind !== 'route' && change.kind !== 'neighbor') return false;
    if (!change.deleted) return true;
    this.#deletions -= 1;
    return this.#deletions >= 0;
  }
}
