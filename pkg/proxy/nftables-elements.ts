/** What one Service port is in the sets and maps of the nftables mode. */
import { containsAddress, containsPrefix, formatPrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { addressBits, formatAddress, parseAddress } from '#pkg/ip/address.ts';
import type { Endpoint } from './endpoints.ts';
import { dispatchName, rejectChain, rememberName, type Dispatch } from './nftables-dispatch.ts';
import type { NftablesOptions } from './nftables-options.ts';
import { localSlots, type ProxyMap, type ProxySet } from './nftables-sets.ts';
import type { ProxiedPort } from './proxied-port.ts';

/** A set's element, whose value is '', or a map's. Both texts are canonical nft. */
export interface ProxyElement {
  readonly set: ProxySet | ProxyMap;
  readonly key: string;
  readonly value: string;
}

/**
 * What belongs together: an address and port, or node port, that clients ask for. Two Services may
 * claim the same one (an external address); then one of them has it whole.
 */
export interface Frontend {
  /** "10.96.0.10 . tcp . 80", "tcp . 30080" */
  readonly key: string;
  readonly elements: readonly ProxyElement[];
}

export interface PortElements {
  readonly frontends: readonly Frontend[];
  /** Elements that other ports may want as well: they stay while one does. */
  readonly shared: readonly ProxyElement[];
}

export function elementsOf(port: ProxiedPort, options: NftablesOptions): PortElements {
  const frontends = new Map<string, Frontend>();
  // The first of equal addresses wins, as the first of equal rules does.
  const put = (frontend: Frontend): void => {
    if (!frontends.has(frontend.key)) frontends.set(frontend.key, frontend);
  };
  const vip = (address: string): Place => ({
    by: 'vip',
    key: `${address} . ${port.protocol} . ${port.port}`,
  });
  put(internalFrontend(port, vip(port.clusterIP)));
  for (const ip of port.externalIPs) put(externalFrontend(port, vip(ip)));
  const admitted = admittedSources(port, options);
  for (const ip of port.loadBalancerIPs) {
    const { key, elements } = externalFrontend(port, vip(ip));
    put({ key, elements: [...elements, ...firewallElements(key, admitted)] });
  }
  if (port.nodePort !== 0) {
    const key = `${port.protocol} . ${port.nodePort}`;
    put(externalFrontend(port, { by: 'node-port', key }));
  }
  return { frontends: [...frontends.values()], shared: sharedElements(port) };
}

/** What the table has whatever the Services. */
export function commonElements({ nodePortAddresses }: NftablesOptions): ProxyElement[] {
  if (nodePortAddresses === 'all') return [];
  return nodePortAddresses
    .filter((ip) => ip !== '::1' && !ip.startsWith('127.'))
    .map((key) => ({ set: 'node-port-ips', key, value: '' }));
}

/** The on-demand chain that an element leads to. */
export function chainOf({ value }: Pick<ProxyElement, 'value'>): string | undefined {
  return /^(?:goto|jump) (.+)$/.exec(value)?.[1];
}

interface Place {
  readonly by: Dispatch['by'];
  readonly key: string;
}

const maps = {
  vip: {
    all: 'service-ips',
    pods: 'services-from-pods',
    node: 'services-from-node',
    outside: 'services-from-outside',
    slots: 'endpoints',
    none: 'no-endpoint-services',
    affinity: 'affinity-services',
  },
  'node-port': {
    all: 'node-ports',
    pods: 'node-ports-from-pods',
    node: 'node-ports-from-node',
    outside: 'node-ports-from-outside',
    slots: 'node-port-endpoints',
    none: 'no-endpoint-node-ports',
    affinity: 'affinity-node-ports',
  },
} as const;

function internalFrontend(port: ProxiedPort, place: Place): Frontend {
  const { cluster, hasAny, local } = port.endpoints;
  const endpoints = port.internalPolicy === 'Local' ? local : cluster;
  if (!hasAny || endpoints.length === 0) return { key: place.key, elements: nobody(port, place) };
  const elements = [
    ...lead(port, place, { map: 'all', masquerade: false, local: false, endpoints }),
    ...slots(place, endpoints, 0),
    ...affinity(port, place),
  ];
  return { key: place.key, elements };
}

function externalFrontend(port: ProxiedPort, place: Place): Frontend {
  const { cluster, hasAny, local } = port.endpoints;
  if (!hasAny) return { key: place.key, elements: nobody(port, place) };
  const shared = [...slots(place, cluster, 0), ...affinity(port, place)];
  if (port.externalPolicy === 'Cluster') {
    // Any node may take the packet, so the reply must come back through this one.
    const all = { map: 'all', masquerade: true, local: false, endpoints: cluster } as const;
    return { key: place.key, elements: [...lead(port, place, all), ...shared] };
  }
  const pods = { map: 'pods', masquerade: false, local: false, endpoints: cluster } as const;
  // The node's source may be the external address itself, hence masqueraded.
  const node = { map: 'node', masquerade: true, local: false, endpoints: cluster } as const;
  const outside = { map: 'outside', masquerade: false, local: true, endpoints: local } as const;
  const elements = [
    ...lead(port, place, pods),
    ...lead(port, place, node),
    ...shared,
    ...(local.length === 0
      ? nobody(port, place)
      : [...lead(port, place, outside), ...slots(place, local, localSlots)]),
  ];
  return { key: place.key, elements };
}

function lead(
  port: ProxiedPort,
  { by, key }: Place,
  to: {
    readonly map: 'all' | 'pods' | 'node' | 'outside';
    readonly masquerade: boolean;
    readonly local: boolean;
    readonly endpoints: readonly Endpoint[];
  },
): ProxyElement[] {
  const count = to.endpoints.length;
  const sticky = port.affinitySeconds > 0;
  const name = dispatchName({ by, sticky, count, masquerade: to.masquerade, local: to.local });
  return count === 0 ? [] : [{ set: maps[by][to.map], key, value: `goto ${name}` }];
}

function slots(
  { by, key }: Place,
  endpoints: readonly Endpoint[],
  first: number,
): readonly ProxyElement[] {
  return endpoints.map(({ address, port }, i) => ({
    set: maps[by].slots,
    key: `${key} . ${first + i}`,
    value: `${address} . ${port}`,
  }));
}

/**
 * The answer when no endpoint may be used: REJECT when there is none anywhere, so that clients fail
 * at once; DROP when only this node has none, so that a load balancer tries another node.
 */
function nobody(port: ProxiedPort, { by, key }: Place): ProxyElement[] {
  const value = port.endpoints.hasAny ? 'drop' : `goto ${rejectChain}`;
  return [{ set: maps[by].none, key, value }];
}

function affinity(port: ProxiedPort, { by, key }: Place): ProxyElement[] {
  if (port.affinitySeconds === 0) return [];
  return [{ set: maps[by].affinity, key, value: `jump ${rememberName(port.affinitySeconds)}` }];
}

function sharedElements(port: ProxiedPort): ProxyElement[] {
  const hairpin = port.endpoints.reachable
    .filter((endpoint) => endpoint.local)
    .map((e): ProxyElement => {
      const key = `${e.address} . ${e.address} . ${port.protocol} . ${e.port}`;
      return { set: 'hairpin-connections', key, value: '' };
    });
  return [{ set: 'cluster-ips', key: port.clusterIP, value: '' }, ...hairpin];
}

function firewallElements(key: string, admitted: readonly Prefix[]): ProxyElement[] {
  if (admitted.length === 0) return [];
  return [
    { set: 'firewalled-services', key, value: '' },
    ...admitted.map((prefix): ProxyElement => {
      return { set: 'source-ranges', key: `${key} . ${rangeText(prefix)}`, value: '' };
    }),
  ];
}

/** Sources that may reach the load balancer's addresses; empty = all. */
function admittedSources(port: ProxiedPort, options: NftablesOptions): readonly Prefix[] {
  if (!port.endpoints.hasAny || port.sourceRanges.length === 0) return [];
  const ranges = [...port.sourceRanges];
  const node = options.nodeAddress === undefined ? undefined : parseAddress(options.nodeAddress);
  // The node may own the load balancer's address and then uses it as the source towards it.
  if (node !== undefined && ranges.some((range) => containsAddress(range, node))) {
    const length = addressBits(options.family);
    ranges.push(...port.loadBalancerIPs.map((ip) => ({ address: parseAddress(ip), length })));
  }
  // The kernel takes no element that overlaps another.
  return ranges.filter(
    (range, i) =>
      !ranges.some(
        (other, j) =>
          i !== j && containsPrefix(other, range) && (other.length < range.length || j < i),
      ),
  );
}

/** As nft lists it: a range of one address is that address. */
function rangeText(prefix: Prefix): string {
  const whole = prefix.length === addressBits(prefix.address.family);
  return whole ? formatAddress(prefix.address) : formatPrefix(prefix);
}
