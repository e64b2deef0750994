/**
 * Elements between nft's text ("10.96.0.10 . tcp . 80", "goto web") and the bytes nf_tables keeps:
 * each field at a multiple of four bytes, addresses and ports in network order.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { formatAddress, parseAddress } from '#pkg/ip/address.ts';
import { lastAddress, parsePrefix } from '#pkg/ip/prefix.ts';
import { littleEndian, viewOf } from '#pkg/netlink/attribute.ts';
import { readIp4, readIp6, writeIp4, writeIp6 } from './address-text.ts';

const fieldBytes = {
  ipv4_addr: 4,
  ipv6_addr: 16,
  inet_proto: 4,
  inet_service: 4,
  /** What `numgen` makes: 32 bits in the machine's own order. */
  integer: 4,
} as const;

type FieldType = keyof typeof fieldBytes;

/** How a set's elements are laid out. */
export interface ElementLayout {
  readonly key: readonly FieldType[];
  readonly keyBytes: number;
  /** Undefined for sets; empty for verdicts. */
  readonly value: readonly FieldType[] | undefined;
  readonly valueBytes: number;
}

/**
 * From the words a set is declared with.
 *
 * @param valueType a map's; undefined for sets
 * @throws {AgentError} UnknownType
 */
export function elementLayout(type: string, valueType: string | undefined): ElementLayout {
  const key = fieldTypes(type);
  const value =
    valueType === undefined ? undefined : valueType === 'verdict' ? [] : fieldTypes(valueType);
  return { key, keyBytes: widthOf(key), value, valueBytes: widthOf(value ?? []) };
}

/** The fields of a key, or of a value that is no verdict, written at `at`. */
export function writeFields(
  text: string,
  types: readonly FieldType[],
  to: { readonly bytes: Uint8Array; readonly at: number },
): void {
  const words = text.split(' . ');
  if (words.length !== types.length) throw unreadable(text, types);
  let at = to.at;
  for (const [i, type] of types.entries()) {
    writeField(words[i] ?? '', type, { bytes: to.bytes, at });
    at += fieldBytes[type];
  }
}

/**
 * The last of the keys that an element with a prefix stands for; undefined when it is one key
 * alone. The first is what {@link writeFields} writes.
 */
export function rangeEnd(text: string): string | undefined {
  if (!text.includes('/')) return undefined;
  const last = (word: string): string =>
    word.includes('/') ? formatAddress(lastAddress(parsePrefix(word))) : word;
  return text.split(' . ').map(last).join(' . ');
}

/** nft's text of a key or value. With `end`, fields that differ from it are prefixes or ranges. */
export function readFields(
  bytes: Uint8Array,
  types: readonly FieldType[],
  end?: Uint8Array,
): string {
  let at = 0;
  const words = types.map((type) => {
    const word = readField(bytes, type, at);
    const last = end === undefined ? word : readField(end, type, at);
    at += fieldBytes[type];
    return last === word ? word : rangeText(word, last);
  });
  return words.join(' . ');
}

function writeField(
  word: string,
  type: FieldType,
  { bytes, at }: { readonly bytes: Uint8Array; readonly at: number },
): void {
  switch (type) {
    case 'ipv4_addr':
    case 'ipv6_addr': {
      const slash = word.indexOf('/');
      const text = slash < 0 ? word : word.slice(0, slash);
      if (text.includes(':') !== (type === 'ipv6_addr')) throw unreadable(word, [type]);
      (type === 'ipv4_addr' ? writeIp4 : writeIp6)(text, bytes, at);
      return;
    }
    case 'inet_proto':
      bytes[at] = protocolNumber(word);
      return;
    case 'inet_service': {
      const port = numberOf(word, 0xffff);
      bytes[at] = port >> 8;
      bytes[at + 1] = port & 255;
      return;
    }
    case 'integer':
      viewOf(bytes).setUint32(at, numberOf(word, 0xffff_ffff), littleEndian);
  }
}

function readField(bytes: Uint8Array, type: FieldType, at: number): string {
  switch (type) {
    case 'ipv4_addr':
      return readIp4(bytes, at);
    case 'ipv6_addr':
      return readIp6(bytes, at);
    case 'inet_proto':
      return protocolNames.get(bytes[at] ?? 0) ?? String(bytes[at]);
    case 'inet_service':
      return String(((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0));
    case 'integer':
      return String(viewOf(bytes).getUint32(at, littleEndian));
  }
}

/** A prefix where the range is one, else "first-last". */
function rangeText(first: string, last: string): string {
  const [from, to] = [parseAddress(first), parseAddress(last)];
  const size = to.value - from.value + 1n;
  const isPrefix = (size & (size - 1n)) === 0n && from.value % size === 0n;
  const bits = from.family === 'ip' ? 32 : 128;
  return isPrefix ? `${first}/${bits - (size.toString(2).length - 1)}` : `${first}-${last}`;
}

/** IPPROTO_*, include/uapi/linux/in.h; as nft names them. */
const protocolNumbers = new Map([
  ['tcp', 6],
  ['udp', 17],
  ['sctp', 132],
]);
const protocolNames = new Map([...protocolNumbers].map(([name, number]) => [number, name]));

function protocolNumber(word: string): number {
  return protocolNumbers.get(word) ?? numberOf(word, 255);
}

function numberOf(word: string, max: number): number {
  const number = Number(word);
  if (/^\d+$/.test(word) && number <= max) return number;
  throw new AgentError(
    'UnreadableElement',
    `Cannot encode ${JSON.stringify(word)}: expected a number up to ${max}`,
  );
}

function fieldTypes(type: string): FieldType[] {
  return type.split(' . ').map((name) => {
    if (name in fieldBytes) return name as FieldType;
    throw new AgentError('UnknownType', `Cannot encode elements of type ${JSON.stringify(name)}`);
  });
}

function widthOf(types: readonly FieldType[]): number {
  return types.reduce((sum, type) => sum + fieldBytes[type], 0);
}

function unreadable(text: string, types: readonly FieldType[]): AgentError {
  return new AgentError(
    'UnreadableElement',
    `Cannot encode ${JSON.stringify(text)}: expected ${types.join(' . ')}`,
  );
}
