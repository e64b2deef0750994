/** Ranges of addresses as host-local configures them, and the order they are given out in. */
import { addressPlus, formatAddress, type Address } from '#pkg/ip/address.ts';
import {
  containsAddress,
  familyOf,
  formatPrefix,
  lastAddress,
  networkOf,
  prefixesOverlap,
  samePrefix,
  type Prefix,
} from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { missing, readAddress, readPrefix, type JsonFields } from '#pkg/cni/json-fields.ts';

/** Addresses `start` to `end` of `subnet`; `gateway` is never given out. */
export interface AddressRange {
  readonly subnet: Prefix;
  readonly start: Address;
  readonly end: Address;
  readonly gateway: Address;
}

/** Alternatives of one family: an attachment gets one address of each set. */
export type RangeSet = readonly AddressRange[];

/**
 * One range. The start defaults to the subnet's second address, the end to its last (IPv4: before
 * the broadcast address), the gateway to the second.
 *
 * @throws {CniError} code 7
 */
export function parseRange(fields: JsonFields): AddressRange {
  const subnet = readPrefix(fields, 'subnet');
  if (subnet === undefined) throw missing(fields, 'subnet', 'address/length as 10.244.1.0/24');
  checkSubnet(subnet);
  const second = addressPlus(subnet.address, 1);
  const range = {
    subnet,
    start: readAddress(fields, 'rangeStart') ?? second,
    end: readAddress(fields, 'rangeEnd') ?? defaultEnd(subnet),
    gateway: readAddress(fields, 'gateway') ?? second,
  };
  for (const [name, address] of [
    ['rangeStart', range.start],
    ['rangeEnd', range.end],
  ] as const) {
    if (!containsAddress(subnet, address)) {
      throw invalid(`${name} ${formatAddress(address)} not in network ${formatPrefix(subnet)}`);
    }
  }
  if (range.gateway.family !== familyOf(subnet)) {
    const gateway = formatAddress(range.gateway);
    throw invalid(`gateway ${gateway} is not of the family of ${formatPrefix(subnet)}`);
  }
  if (range.start.value > range.end.value) {
    throw invalid(
      `rangeStart ${formatAddress(range.start)} is after rangeEnd ${formatAddress(range.end)}`,
    );
  }
  return range;
}

/**
 * Whole sets: one family a set, nothing that overlaps.
 *
 * @throws {CniError} code 7
 */
export function checkRangeSets(sets: readonly RangeSet[]): void {
  for (const [i, set] of sets.entries()) {
    const [first] = set;
    if (first === undefined) throw invalid(`range set ${i} is empty`);
    for (const [j, range] of set.entries()) {
      if (familyOf(range.subnet) !== familyOf(first.subnet)) {
        throw invalid(`mixed address families in range set ${i}`);
      }
      if (set.slice(0, j).some((other) => rangesOverlap(range, other))) {
        throw invalid(`range set ${i} has overlapping ranges: ${formatRangeSet(set)}`);
      }
      if (sets.slice(0, i).some((other) => other.some((r) => rangesOverlap(range, r)))) {
        throw invalid(`range set ${i} overlaps with an earlier one: ${formatRangeSet(set)}`);
      }
    }
  }
}

/** The range of the set that holds this address, gateway and all. */
export function rangeOf(set: RangeSet, address: Address): AddressRange | undefined {
  return set.find(
    (range) =>
      range.start.family === address.family &&
      range.start.value <= address.value &&
      address.value <= range.end.value,
  );
}

/**
 * Every address of the set once, beginning after `last` (or at the start, when `last` is not of the
 * set): an address that was just freed comes back as late as possible.
 */
export function* roundRobin(set: RangeSet, last: Address | undefined): Generator<Address> {
  const lastRange = last === undefined ? undefined : rangeOf(set, last);
  const from = lastRange === undefined ? 0 : set.indexOf(lastRange);
  if (last !== undefined && lastRange !== undefined) {
    yield* addresses(lastRange, last.value + 1n, lastRange.end.value);
  }
  const after = lastRange === undefined ? set : [...set.slice(from + 1), ...set.slice(0, from)];
  for (const range of after) yield* addresses(range, range.start.value, range.end.value);
  if (last !== undefined && lastRange !== undefined) {
    yield* addresses(lastRange, lastRange.start.value, last.value);
  }
}

/** "10.1.2.1-10.1.2.254,10.1.4.1-10.1.4.254" */
export function formatRangeSet(set: RangeSet): string {
  return set.map(({ start, end }) => `${formatAddress(start)}-${formatAddress(end)}`).join(',');
}

function* addresses(range: AddressRange, from: bigint, to: bigint): Generator<Address> {
  const { family } = range.start;
  for (let value = from; value <= to; value++) {
    if (value !== range.gateway.value) yield { family, value };
  }
}

function checkSubnet(subnet: Prefix): void {
  const network = networkOf(subnet);
  if (!samePrefix(subnet, network)) {
    throw invalid(
      `Network has host bits set for a subnet mask of length ${subnet.length}, expected subnet ${formatPrefix(network)}, got ${formatPrefix(subnet)}`,
    );
  }
  // Two addresses for the subnet itself, one for the gateway: a /31 has nothing left to give.
  const longest = familyOf(subnet) === 'ip' ? 30 : 126;
  if (subnet.length > longest) {
    throw invalid(`Network ${formatPrefix(subnet)} too small to allocate from`);
  }
}

function defaultEnd(subnet: Prefix): Address {
  const last = lastAddress(subnet);
  return familyOf(subnet) === 'ip' ? addressPlus(last, -1) : last;
}

/** Whether two ranges could give out the same address. */
function rangesOverlap(a: AddressRange, b: AddressRange): boolean {
  return (
    prefixesOverlap(a.subnet, b.subnet) &&
    a.start.value <= b.end.value &&
    b.start.value <= a.end.value
  );
}

function invalid(state: string): CniError {
  return new CniError(cniCode.invalidConfig, `Cannot use IPAM ranges: ${state}`);
}
