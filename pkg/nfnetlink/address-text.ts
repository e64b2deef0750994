/**
 * Canonical address text straight to bytes and back. `pkg/ip` computes with numbers of 128 bits,
 * which for a table of 20,000 Services would be most of the work.
 */
import { addressBytes, addressFromBytes, formatAddress, parseAddress } from '#pkg/ip/address.ts';

/** @throws {AgentError} InvalidAddress */
export function writeIp4(text: string, bytes: Uint8Array, at: number): void {
  let value = 0;
  let part = at;
  for (let i = 0; i <= text.length; i++) {
    const code = i === text.length ? dot : text.charCodeAt(i);
    if (code === dot) {
      bytes[part] = value;
      part += 1;
      value = 0;
    } else if (code >= zero && code <= zero + 9) {
      value = value * 10 + (code - zero);
    } else {
      part = -1;
      break;
    }
  }
  if (part === at + 4) return;
  // Says what is wrong with it.
  bytes.set(addressBytes(parseAddress(text)), at);
}

/** @throws {AgentError} InvalidAddress */
export function writeIp6(text: string, bytes: Uint8Array, at: number): void {
  const gap = text.indexOf('::');
  const head = gap < 0 ? text : text.slice(0, gap);
  const tail = gap < 0 ? '' : text.slice(gap + 2);
  const first = head === '' ? [] : head.split(':');
  const last = tail === '' ? [] : tail.split(':');
  const groups = first.length + last.length;
  if (text.includes('.') || (gap < 0 ? groups !== 8 : groups > 7)) {
    bytes.set(addressBytes(parseAddress(text)), at);
    return;
  }
  bytes.fill(0, at, at + 16);
  const put = (group: string, i: number): void => {
    const value = Number.parseInt(group, 16);
    bytes[at + 2 * i] = value >> 8;
    bytes[at + 2 * i + 1] = value & 255;
  };
  for (const [i, group] of first.entries()) put(group, i);
  for (const [i, group] of last.entries()) put(group, 8 - last.length + i);
}

/** Text of the four bytes at an offset, without an Address between: a table has thousands. */
export function readIp4(bytes: Uint8Array, at: number): string {
  return `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`;
}

/** The same of sixteen bytes, in the form of RFC 5952. */
export function readIp6(bytes: Uint8Array, at: number): string {
  const groups: string[] = [];
  let [start, length] = [0, 0];
  let run = 0;
  for (let i = 0; i < 8; i++) {
    const value = ((bytes[at + 2 * i] ?? 0) << 8) | (bytes[at + 2 * i + 1] ?? 0);
    groups.push(value.toString(16));
    run = value === 0 ? run + 1 : 0;
    if (run > length) [start, length] = [i - run + 1, run];
  }
  if (bytes.byteLength < at + 16) return formatAddress(addressFromBytes(bytes.subarray(at)));
  if (length < 2) return groups.join(':');
  return `${groups.slice(0, start).join(':')}::${groups.slice(start + length).join(':')}`;
}

const dot = 46;
const zero = 48;
