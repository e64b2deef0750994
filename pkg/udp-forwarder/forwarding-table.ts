/** Where packets go, looked up for each of them: by the destination in their own IP header. Pure. */
import { addressBytes, type Address, type Family } from '#pkg/ip/address.ts';
import { networkOf, type Prefix } from '#pkg/ip/prefix.ts';

export interface ForwardingRoute {
  readonly destination: Prefix;
  readonly remote: Address;
}

/** A packet's way out: which family's socket, and where to. */
export interface Hop {
  readonly family: Family;
  readonly remote: Address;
}

/** Finds the longest prefix; ranges of nodes do not overlap, but nothing here relies on it. */
export class ForwardingTable<T> {
  /** By the prefix length, longest first: hops by the network's words. */
  readonly #v4: readonly LengthTable<T>[];
  readonly #v6: readonly LengthTable<T>[];

  constructor(routes: readonly ForwardingRoute[], hopOf: (hop: Hop) => T) {
    const hops = routes.map(({ destination, remote }) => ({
      destination: networkOf(destination),
      hop: hopOf({ family: remote.family, remote }),
    }));
    this.#v4 = byLength(hops.filter(({ destination }) => destination.address.family === 'ip'));
    this.#v6 = byLength(hops.filter(({ destination }) => destination.address.family === 'ip6'));
  }

  /** The hop of the packet at the start of `view`; undefined when there is none, or no IP packet. */
  find(view: DataView, length: number): T | undefined {
    const version = length === 0 ? 0 : view.getUint8(0) >> 4;
    // RFC 791 §3.1, RFC 8200 §3: where the destination is.
    if (version === 4 && length >= 20) return find(this.#v4, view, 16, 1);
    if (version === 6 && length >= 40) return find(this.#v6, view, 24, 4);
    return undefined;
  }
}

interface LengthTable<T> {
  readonly masks: readonly number[];
  readonly hops: ReadonlyMap<number | string, T>;
}

function find<T>(
  tables: readonly LengthTable<T>[],
  ...[view, at, words]: [view: DataView, at: number, words: number]
): T | undefined {
  for (const { masks, hops } of tables) {
    const hop = hops.get(keyAt(view, at, words, masks));
    if (hop !== undefined) return hop;
  }
  return undefined;
}

/** A number for IPv4, which is quick; a text of numbers for IPv6. */
function keyAt(
  ...[view, at, words, masks]: [DataView, number, number, readonly number[]]
): number | string {
  if (words === 1) return view.getInt32(at) & (masks[0] ?? 0);
  let key = '';
  for (let word = 0; word < words; word++) {
    key += `${view.getInt32(at + 4 * word) & (masks[word] ?? 0)} `;
  }
  return key;
}

function byLength<T>(
  hops: readonly { readonly destination: Prefix; readonly hop: T }[],
): readonly LengthTable<T>[] {
  const tables = new Map<number, Map<number | string, T>>();
  for (const { destination, hop } of hops) {
    const bytes = addressBytes(destination.address);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const words = bytes.byteLength / 4;
    const table = tables.get(destination.length) ?? new Map<number | string, T>();
    tables.set(destination.length, table);
    table.set(keyAt(view, 0, words, masksOf(destination.length, words)), hop);
  }
  return [...tables]
    .toSorted(([a], [b]) => b - a)
    .map(([length, table]) => ({ masks: masksOf(length, 4), hops: table }));
}

/** The mask of a prefix length, in words of 32 bits as signed numbers. */
function masksOf(length: number, words: number): readonly number[] {
  return Array.from({ length: words }, (_, word) => {
    const bits = Math.min(Math.max(length - 32 * word, 0), 32);
    return bits === 0 ? 0 : -1 << (32 - bits);
  });
}
