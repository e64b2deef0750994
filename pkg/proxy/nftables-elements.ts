/** What one Service port is in the sets and maps of the nftables mode. */
import { containsAddress, containsPrefix, formatPrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { addressBits, formatAddress, parseAddress } from '#pkg/ip/address.ts';
import type { Endpoint } from './endpoints.ts';
import { rememberName } from './nftables-affinity.ts';
import type { NftablesOptions } from './nftables-options.ts';
import { classSet, localSlots, type ProxySet } from './nftables-sets.ts';
import type { ProxiedPort } from './proxied-port.ts';

/** A set's element, whose value is '', or a map's. Both texts are canonical nft. */
export interface ProxyElement {
  readonly set: ProxySet;
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
  /** Somebody may answer: else the elements say what becomes of who asks. */
  readonly isServed: boolean;
}

export interface PortElements {
  readonly frontends: readonly Frontend[];
  /** Elements that other ports may want as well: they stay while one does. */
  readonly shared: readonly ProxyElement[];
}

/** The port's elements in the table's sets and maps. */
export function elementsOf(port: ProxiedPort, options: NftablesOptions): PortElements {
  const frontends = new Map<string, Frontend>();
  // The first of equal addresses wins, as the first of equal rules does.
  const put = (frontend: Frontend): void => {
    if (!frontends.has(frontend.key)) frontends.set(frontend.key, frontend);
  };
  const vip = (address: string): Place => ({
    what: 'services',
    key: `${address} . ${port.protocol} . ${port.port}`,
  });
  put(internalFrontend(port, vip(port.clusterIP)));
  for (const ip of port.externalIPs) put(externalFrontend(port, vip(ip)));
  const admitted = admittedSources(port, options);
  for (const ip of port.loadBalancerIPs) {
    const frontend = externalFrontend(port, vip(ip));
    const { elements, key } = frontend;
    put({ ...frontend, elements: [...elements, ...firewallElements(key, admitted, options)] });
  }
  if (port.nodePort !== 0) {
    const key = `${port.protocol} . ${port.nodePort}`;
    put(externalFrontend(port, { what: 'node-ports', key }));
  }
  return { frontends: [...frontends.values()], shared: sharedElements(port) };
}

/** The keys of a port's frontends: what clients ask for. */
export function frontendKeys(port: ProxiedPort): string[] {
  const addresses = [port.clusterIP, ...port.externalIPs, ...port.loadBalancerIPs];
  const keys = addresses.map((address) => `${address} . ${port.protocol} . ${port.port}`);
  if (port.nodePort !== 0) keys.push(`${port.protocol} . ${port.nodePort}`);
  return [...new Set(keys)];
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
  readonly what: 'services' | 'node-ports';
  readonly key: string;
}

function internalFrontend(port: ProxiedPort, place: Place): Frontend {
  const { cluster, hasAny, local } = port.endpoints;
  const endpoints = port.internalPolicy === 'Local' ? local : cluster;
  const { key } = place;
  if (!hasAny || endpoints.length === 0) return unserved(port, place);
  const head: ProxyElement[] =
    port.affinitySeconds === 0
      ? [{ set: 'plain-services', key, value: '' }]
      : [{ set: 'special-services', key, value: '' }, ...affinity(port, place)];
  return { key, elements: [...head, ...served(place, endpoints, false)], isServed: true };
}

function externalFrontend(port: ProxiedPort, place: Place): Frontend {
  const { cluster, hasAny, local } = port.endpoints;
  const { key, what } = place;
  if (!hasAny) return unserved(port, place);
  // Policy Cluster: any node may take the packet, so the reply must come back through this one.
  const policy = port.externalPolicy === 'Local' ? 'local-policy' : 'masqueraded';
  const elements: ProxyElement[] = [
    { set: `special-${what}`, key, value: '' },
    { set: `${policy}-${what}`, key, value: '' },
    ...affinity(port, place),
    ...served(place, cluster, false),
  ];
  if (policy === 'masqueraded') return { key, elements, isServed: true };
  const rest = local.length === 0 ? [nobody(port, place)] : served(place, local, true);
  return { key, elements: [...elements, ...rest], isServed: true };
}

function unserved(port: ProxiedPort, place: Place): Frontend {
  return { key: place.key, elements: [nobody(port, place)], isServed: false };
}

/** The class, and a slot for each endpoint. */
function served(
  { what, key }: Place,
  endpoints: readonly Endpoint[],
  local: boolean,
): ProxyElement[] {
  const reached = endpoints.slice(0, localSlots);
  const kind = local ? (`local-${what}` as const) : what;
  const map = what === 'services' ? 'endpoints' : 'node-port-endpoints';
  const first = local ? localSlots : 0;
  return [
    { set: classSet(kind, reached.length), key, value: '' },
    ...reached.map(({ address, port }, i): ProxyElement => {
      return { set: map, key: `${key} . ${first + i}`, value: `${address} . ${port}` };
    }),
  ];
}

/**
 * The answer when no endpoint may be used: REJECT when there is none anywhere, so that clients fail
 * at once; DROP when only this node has none, so that a load balancer tries another node.
 */
function nobody(port: ProxiedPort, { what, key }: Place): ProxyElement {
  return { set: port.endpoints.hasAny ? `dropped-${what}` : `refused-${what}`, key, value: '' };
}

function affinity(port: ProxiedPort, { what, key }: Place): ProxyElement[] {
  if (port.affinitySeconds === 0) return [];
  return [
    { set: `sticky-${what}`, key, value: '' },
    { set: `affinity-${what}`, key, value: `jump ${rememberName(port.affinitySeconds)}` },
  ];
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

function firewallElements(
  key: string,
  admitted: readonly Prefix[],
  { counters }: NftablesOptions,
): ProxyElement[] {
  if (admitted.length === 0) return [];
  const counting = [{ set: 'barred-services', key, value: '' }] as const;
  return [
    { set: 'firewalled-services', key, value: '' },
    ...(counters === 'none' ? [] : counting),
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
