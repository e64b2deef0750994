/**
 * Which subnets of the cluster's network nodes can have, where nobody but the nodes themselves hands
 * them out: flannel's rules for its configuration in etcd (flannel pkg/subnet/config.go).
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { addressBits, addressPlus, formatAddress, type Address } from '#pkg/ip/address.ts';
import {
  containsPrefix,
  formatPrefix,
  lastAddress,
  networkOf,
  type Prefix,
} from '#pkg/ip/prefix.ts';

/** The subnets of one family: all of `length` bits from `first` to `last`. */
export interface SubnetRange {
  readonly network: Prefix;
  readonly length: number;
  readonly first: Prefix;
  readonly last: Prefix;
}

export interface SubnetWish {
  readonly network: Prefix;
  readonly length?: number | undefined;
  readonly min?: Address | undefined;
  readonly max?: Address | undefined;
}

/** Names of the settings, for errors. */
const names = {
  ip: { network: 'Network', length: 'SubnetLen', min: 'SubnetMin', max: 'SubnetMax' },
  ip6: {
    network: 'IPv6Network',
    length: 'IPv6SubnetLen',
    min: 'IPv6SubnetMin',
    max: 'IPv6SubnetMax',
  },
} as const;

/** Of a subnet of 24 bits (64) pods have enough; it is what nodes get where that leaves four. */
const usualLength = { ip: 24, ip6: 64 } as const;

/**
 * The range with flannel's defaults: the first subnet is left out, so that the network's own address
 * is nobody's.
 *
 * @throws {AgentError} InvalidConfig, naming the setting
 */
export function planSubnets({ network, length: wished, min, max }: SubnetWish): SubnetRange {
  const { family } = network.address;
  const name = names[family];
  const bits = addressBits(family);
  const length = wished ?? Math.max(usualLength[family], network.length + 2);
  if (length > bits - 2) {
    throw invalid(
      wished === undefined
        ? `${name.network} ${formatPrefix(network)} is too small for four subnets`
        : `${name.length} ${length}: expected at most ${bits - 2}`,
    );
  }
  if (length < network.length + 2) {
    throw invalid(
      `${name.length} ${length}: ${name.network} ${formatPrefix(network)} must have room for four subnets`,
    );
  }
  const subnetOf = (address: Address, setting: string): Prefix => {
    const subnet = { address, length };
    if (!containsPrefix(network, subnet)) {
      throw invalid(
        `${setting} ${formatAddress(address)} is not in ${name.network} ${formatPrefix(network)}`,
      );
    }
    if (networkOf(subnet).address.value === address.value) return subnet;
    throw invalid(`${setting} ${formatAddress(address)} is not the first address of a /${length}`);
  };
  const size = 1n << BigInt(bits - length);
  const first = subnetOf(min ?? addressPlus(network.address, size), name.min);
  const last = subnetOf(
    max ?? networkOf({ address: lastAddress(network), length }).address,
    name.max,
  );
  if (first.address.value > last.address.value) {
    throw invalid(`${name.min} ${formatAddress(first.address)} is behind ${name.max}`);
  }
  return { network, length, first, last };
}

/** Whether a subnet is one of the range. */
export function isInRange(range: SubnetRange, subnet: Prefix): boolean {
  return (
    subnet.length === range.length &&
    subnet.address.family === range.first.address.family &&
    subnet.address.value >= range.first.address.value &&
    subnet.address.value <= range.last.address.value
  );
}

/** flannel picks among as many, so that nodes that start at once seldom want the same. */
const candidates = 100;

/**
 * A free subnet: one of the first hundred, or undefined when all are taken.
 *
 * @param taken subnets of others; what overlaps one of them is not free
 * @param random from 0 to 1, exclusive
 */
export function pickSubnet(
  range: SubnetRange,
  taken: readonly Prefix[],
  random: () => number,
): Prefix | undefined {
  const size = 1n << BigInt(addressBits(range.first.address.family) - range.length);
  const spans = taken
    .filter(({ address }) => address.family === range.first.address.family)
    .map((prefix) => ({ from: networkOf(prefix).address.value, to: lastAddress(prefix).value }))
    .toSorted((a, b) => (a.from < b.from ? -1 : a.from > b.from ? 1 : 0));
  const free: Prefix[] = [];
  let at = range.first.address.value;
  let next = 0;
  while (at <= range.last.address.value && free.length < candidates) {
    // Spans that end before this subnet say nothing any more: one pass over both.
    while (next < spans.length && (spans[next]?.to ?? 0n) < at) next += 1;
    const span = spans[next];
    if (span === undefined || span.from > at + size - 1n) {
      free.push({
        address: { family: range.first.address.family, value: at },
        length: range.length,
      });
      at += size;
    } else {
      // To the first subnet after what is taken.
      at = (span.to / size + 1n) * size;
    }
  }
  return free[Math.floor(random() * free.length)];
}

function invalid(reason: string): AgentError {
  return new AgentError('InvalidConfig', `Cannot use the network configuration: ${reason}`);
}
