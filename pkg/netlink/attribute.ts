/**
 * Netlink attributes (struct nlattr: u16 length, u16 type, payload, padded to 4 bytes) as byte
 * strings: written by functions that compose, read without ever throwing. A newer kernel may widen
 * an attribute or add one; that must not cost us the message around it.
 */
import { addressBytes, type Address } from '#pkg/ip/address.ts';
import { NLA_F_NESTED, NLA_TYPE_MASK } from './constants.ts';

/** Netlink speaks the machine's own byte order, but where a comment says network order. */
export const littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

const headerBytes = 4;

/**
 * Numbers in the machine's order, byte by byte. A DataView on a small array makes V8 move the array
 * out of its heap first, which takes longer than the rest of a message.
 */
export function setU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[littleEndian ? at : at + 1] = value;
  bytes[littleEndian ? at + 1 : at] = value >>> 8;
}

/** As {@link setU16}; of negative numbers the two's complement. */
export function setU32(bytes: Uint8Array, at: number, value: number): void {
  setU16(bytes, littleEndian ? at : at + 2, value & 0xffff);
  setU16(bytes, littleEndian ? at + 2 : at, value >>> 16);
}

/** As {@link setU16}: beyond the end there are zeros. */
export function getU16(bytes: Uint8Array, at: number): number {
  const [first, second] = [bytes[at] ?? 0, bytes[at + 1] ?? 0];
  return littleEndian ? first | (second << 8) : (first << 8) | second;
}

/** As {@link getU16}. */
export function getU32(bytes: Uint8Array, at: number): number {
  const [first, second] = [getU16(bytes, at), getU16(bytes, at + 2)];
  return littleEndian ? first + second * 0x10000 : first * 0x10000 + second;
}

/** One attribute around any payload. */
export function attribute(type: number, payload: Uint8Array): Uint8Array {
  const bytes = emptyAttribute(type, payload.byteLength);
  copyBytes(bytes, headerBytes, payload);
  return bytes;
}

function emptyAttribute(type: number, payloadBytes: number): Uint8Array {
  const bytes = new Uint8Array(align4(headerBytes + payloadBytes));
  setU16(bytes, 0, headerBytes + payloadBytes);
  setU16(bytes, 2, type);
  return bytes;
}

/** For a few bytes a loop is over before `set` has begun. */
const longBytes = 64;

/** Copies all of `part` to `at`, where there must be room. */
export function copyBytes(bytes: Uint8Array, at: number, part: Uint8Array): void {
  const { byteLength } = part;
  if (byteLength > longBytes) bytes.set(part, at);
  else for (let i = 0; i < byteLength; i++) bytes[at + i] = part[i] ?? 0;
}

/** Attributes in an attribute, flagged as such (strict kernels refuse a nest that does not say so). */
export function nested(type: number, children: readonly Uint8Array[]): Uint8Array {
  return attribute(type | NLA_F_NESTED, concatBytes(children));
}

export function attributeU8(type: number, value: number): Uint8Array {
  const bytes = emptyAttribute(type, 1);
  bytes[headerBytes] = value;
  return bytes;
}

export function attributeU16(type: number, value: number): Uint8Array {
  const bytes = emptyAttribute(type, 2);
  setU16(bytes, headerBytes, value);
  return bytes;
}

/** A 16-bit number in network order: ports. */
export function attributeBe16(type: number, value: number): Uint8Array {
  return attribute(type, Uint8Array.of(value >> 8, value));
}

export function attributeU32(type: number, value: number): Uint8Array {
  const bytes = emptyAttribute(type, 4);
  setU32(bytes, headerBytes, value);
  return bytes;
}

/** Exact up to 2^53. */
export function attributeU64(type: number, value: number): Uint8Array {
  return attribute(type, new Uint8Array(BigUint64Array.of(BigInt(value)).buffer));
}

/** A string with the NUL that the kernel wants at its end. */
export function attributeString(type: number, text: string): Uint8Array {
  return attribute(type, encoder.encode(`${text}\0`));
}

/** A MAC address written "0a:58:0a:f4:01:05". */
export function attributeMac(type: number, mac: string): Uint8Array {
  return attribute(type, macBytes(mac));
}

/** An IP address: 4 or 16 bytes. */
export function attributeAddress(type: number, address: Address): Uint8Array {
  return attribute(type, addressBytes(address));
}

/** What a message or nest held: payloads by type. Where a type comes twice, the last one. */
export type Attributes = ReadonlyMap<number, Uint8Array>;

/**
 * Reads until the bytes end or stop making sense.
 *
 * @param wanted types to keep; all when undefined. Links have sixty attributes, of which few matter.
 */
export function readAttributes(bytes: Uint8Array, wanted?: ReadonlySet<number>): Attributes {
  const attributes = new Map<number, Uint8Array>();
  visitAttributes(bytes, wanted, (type, payload) => attributes.set(type, payload));
  return attributes;
}

/** The payloads of a type that comes more than once, in order. */
export function readRepeated(bytes: Uint8Array, wanted: number): Uint8Array[] {
  const payloads: Uint8Array[] = [];
  visitAttributes(bytes, new Set([wanted]), (_, payload) => payloads.push(payload));
  return payloads;
}

/**
 * The first payload of one type: cheaper than reading all where messages come by the million.
 */
export function findAttribute(bytes: Uint8Array, wanted: number): Uint8Array | undefined {
  let at = 0;
  while (at + headerBytes <= bytes.byteLength) {
    const length = getU16(bytes, at);
    if (length < headerBytes || at + length > bytes.byteLength) return undefined;
    const type = getU16(bytes, at + 2) & NLA_TYPE_MASK;
    if (type === wanted) return bytes.subarray(at + headerBytes, at + length);
    at += align4(length);
  }
  return undefined;
}

function visitAttributes(
  bytes: Uint8Array,
  wanted: ReadonlySet<number> | undefined,
  visit: (type: number, payload: Uint8Array) => void,
): void {
  let at = 0;
  while (at + headerBytes <= bytes.byteLength) {
    const length = getU16(bytes, at);
    if (length < headerBytes || at + length > bytes.byteLength) break;
    const type = getU16(bytes, at + 2) & NLA_TYPE_MASK;
    if (wanted?.has(type) !== false) visit(type, bytes.subarray(at + headerBytes, at + length));
    at += align4(length);
  }
}

/** A nest's attributes; none when the nest itself is missing. */
export function readNested(payload: Uint8Array | undefined): Attributes {
  return payload === undefined ? new Map() : readAttributes(payload);
}

/** The first byte; undefined when the attribute is missing or too short, as in all of these. */
export function readU8(payload: Uint8Array | undefined): number | undefined {
  return payload?.[0];
}

/** In the machine's byte order; undefined when absent or too short, as for all readers here. */
export function readU32(payload: Uint8Array | undefined): number | undefined {
  if (payload === undefined || payload.byteLength < 4) return undefined;
  return getU32(payload, 0);
}

/** In the machine's byte order. */
export function readU16(payload: Uint8Array | undefined): number | undefined {
  if (payload === undefined || payload.byteLength < 2) return undefined;
  return getU16(payload, 0);
}

/** Exact up to 2^53. */
export function readU64(payload: Uint8Array | undefined): number | undefined {
  if (payload === undefined || payload.byteLength < 8) return undefined;
  return Number(viewOf(payload).getBigUint64(0, littleEndian));
}

/** In network order, as ports are. */
export function readBe16(payload: Uint8Array | undefined): number | undefined {
  if (payload === undefined || payload.byteLength < 2) return undefined;
  return viewOf(payload).getUint16(0);
}

/** Text up to its NUL. */
export function readString(payload: Uint8Array | undefined): string | undefined {
  if (payload === undefined) return undefined;
  // Names are short and plain: a decoder takes longer to start than this loop to end.
  let text = '';
  for (let at = 0; at < payload.byteLength; at++) {
    const byte = payload[at] ?? 0;
    if (byte === 0) return text;
    if (byte > 0x7f) break;
    text += String.fromCharCode(byte);
  }
  const end = payload.indexOf(0);
  return decoder.decode(end === -1 ? payload : payload.subarray(0, end));
}

/** "0a:58:0a:f4:01:05"; undefined for link addresses of another length than Ethernet's. */
export function readMac(payload: Uint8Array | undefined): string | undefined {
  if (payload?.byteLength !== 6) return undefined;
  let text = '';
  for (let at = 0; at < 6; at++) {
    text += `${at === 0 ? '' : ':'}${(payload[at] ?? 0).toString(16).padStart(2, '0')}`;
  }
  return text;
}

/** The six bytes of a MAC address with colons. */
function macBytes(mac: string): Uint8Array {
  const parts = mac.split(':');
  // Not Uint8Array.from(): the first call of it costs the CNI executable a third of a millisecond.
  const bytes = new Uint8Array(parts.length);
  for (let i = 0; i < parts.length; i++) bytes[i] = Number.parseInt(parts[i] ?? '', 16);
  return bytes;
}

export function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.byteLength;
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    copyBytes(bytes, at, part);
    at += part.byteLength;
  }
  return bytes;
}

/** The very bytes, not a copy. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function align4(length: number): number {
  return (length + 3) & ~3;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
