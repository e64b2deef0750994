/**
 * Which Service holds which cluster address and node port. Derived from the stored Services, so
 * that a failed or dry-run request can leave nothing behind.
 */
import {
  addressPlus,
  formatAddress,
  parseAddress,
  tryParseAddress,
  type Family,
} from '#pkg/ip/address.ts';
import { containsAddress, lastAddress, networkOf, type Prefix } from '#pkg/ip/prefix.ts';
import { listAt, textAt, valueAt } from '#pkg/embedded-api/json.ts';
import type { KubeObject } from '#pkg/embedded-api/object.ts';
import type { Change } from '#pkg/embedded-api/watch-log.ts';

/** First and last port handed out, kube-apiserver's --service-node-port-range default. */
export const nodePortRange = { first: 30000, last: 32767 } as const;

export type IpFamily = 'IPv4' | 'IPv6';

interface Pool {
  readonly prefix: Prefix;
  readonly size: bigint;
  /** Offset the next search starts at. */
  cursor: bigint;
}

export class ServiceAllocations {
  readonly #pools: ReadonlyMap<IpFamily, Pool>;
  readonly #addressOwners = new Map<string, string>();
  readonly #portOwners = new Map<number, string>();
  #portCursor: number;

  /** @param serviceCIDRs at most one a family; the first is the default family. */
  constructor(serviceCIDRs: readonly Prefix[]) {
    this.#pools = new Map(serviceCIDRs.map((cidr) => [ipFamily(cidr.address.family), pool(cidr)]));
    this.#portCursor = nodePortRange.first + reservedPorts;
  }

  /** Families there are ranges for, the default one first. */
  get families(): readonly IpFamily[] {
    return [...this.#pools.keys()];
  }

  /** The range of a family. */
  range(family: IpFamily): Prefix | undefined {
    return this.#pools.get(family)?.prefix;
  }

  /** Key of the Service that holds an address in canonical form. */
  addressOwner(address: string): string | undefined {
    return this.#addressOwners.get(address);
  }

  /** Key of the Service that holds a node port. */
  portOwner(port: number): string | undefined {
    return this.#portOwners.get(port);
  }

  /** A free address of the family; undefined when the range is full. */
  freeAddress(family: IpFamily): string | undefined {
    const found = this.#pools.get(family);
    if (found === undefined) return undefined;
    // The cursor hands out a freed address late: clients and conntrack may remember the old owner.
    for (let tried = 0n; tried < found.size; tried++) {
      const offset = ((found.cursor + tried) % found.size) + 1n;
      const address = formatAddress(addressPlus(found.prefix.address, offset));
      if (this.#addressOwners.has(address)) continue;
      found.cursor = offset % found.size;
      return address;
    }
    return undefined;
  }

  /** A free node port that is not in `taken`; undefined when all are in use. */
  freePort(taken: ReadonlySet<number>): number | undefined {
    const { first, last } = nodePortRange;
    const count = last - first + 1;
    for (let tried = 0; tried < count; tried++) {
      const port = first + ((this.#portCursor - first + tried) % count);
      if (this.#portOwners.has(port) || taken.has(port)) continue;
      this.#portCursor = port + 1 > last ? first : port + 1;
      return port;
    }
    return undefined;
  }

  /** Follows a committed change of a Service. */
  follow(change: Pick<Change, 'type' | 'key' | 'object' | 'previous'>): void {
    if (change.previous !== undefined) this.#release(change.key, change.previous);
    if (change.type !== 'DELETED') this.#claim(change.key, change.object);
  }

  #claim(key: string, service: KubeObject): void {
    for (const address of clusterAddresses(service)) this.#addressOwners.set(address, key);
    for (const port of nodePorts(service)) this.#portOwners.set(port, key);
  }

  #release(key: string, service: KubeObject): void {
    for (const address of clusterAddresses(service)) {
      if (this.#addressOwners.get(address) === key) this.#addressOwners.delete(address);
    }
    for (const port of nodePorts(service)) {
      if (this.#portOwners.get(port) === key) this.#portOwners.delete(port);
    }
  }
}

export function ipFamily(family: Family): IpFamily {
  return family === 'ip' ? 'IPv4' : 'IPv6';
}

/** The family of an address; undefined for text that is none. */
export function ipFamilyOf(address: string): IpFamily | undefined {
  const parsed = tryParseAddress(address);
  return parsed === undefined ? undefined : ipFamily(parsed.family);
}

/** Whether the range may hand out this address: not the network's own, nor IPv4 broadcast. */
export function isInRange(range: Prefix, address: string): boolean {
  const parsed = parseAddress(address);
  if (!containsAddress(range, parsed)) return false;
  if (parsed.value === networkOf(range).address.value) return false;
  return parsed.family === 'ip6' || parsed.value !== lastAddress(range).value;
}

/** Node ports of a Service, its health check's included. */
function nodePorts(service: KubeObject): readonly number[] {
  const ports = listAt(service, 'spec', 'ports').map((port) => valueAt(port, 'nodePort'));
  return [...ports, valueAt(service, 'spec', 'healthCheckNodePort')].filter(
    (port): port is number => typeof port === 'number' && port > 0,
  );
}

function clusterAddresses(service: KubeObject): readonly string[] {
  return listAt(service, 'spec', 'clusterIPs')
    .map((address) => textAt(address))
    .map((text) => tryParseAddress(text))
    .filter((address) => address !== undefined)
    .map(formatAddress);
}

function pool(cidr: Prefix): Pool {
  const prefix = networkOf(cidr);
  const addresses = lastAddress(prefix).value - prefix.address.value + 1n;
  // Without the network's own address, and IPv4's broadcast.
  const size = prefix.address.family === 'ip' ? addresses - 2n : addresses - 1n;
  return { prefix, size: size < 0n ? 0n : size, cursor: BigInt(reservedBand(addresses)) };
}

/**
 * The real server hands out the upper part of a range first and leaves the lower part to those
 * who choose by hand: min(max(16, size/16), 256) addresses (KEP-3070) and, by the same thought,
 * min(max(16, size/32), 128) ports (KEP-3668).
 */
function reservedBand(size: bigint): number {
  const sixteenth = Number(size / 16n > 256n ? 256n : size / 16n);
  return Math.min(Math.max(16, sixteenth), 256);
}

const reservedPorts = 86;
