/** How a node comes to its subnet in etcd: the one it has, the one it had, or a free one. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { EtcdClient } from '#pkg/etcd/client.ts';
import { formatAddress, type Address } from '#pkg/ip/address.ts';
import { formatPrefix, prefixesOverlap, type Prefix } from '#pkg/ip/prefix.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { ByFamily } from '#pkg/overlay/node-facts.ts';
import {
  formatLeaseKey,
  type LeasedSubnets,
  type LeaseEntry,
  type LeaseValue,
} from '#pkg/pod-network/subnet-lease.ts';
import { isInRange, pickSubnet, type SubnetRange } from '#pkg/pod-network/subnet-plan.ts';

/** A subnet in etcd. */
export interface HeldLease extends LeaseEntry {
  readonly key: string;
  /** ID of its lease; undefined = a reservation, which stays. */
  readonly lease: string | undefined;
}

export interface SubnetRules {
  readonly client: Pick<EtcdClient, 'transact' | 'grantLease' | 'revokeLease' | 'get'>;
  readonly subnets: { readonly ip: SubnetRange; readonly ip6: SubnetRange | undefined };
  readonly ttlSeconds: number;
  /** From 0 to 1, exclusive. */
  readonly random: () => number;
  readonly log: Logger;
}

export interface Acquisition {
  readonly leases: readonly HeldLease[];
  /** By which the node is known. */
  readonly publicIPs: ByFamily<Address>;
  readonly previous: LeasedSubnets | undefined;
  /** The one this process has: ours, though it may say an address that the host had before. */
  readonly held?: HeldLease | undefined;
  readonly relist: () => Promise<readonly HeldLease[]>;
  readonly keyOf: (subnets: LeasedSubnets) => string;
  readonly signal: AbortSignal;
}

/** As many others can be faster. */
const maxTries = 10;

/**
 * The subnet that carries our address, if it is of the network still; else the previous one while
 * nobody has it; else a free one. A reservation stays one.
 *
 * @throws {AgentError} NoSubnet when none is free or others are always faster
 */
export async function acquireSubnet(rules: SubnetRules, asked: Acquisition): Promise<HeldLease> {
  let { leases } = asked;
  for (let attempt = 0; attempt < maxTries; attempt++) {
    const own = await ownLease(leases, rules, asked);
    if (own !== undefined) return own;
    const others = leases.filter((lease) => !isOurs(lease, asked));
    const made = await makeLease(chooseSubnets(others, rules, asked), rules, asked);
    if (made !== undefined) return made;
    leases = await asked.relist();
  }
  throw new AgentError('NoSubnet', `Cannot get a subnet: others were faster ${maxTries} times`);
}

/** Ours in the list, when the configuration still allows it; one that it does not is given up. */
async function ownLease(
  leases: readonly HeldLease[],
  { client, log, subnets: range }: SubnetRules,
  asked: Acquisition,
): Promise<HeldLease | undefined> {
  for (const lease of leases.filter((one) => isOurs(one, asked))) {
    if (fits(lease.subnets, range)) return lease;
    const { key, createRevision } = lease;
    log.warn({ key }, 'Giving up a subnet that is not of the network any more');
    await client.transact([{ key, createRevision }], [{ op: 'delete', key }], asked.signal);
  }
  return undefined;
}

function chooseSubnets(
  others: readonly HeldLease[],
  { log, random, subnets: range }: SubnetRules,
  { previous }: Acquisition,
): LeasedSubnets {
  const taken = others.flatMap(({ subnets }) => [subnets.ip, subnets.ip6 ?? []].flat());
  if (previous !== undefined) {
    const isFree = [previous.ip, previous.ip6 ?? []]
      .flat()
      .every((subnet) => !taken.some((other) => prefixesOverlap(subnet, other)));
    if (isFree && fits(previous, range)) return previous;
    const why = isFree ? 'it is not of the network' : 'another node has it';
    log.warn({ subnet: formatLeaseKey(previous), why }, 'Cannot have the previous subnet again');
  }
  const pick = (from: SubnetRange): Prefix => {
    const subnet = pickSubnet(from, taken, random);
    if (subnet !== undefined) return subnet;
    const last = formatAddress(from.last.address);
    throw new AgentError(
      'NoSubnet',
      `Cannot get a subnet: all from ${formatPrefix(from.first)} to ${last} are taken`,
    );
  };
  return { ip: pick(range.ip), ip6: range.ip6 === undefined ? undefined : pick(range.ip6) };
}

/** Undefined when somebody was faster. */
async function makeLease(
  subnets: LeasedSubnets,
  { client, ttlSeconds }: SubnetRules,
  { keyOf, publicIPs, signal }: Acquisition,
): Promise<HeldLease | undefined> {
  const key = keyOf(subnets);
  const { ip, ip6 } = publicIPs;
  const value: LeaseValue = {
    ...(ip === undefined ? {} : { PublicIP: formatAddress(ip) }),
    ...(ip6 === undefined ? {} : { PublicIPv6: formatAddress(ip6) }),
  };
  const lease = await client.grantLease(ttlSeconds, signal);
  const put = { op: 'put', key, value: JSON.stringify(value), lease } as const;
  const absent = { key, createRevision: '0' };
  // Where the answer is lost it may have been done: the next list then shows the subnet as ours.
  const revision = await client.transact([absent], [put], signal);
  if (revision === undefined) {
    await client.revokeLease(lease, signal);
    return undefined;
  }
  return { key, subnets, value, lease, createRevision: revision, modRevision: revision };
}

function isOurs(
  { createRevision, key, value: { PublicIP, PublicIPv6 } }: HeldLease,
  { held, publicIPs: { ip, ip6 } }: Acquisition,
): boolean {
  if (key === held?.key && createRevision === held.createRevision) return true;
  if (ip !== undefined) return PublicIP === formatAddress(ip);
  return ip6 !== undefined && PublicIPv6 === formatAddress(ip6);
}

function fits({ ip, ip6 }: LeasedSubnets, range: SubnetRules['subnets']): boolean {
  if (!isInRange(range.ip, ip)) return false;
  if (range.ip6 === undefined || ip6 === undefined) return range.ip6 === ip6;
  return isInRange(range.ip6, ip6);
}
