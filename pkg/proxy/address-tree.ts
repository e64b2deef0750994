/**
 * The chains of the iptables layout `tree`: a packet finds the rules for its destination address
 * through a few jumps, each on some more bits of the address, instead of reading them all.
 *
 * Which chains there are, and what is in them, is a function of the rules alone: a proxy that starts
 * anew finds the chains that its predecessor arrived at change by change.
 */
import { addressBytes, addressFromBytes, parseAddress, type Family } from '#pkg/ip/address.ts';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { sameRules } from '#pkg/iptables/plan.ts';
import { formatRule } from '#pkg/iptables/rule.ts';
import type { Rules } from '#pkg/iptables/ruleset.ts';
import { atOnce, type Parts } from '#pkg/reconcile/parts.ts';
import { treeChainName } from './chain-names.ts';

/** A rule that concerns one destination address only. */
export interface AddressRule {
  /** Canonical. */
  readonly destination: string;
  readonly rule: string;
}

/** Chains by name; the root's name is the tree's. */
export interface TreeChange {
  readonly put: ReadonlyMap<string, Rules>;
  readonly gone: ReadonlySet<string>;
}

/** More rules than this in one place are divided. */
const leafRules = 8;

/**
 * Below this many jumps nothing is divided: nf_tables follows 16 jumps at most (NFT_JUMP_STACK_SIZE
 * in linux/net/netfilter/nf_tables.h), of which a Service needs up to 6, and somebody could ask for
 * addresses that differ in their last bits only.
 */
const maxDepth = 8;

/** Each jump decides on two bits: the fewest rules to read on the way, as with one bit or three. */
const bitsPerDigit = 2;

interface Entry {
  /** The address in base 4. */
  readonly digits: string;
  readonly rule: string;
}

interface Node {
  readonly rules: Rules;
  /** Prefixes, in base 4, of the chains it jumps to. */
  readonly children: readonly string[];
  /** Jumps from the root. */
  readonly depth: number;
}

export class AddressTree {
  readonly #family: Family;
  readonly #root: string;
  /** Sorted by address, then by their text. */
  #entries: Entry[] = [];
  /** By prefix; the root's is empty. */
  readonly #nodes = new Map<string, Node>();
  #jumps = 0;

  /** @param root the chain that packets enter; its name */
  constructor(family: Family, root: string) {
    this.#family = family;
    this.#root = root;
  }

  /** How many jumps between its chains there are. */
  get jumpCount(): number {
    return this.#jumps;
  }

  /** All chains by name. */
  get chains(): ReadonlyMap<string, Rules> {
    return new Map([...this.#nodes].map(([prefix, { rules }]) => [this.#nameOf(prefix), rules]));
  }

  /**
   * Takes rules out and puts others in. Visits the chains on the way to their addresses and those
   * that came or went with a division, no others.
   */
  update(removed: readonly AddressRule[], added: readonly AddressRule[]): TreeChange {
    return atOnce(this.updateInParts(removed, added));
  }

  /** The same, for who has other things to do: 20,000 Services take half a second. */
  *updateInParts(
    removed: readonly AddressRule[],
    added: readonly AddressRule[],
  ): Parts<TreeChange> {
    const touched = this.#move(yield* entriesOf(removed), yield* entriesOf(added));
    yield;
    const visit = new Visit(this.#entries, this.#nodes, touched);
    if (touched.length > 0 || this.#nodes.size === 0) visit.walk('', 0, this.#entries.length, 0);
    const goneNodes = visit.gone;
    const put = new Map<string, Rules>();
    for (const [prefix, node] of visit.nodes) {
      const rules = [
        ...node.entries.map(({ rule }) => rule),
        ...node.children.map((child) => jumpTo(this.#family, child, this.#nameOf(child))),
      ];
      const before = this.#nodes.get(prefix);
      if (before === undefined || !sameRules(before.rules, rules))
        put.set(this.#nameOf(prefix), rules);
      this.#jumps += node.children.length - (before?.children.length ?? 0);
      this.#nodes.set(prefix, { rules, children: node.children, depth: node.depth });
      yield;
    }
    const gone = new Set<string>();
    for (const prefix of goneNodes) {
      this.#jumps -= this.#nodes.get(prefix)?.children.length ?? 0;
      this.#nodes.delete(prefix);
      gone.add(this.#nameOf(prefix));
    }
    return { put, gone };
  }

  /** Brings the entries up to date; the addresses concerned, sorted. */
  #move(removed: readonly Entry[], added: readonly Entry[]): string[] {
    const isLarge = removed.length + added.length > 64;
    if (isLarge) {
      const out = new Map(removed.map((entry) => [keyOf(entry), entry]));
      this.#entries = [...this.#entries.filter((e) => !out.has(keyOf(e))), ...added].toSorted(
        byPlace,
      );
    } else {
      for (const entry of removed) this.#entries.splice(placeOf(this.#entries, entry), 1);
      for (const entry of added) this.#entries.splice(placeOf(this.#entries, entry), 0, entry);
    }
    return [...removed, ...added].map(({ digits }) => digits).toSorted();
  }

  #nameOf(prefix: string): string {
    return prefix === '' ? this.#root : treeChainName(prefixText(this.#family, prefix));
  }
}

/** One walk down to the addresses that changed. */
class Visit {
  readonly #entries: readonly Entry[];
  readonly #before: ReadonlyMap<string, Node>;
  readonly #touched: readonly string[];
  readonly nodes = new Map<string, Omit<Node, 'rules'> & { readonly entries: readonly Entry[] }>();

  constructor(
    entries: readonly Entry[],
    before: ReadonlyMap<string, Node>,
    touched: readonly string[],
  ) {
    this.#entries = entries;
    this.#before = before;
    this.#touched = touched;
  }

  /** The node of the entries from `start` to `end`, which are those with this prefix. */
  walk(prefix: string, start: number, end: number, depth: number): void {
    const first = this.#entries[start]?.digits ?? '';
    const shared = sharedLength(first, this.#entries[end - 1]?.digits ?? '');
    if (end - start <= leafRules || shared === first.length || depth === maxDepth) {
      this.nodes.set(prefix, { entries: this.#entries.slice(start, end), children: [], depth });
      return;
    }
    const entries: Entry[] = [];
    const children: string[] = [];
    this.nodes.set(prefix, { entries, children, depth });
    for (let from = start; from < end;) {
      const child = this.#entries[from]?.digits.slice(0, shared + 1) ?? '';
      const to = endOf(this.#entries, child, from, end);
      // One rule is read faster than a jump to it.
      if (to - from === 1) entries.push(...this.#entries.slice(from, to));
      else {
        children.push(child);
        // Deeper or less deep than before, it may have to be divided otherwise.
        if (this.#isTouched(child) || this.#before.get(child)?.depth !== depth + 1) {
          this.walk(child, from, to, depth + 1);
        }
      }
      from = to;
    }
  }

  /** Nodes that were there before and are not referred to any more, with all below them. */
  get gone(): ReadonlySet<string> {
    const kept = new Set([...this.nodes.values()].flatMap(({ children }) => children));
    const gone = new Set<string>();
    const drop = (prefix: string): void => {
      if (kept.has(prefix) || gone.has(prefix)) return;
      gone.add(prefix);
      for (const child of this.#before.get(prefix)?.children ?? []) drop(child);
    };
    for (const prefix of this.nodes.keys()) {
      for (const child of this.#before.get(prefix)?.children ?? []) drop(child);
    }
    return gone;
  }

  #isTouched(prefix: string): boolean {
    const at = lowerBound(this.#touched, (digits) => digits < prefix);
    return this.#touched[at]?.startsWith(prefix) === true;
  }
}

function* entriesOf(rules: readonly AddressRule[]): Parts<Entry[]> {
  const entries: Entry[] = [];
  for (const rule of rules) {
    entries.push(entryOf(rule));
    yield;
  }
  return entries;
}

function entryOf({ destination, rule }: AddressRule): Entry {
  let digits = '';
  for (const byte of addressBytes(parseAddress(destination))) {
    digits += byte.toString(4).padStart(4, '0');
  }
  return { digits, rule };
}

function jumpTo(family: Family, prefix: string, chain: string): string {
  return formatRule({ destination: prefixText(family, prefix), target: chain });
}

/** "172.30.4.0/22" */
function prefixText(family: Family, prefix: string): string {
  const digits = prefix.padEnd(family === 'ip' ? 16 : 64, '0');
  const bytes = digits.match(/.{4}/g)?.map((byte) => Number.parseInt(byte, 4)) ?? [];
  const address = addressFromBytes(Uint8Array.from(bytes));
  return formatPrefix({ address, length: prefix.length * bitsPerDigit });
}

function keyOf({ digits, rule }: Entry): string {
  return `${digits} ${rule}`;
}

function byPlace(a: Entry, b: Entry): number {
  if (a.digits !== b.digits) return a.digits < b.digits ? -1 : 1;
  return a.rule < b.rule ? -1 : a.rule > b.rule ? 1 : 0;
}

function placeOf(entries: readonly Entry[], entry: Entry): number {
  return lowerBound(entries, (other) => byPlace(other, entry) < 0);
}

/** Behind the last of the entries up to `end` with this prefix. */
function endOf(entries: readonly Entry[], prefix: string, start: number, end: number): number {
  // '4' is the first character that no digit of base 4 reaches.
  const bound = `${prefix}4`;
  return lowerBound(entries, ({ digits }) => digits < bound, start, end);
}

/** The first index for which `isBelow` is false; it must be true before and false after. */
function lowerBound<T>(
  sorted: readonly T[],
  isBelow: (item: T) => boolean,
  start = 0,
  end = sorted.length,
): number {
  let [low, high] = [start, end];
  while (low < high) {
    const middle = (low + high) >> 1;
    const item = sorted[middle];
    if (item !== undefined && isBelow(item)) low = middle + 1;
    else high = middle;
  }
  return low;
}

function sharedLength(a: string, b: string): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length += 1;
  return length;
}
