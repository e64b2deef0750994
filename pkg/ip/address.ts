/**
 * One IP address as a value: compared with `===` on `value`, counted with bigint arithmetic,
 * printed the one way Kubernetes and the kernel print it (RFC 5952 for IPv6).
 */
import { AgentError } from '#pkg/errors/agent-error.ts';

/** nftables' spelling, used everywhere: `ip` is IPv4. */
export type Family = 'ip' | 'ip6';

export const families: readonly Family[] = ['ip', 'ip6'];

export interface Address {
  readonly family: Family;
  /** The address as an unsigned number in network order: 32 or 128 bits. */
  readonly value: bigint;
}

/** Bits of an address of this family: 32 or 128. */
export function addressBits(family: Family): 32 | 128 {
  return family === 'ip' ? 32 : 128;
}

/**
 * Parses "10.0.0.1" or "fd00::1". Like Go's net/netip it refuses leading zeros, blanks, short
 * forms ("10.1") and zones ("fe80::1%eth0").
 *
 * @throws {AgentError} InvalidAddress
 */
export function parseAddress(text: string): Address {
  const address = tryParseAddress(text);
  if (address === undefined) {
    throw new AgentError(
      'InvalidAddress',
      `Cannot read IP address ${JSON.stringify(text)}: expected IPv4 as 10.0.0.1 or IPv6 as fd00::1`,
    );
  }
  return address;
}

/** As {@link parseAddress}, with undefined for text that is no address. */
export function tryParseAddress(text: string): Address | undefined {
  const value = text.includes(':') ? parseIp6(text) : parseIp4(text);
  if (value === undefined) return undefined;
  return { family: text.includes(':') ? 'ip6' : 'ip', value };
}

/** The canonical text: dotted decimal, or RFC 5952 (lower case, longest run of zeros as `::`). */
export function formatAddress(address: Address): string {
  if (address.family === 'ip') {
    const n = Number(address.value);
    return `${n >>> 24}.${(n >>> 16) & 255}.${(n >>> 8) & 255}.${n & 255}`;
  }
  const groups: number[] = [];
  for (let shift = 112n; shift >= 0n; shift -= 16n) {
    groups.push(Number((address.value >> shift) & 0xffffn));
  }
  const run = longestZeroRun(groups);
  const hex = (part: readonly number[]): string => part.map((g) => g.toString(16)).join(':');
  if (run.length < 2) return hex(groups);
  return `${hex(groups.slice(0, run.start))}::${hex(groups.slice(run.start + run.length))}`;
}

/** Network-order bytes: 4 or 16. */
export function addressBytes(address: Address): Uint8Array {
  const bytes = new Uint8Array(addressBits(address.family) / 8);
  writeAddressBytes(bytes, 0, address);
  return bytes;
}

/** As {@link addressBytes}, to `at`. */
export function writeAddressBytes(bytes: Uint8Array, at: number, { family, value }: Address): void {
  // In words: arithmetic with bigints takes some ten times as long as with numbers.
  if (family === 'ip') {
    writeWord(bytes, at, Number(value));
    return;
  }
  let rest = value;
  for (let offset = 12; offset >= 0; offset -= 4) {
    writeWord(bytes, at + offset, Number(BigInt.asUintN(32, rest)));
    rest >>= 32n;
  }
}

function writeWord(bytes: Uint8Array, at: number, word: number): void {
  bytes[at] = word >>> 24;
  bytes[at + 1] = word >>> 16;
  bytes[at + 2] = word >>> 8;
  bytes[at + 3] = word;
}

/**
 * The address in 4 or 16 network-order bytes.
 *
 * @throws {AgentError} InvalidAddress for any other length
 */
export function addressFromBytes(bytes: Uint8Array): Address {
  if (bytes.length !== 4 && bytes.length !== 16) {
    throw new AgentError(
      'InvalidAddress',
      `Cannot read IP address: expected 4 or 16 bytes, got ${bytes.length}`,
    );
  }
  if (bytes.length === 4) return { family: 'ip', value: BigInt(wordAt(bytes, 0)) };
  let value = 0n;
  for (let at = 0; at < 16; at += 4) value = (value << 32n) | BigInt(wordAt(bytes, at));
  return { family: 'ip6', value };
}

/** Four bytes in network order as a number. */
function wordAt(bytes: Uint8Array, at: number): number {
  const [a = 0, b = 0, c = 0, d = 0] = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
  return ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
}

/** The address `offset` after this one (before it, when negative), in the same family. */
export function addressPlus(address: Address, offset: number | bigint): Address {
  return { family: address.family, value: address.value + BigInt(offset) };
}

/** IPv4 addresses in IPv6 form are others than those they hold. */
export function sameAddress(a: Address, b: Address): boolean {
  return a.family === b.family && a.value === b.value;
}

/** Order for sorting: IPv4 first, then by number. */
export function compareAddresses(a: Address, b: Address): number {
  if (a.family !== b.family) return a.family === 'ip' ? -1 : 1;
  return a.value < b.value ? -1 : a.value > b.value ? 1 : 0;
}

const decimalByte = /^(?:0|[1-9]\d{0,2})$/;

function parseIp4(text: string): bigint | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    if (!decimalByte.test(part)) return undefined;
    const byte = Number(part);
    if (byte > 255) return undefined;
    value = value * 256 + byte;
  }
  return BigInt(value);
}

const hexGroup = /^[0-9a-fA-F]{1,4}$/;

function parseIp6(text: string): bigint | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const [head, tail] = halves.map((half, i) => parseGroups(half, i === halves.length - 1));
  if (head === undefined) return undefined;
  if (halves.length === 1) return head.length === 8 ? joinGroups(head) : undefined;
  if (tail === undefined || head.length + tail.length > 7) return undefined;
  const zeros = Array.from({ length: 8 - head.length - tail.length }, () => 0);
  return joinGroups([...head, ...zeros, ...tail]);
}

/** The 16-bit groups of one side of `::`; its very end may be an IPv4 address (RFC 4291 §2.2). */
function parseGroups(text: string, isEnd: boolean): number[] | undefined {
  if (text === '') return [];
  const groups: number[] = [];
  const parts = text.split(':');
  for (const [i, part] of parts.entries()) {
    if (isEnd && i === parts.length - 1 && part.includes('.')) {
      const ip4 = parseIp4(part);
      if (ip4 === undefined) return undefined;
      groups.push(Number(ip4 >> 16n), Number(ip4 & 0xffffn));
    } else if (hexGroup.test(part)) {
      groups.push(Number.parseInt(part, 16));
    } else {
      return undefined;
    }
  }
  return groups;
}

function joinGroups(groups: readonly number[]): bigint | undefined {
  if (groups.length !== 8) return undefined;
  return groups.reduce((value, group) => (value << 16n) | BigInt(group), 0n);
}

function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  let start = 0;
  for (const [i, group] of groups.entries()) {
    if (group !== 0) start = i + 1;
    else if (i + 1 - start > best.length) best = { start, length: i + 1 - start };
  }
  return best;
}
