/**
 * An address with a mask length ("10.244.1.5/24"). Host bits are kept, since an interface address
 * and CNI's `ips[].address` need them; {@link networkOf} drops them.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import {
  addressBits,
  formatAddress,
  tryParseAddress,
  type Address,
  type Family,
} from './address.ts';

export interface Prefix {
  readonly address: Address;
  /** Mask length in bits. */
  readonly length: number;
}

const decimalLength = /^(?:0|[1-9]\d{0,2})$/;

/**
 * Parses "10.244.1.0/24" or "fd00:1::/64".
 *
 * @throws {AgentError} InvalidPrefix
 */
export function parsePrefix(text: string): Prefix {
  const prefix = tryParsePrefix(text);
  if (prefix === undefined) {
    throw new AgentError(
      'InvalidPrefix',
      `Cannot read prefix ${JSON.stringify(text)}: expected address/length as 10.244.1.0/24 or fd00:1::/64`,
    );
  }
  return prefix;
}

/** As {@link parsePrefix}, with undefined for text that is no prefix. */
export function tryParsePrefix(text: string): Prefix | undefined {
  const slash = text.indexOf('/');
  const address = tryParseAddress(text.slice(0, Math.max(slash, 0)));
  const digits = text.slice(slash + 1);
  if (address === undefined || !decimalLength.test(digits)) return undefined;
  const length = Number(digits);
  return length <= addressBits(address.family) ? { address, length } : undefined;
}

/** "10.244.1.0/24"; host bits are printed as they are. */
export function formatPrefix(prefix: Prefix): string {
  return `${formatAddress(prefix.address)}/${prefix.length}`;
}

/** The family of its address. */
export function familyOf(prefix: Prefix): Family {
  return prefix.address.family;
}

/** The same prefix with its host bits zero. */
export function networkOf(prefix: Prefix): Prefix {
  const { family } = prefix.address;
  const host = hostBits(prefix);
  return {
    address: { family, value: (prefix.address.value >> host) << host },
    length: prefix.length,
  };
}

/** The prefix's highest address: an IPv4 subnet's broadcast address. */
export function lastAddress(prefix: Prefix): Address {
  const host = hostBits(prefix);
  return {
    family: prefix.address.family,
    value: ((prefix.address.value >> host) << host) | ((1n << host) - 1n),
  };
}

/** The prefix of one address: /32 or /128. */
export function hostPrefix(address: Address): Prefix {
  return { address, length: addressBits(address.family) };
}

/** Everything of a family: 0.0.0.0/0 or ::/0. */
export function defaultPrefix(family: Family): Prefix {
  return { address: { family, value: 0n }, length: 0 };
}

/** Never where families differ; host bits of the prefix do not matter. */
export function containsAddress(prefix: Prefix, address: Address): boolean {
  if (prefix.address.family !== address.family) return false;
  const host = hostBits(prefix);
  return prefix.address.value >> host === address.value >> host;
}

/** Whether every address of `inner` lies in `outer`. */
export function containsPrefix(outer: Prefix, inner: Prefix): boolean {
  return inner.length >= outer.length && containsAddress(outer, inner.address);
}

/** Whether one has an address of the other, in which case one has all of it. */
export function prefixesOverlap(a: Prefix, b: Prefix): boolean {
  return containsPrefix(a, b) || containsPrefix(b, a);
}

/** Host bits count. */
export function samePrefix(a: Prefix, b: Prefix): boolean {
  return (
    a.length === b.length &&
    a.address.family === b.address.family &&
    a.address.value === b.address.value
  );
}

function hostBits(prefix: Prefix): bigint {
  return BigInt(addressBits(prefix.address.family) - prefix.length);
}
