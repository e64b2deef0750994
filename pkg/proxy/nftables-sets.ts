/**
 * The sets and maps of the nftables mode. Services and endpoints are elements and nothing else:
 * rules and chains do not grow with them.
 */
import type { Family } from '#pkg/ip/address.ts';
import type { ElementMap, ElementSet } from '#pkg/nftables/ruleset.ts';

/** Of the tables in `ip` and `ip6`. */
export const proxyTableName = 'podwire-proxy';

/** Clients that session affinity remembers at a time; the kernel's own default is a quarter. */
const affinityClients = 262_144;

/** Slots of endpoints on this node, for traffic of policy Local, start here. */
export const localSlots = 65_536;

export const setNames = [
  /** Every cluster address. */
  'cluster-ips',
  /** Addresses node ports answer on, unless all do. */
  'node-port-ips',
  /** A local endpoint and itself: a connection that came back to where it started. */
  'hairpin-connections',
  /** Load balancer addresses with loadBalancerSourceRanges, and the sources they admit. */
  'firewalled-services',
  'source-ranges',
] as const;

export const mapNames = [
  /** Where a Service's address leads, whoever asks. */
  'service-ips',
  /** The same for externalTrafficPolicy Local, by who asks. */
  'services-from-pods',
  'services-from-node',
  'services-from-outside',
  'node-ports',
  'node-ports-from-pods',
  'node-ports-from-node',
  'node-ports-from-outside',
  /** Address, protocol, port and slot to endpoint. */
  'endpoints',
  /** Protocol, node port and slot to endpoint. */
  'node-port-endpoints',
  'no-endpoint-services',
  'no-endpoint-node-ports',
  /** Services that remember their clients, and for how long. */
  'affinity-services',
  'affinity-node-ports',
] as const;

/** Which endpoint a client had; filled by packets. */
export const affinityMap = 'affinity';

export type ProxySet = (typeof setNames)[number];
export type ProxyMap = (typeof mapNames)[number];

const empty: ReadonlySet<string> = new Set();
const noEntries: ReadonlyMap<string, string> = new Map();

export function proxySets(family: Family): ElementSet[] {
  const types = keyTypes(family);
  const typeOf: Record<ProxySet, string> = {
    'cluster-ips': types.address,
    'node-port-ips': types.address,
    'hairpin-connections': `${types.address} . ${types.front}`,
    'firewalled-services': types.front,
    'source-ranges': `${types.front} . ${types.address}`,
  };
  return setNames.map((name) => ({
    name,
    type: typeOf[name],
    interval: name === 'source-ranges',
    elements: empty,
  }));
}

export function proxyMaps(family: Family): ElementMap[] {
  const types = keyTypes(family);
  const target = `${types.address} . inet_service`;
  const targetOf = `${family} daddr . th dport`;
  const maps = mapNames.map((name): ElementMap => {
    if (name === 'endpoints') {
      const key = `${family} daddr . meta l4proto . th dport . numgen random mod 2`;
      return slotMap(name, { type: types.front, valueType: target, typeof: `${key} : ${targetOf}` });
    }
    if (name === 'node-port-endpoints') {
      const key = 'meta l4proto . th dport . numgen random mod 2';
      return slotMap(name, { type: types.port, valueType: target, typeof: `${key} : ${targetOf}` });
    }
    const type = name.includes('node-port') ? types.port : types.front;
    return { name, type, valueType: 'verdict', interval: false, elements: noEntries };
  });
  const affinity: ElementMap = {
    name: affinityMap,
    type: `${types.front} . ${types.address}`,
    valueType: target,
    interval: false,
    elements: noEntries,
    declaration: { dynamic: { size: affinityClients } },
  };
  return [...maps, affinity];
}

function slotMap(
  name: string,
  of: { readonly type: string; readonly valueType: string; readonly typeof: string },
): ElementMap {
  return {
    name,
    // "integer" has no width of its own in nft's types: it wants the expression.
    type: `${of.type} . integer`,
    valueType: of.valueType,
    interval: false,
    elements: noEntries,
    declaration: { typeof: of.typeof },
  };
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
