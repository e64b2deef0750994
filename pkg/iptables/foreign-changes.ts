/** Tells which changes of nf_tables somebody else made to our rules, from what the kernel reports. */
import type { Family } from '#pkg/ip/address.ts';
import type { NftablesEvent } from '#pkg/nftables/events.ts';
import { isKubeChain } from './ruleset.ts';

/** include/uapi/linux/netfilter.h */
const families: ReadonlyMap<number, Family> = new Map([
  [2, 'ip'],
  [10, 'ip6'],
]);
const tables: ReadonlySet<string> = new Set(['filter', 'nat', 'mangle']);
const builtIn: ReadonlySet<string> = new Set([
  'PREROUTING',
  'INPUT',
  'FORWARD',
  'OUTPUT',
  'POSTROUTING',
]);

export interface ForeignChangesOptions {
  /** Programs that we write with, as the kernel names them. */
  readonly programs: ReadonlySet<string>;
  /** The kernel's count of transactions; undefined when it does not say. */
  readonly generation: () => number | undefined;
}

/**
 * Takes in the kernel's events in their order. A write of ours stands between `begin` and `end`, and
 * at both no event may wait unread. A large one makes more events than a socket holds: then the
 * kernel's count of transactions tells whether anybody else wrote meanwhile.
 */
export class ForeignChanges {
  readonly #options: ForeignChangesOptions;
  /** Of the transaction whose end has not come yet. */
  readonly #open = new Set<Family>();
  readonly #changed = new Set<Family>();
  /** The count before the write under way. */
  #before: { readonly generation: number | undefined } | undefined;
  #isBlind = false;

  constructor(options: ForeignChangesOptions) {
    this.#options = options;
  }

  follow(event: NftablesEvent): void {
    switch (event.kind) {
      case 'change': {
        const family = familyConcerned(event);
        if (family !== undefined) this.#open.add(family);
        return;
      }
      case 'end': {
        // The process id would tell more, but in a container it is not the one that we know.
        const isOurs = this.#before !== undefined && this.#options.programs.has(event.program);
        if (!isOurs) for (const family of this.#open) this.#changed.add(family);
        this.#open.clear();
        return;
      }
      case 'lost':
        this.#open.clear();
        if (this.#before === undefined) this.#suspectAll();
        else this.#isBlind = true;
    }
  }

  begin(): void {
    this.#before = { generation: this.#options.generation() };
    this.#isBlind = false;
  }

  /** @param transactions how many the kernel counts of our write; undefined when it failed */
  end(transactions: number | undefined): void {
    const before = this.#before?.generation;
    this.#before = undefined;
    if (!this.#isBlind) return;
    const now = this.#options.generation();
    // A count of 32 bits.
    const isOursAlone =
      before !== undefined &&
      transactions !== undefined &&
      now === (before + transactions) % 2 ** 32;
    if (!isOursAlone) this.#suspectAll();
  }

  /** The families in which others changed something since the last call. */
  take(): readonly Family[] {
    const found = [...this.#changed];
    this.#changed.clear();
    return found;
  }

  #suspectAll(): void {
    for (const family of families.values()) this.#changed.add(family);
  }
}

/** The family whose rules of ours this change may have touched. */
function familyConcerned(
  change: Extract<NftablesEvent, { readonly kind: 'change' }>,
): Family | undefined {
  const { chain, isDeletion, ledTo, table } = change;
  if (!tables.has(table)) return undefined;
  const wasOurs = isDeletion && (ledTo === undefined || isKubeChain(ledTo));
  const concerns =
    chain === undefined ? isDeletion : isKubeChain(chain) || (wasOurs && builtIn.has(chain));
  return concerns ? families.get(change.family) : undefined;
}
