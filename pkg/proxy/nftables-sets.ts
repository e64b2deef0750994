/**
 * The sets and maps of the nftables mode. Services and endpoints are elements and nothing else:
 * rules and chains do not grow with them. What every Service needs are plain sets and maps of data:
 * for each element with a verdict the kernel validates the whole table again (nft_table_validate),
 * so a map of verdicts for all Services would make one more Service cost what all of them cost.
 */
import type { Family } from '#pkg/ip/address.ts';
import type { ElementMap, ElementSet } from '#pkg/nftables/ruleset.ts';
import type { NftablesCounters } from './nftables-options.ts';

/** Of the tables in `ip` and `ip6`. */
export const proxyTableName = 'podwire-proxy';

/** Clients that session affinity remembers at a time; the kernel's own default is a quarter. */
const affinityClients = 262_144;

/** Slots of endpoints on this node, for traffic of policy Local, start here. */
export const localSlots = 65_536;

/**
 * Services are sorted by how many endpoints they have: class 8 are those with 5 to 8. What has more
 * than the last is cut.
 */
export const classes = Array.from({ length: 17 }, (_, i) => 2 ** i);

function classOf(count: number): number {
  return classes.find((size) => count <= size) ?? localSlots;
}

/** Whose endpoints: a Service's or a node port's, all or those on this node. */
export const kinds = ['services', 'local-services', 'node-ports', 'local-node-ports'] as const;
export type Kind = (typeof kinds)[number];

/** Set of the Services of one class: "services-8". */
export function classSet(kind: Kind, count: number): `${Kind}-${number}` {
  return `${kind}-${classOf(count)}`;
}

/** In the order in which what is not wanted is deleted: what leads somewhere goes first. */
const setNames = [
  /** Served as they are: cluster addresses without affinity. */
  'plain-services',
  /** Those that one of the next sets says more about. */
  'special-services',
  'special-node-ports',
  /** Replies must come back through this node. */
  'masqueraded-services',
  'masqueraded-node-ports',
  /** externalTrafficPolicy Local. */
  'local-policy-services',
  'local-policy-node-ports',
  /** Session affinity. */
  'sticky-services',
  'sticky-node-ports',
  ...kinds.flatMap((kind) => classes.map((size) => classSet(kind, size))),
  /** Nobody is there. */
  'refused-services',
  'refused-node-ports',
  /** Nobody is there on this node. */
  'dropped-services',
  'dropped-node-ports',
  /** Load balancer addresses with loadBalancerSourceRanges, and the sources they admit. */
  'firewalled-services',
  /** The same, to count whom they keep out; only where that is counted. */
  'barred-services',
  'source-ranges',
  /** A local endpoint and itself: a connection that came back to where it started. */
  'hairpin-connections',
  /** Every cluster address. */
  'cluster-ips',
  /** Addresses node ports answer on, unless all do. */
  'node-port-ips',
] as const;

const mapNames = [
  /** Services that remember their clients, and for how long. */
  'affinity-services',
  'affinity-node-ports',
  /** Address, protocol, port and slot to endpoint. */
  'endpoints',
  /** Protocol, node port and slot to endpoint. */
  'node-port-endpoints',
] as const;

/** Which endpoint a client had; filled by packets. */
export const affinityMap = 'affinity';

export type ProxySet = (typeof setNames)[number] | (typeof mapNames)[number];

/** All whose elements are ours to write, in the order of deletion. */
export const proxySetNames: readonly ProxySet[] = [...setNames, ...mapNames];

const empty: ReadonlySet<string> = new Set();
const noEntries: ReadonlyMap<string, string> = new Map();

/**
 * Sets that are asked once for each new connection to a Service, and those that are asked for each
 * packet to where nobody is.
 */
export const countingSets = [
  'plain-services',
  'special-services',
  'special-node-ports',
  'refused-services',
  'refused-node-ports',
  'dropped-services',
  'dropped-node-ports',
  'barred-services',
] as const satisfies readonly ProxySet[];

export const countingMaps = [
  'endpoints',
  'node-port-endpoints',
] as const satisfies readonly ProxySet[];

/** The table's sets, with counters where these are asked for. */
export function proxySets(family: Family, counters: NftablesCounters = 'none'): ElementSet[] {
  const types = keyTypes(family);
  const typeOf = (name: ProxySet): string => {
    if (name === 'cluster-ips' || name === 'node-port-ips') return types.address;
    if (name === 'hairpin-connections') return `${types.address} . ${types.front}`;
    if (name === 'source-ranges') return `${types.front} . ${types.address}`;
    return name.includes('node-ports') ? types.port : types.front;
  };
  return setNames
    .filter((name) => counters !== 'none' || name !== 'barred-services')
    .map((name) => ({
      name,
      type: typeOf(name),
      interval: name === 'source-ranges',
      elements: empty,
      ...(counters !== 'none' && countingSets.some((set) => set === name)
        ? { declaration: { counter: true } }
        : {}),
    }));
}

/** The table's maps, with counters where these are asked for. */
export function proxyMaps(family: Family, counters: NftablesCounters = 'none'): ElementMap[] {
  const types = keyTypes(family);
  const target = `${types.address} . inet_service`;
  const key = `${family} daddr . meta l4proto . th dport . numgen random mod 2`;
  const portKey = 'meta l4proto . th dport . numgen random mod 2';
  // Not "th dport": nft 1.0.6 could then read no script while the table is there.
  const value = `${family} daddr . tcp dport`;
  const counting = counters === 'endpoints' ? { counter: true } : {};
  // "integer" has no width of its own in nft's types: it wants the expression.
  const slots = (name: string, of: Pick<ElementMap, 'type' | 'declaration'>): ElementMap => {
    return { name, ...of, valueType: target, interval: false, elements: noEntries };
  };
  const verdicts = (name: string, type: string): ElementMap => {
    return { name, type, valueType: 'verdict', interval: false, elements: noEntries };
  };
  return [
    slots('endpoints', {
      type: `${types.front} . integer`,
      declaration: { typeof: `${key} : ${value}`, ...counting },
    }),
    slots('node-port-endpoints', {
      type: `${types.port} . integer`,
      declaration: { typeof: `${portKey} : ${value}`, ...counting },
    }),
    verdicts('affinity-services', types.front),
    verdicts('affinity-node-ports', types.port),
    {
      name: affinityMap,
      type: `${types.front} . ${types.address}`,
      valueType: target,
      interval: false,
      elements: noEntries,
      declaration: { dynamic: { size: affinityClients } },
    },
  ];
}

interface KeyTypes {
  readonly address: string;
  readonly port: string;
  /** What clients ask for: address, protocol, port. */
  readonly front: string;
}

function keyTypes(family: Family): KeyTypes {
  const address = family === 'ip' ? 'ipv4_addr' : 'ipv6_addr';
  const port = 'inet_proto . inet_service';
  return { address, port, front: `${address} . ${port}` };
}
