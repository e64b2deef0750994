/** The endpoints of Service ports, gathered from all EndpointSlices of one family. */
import { formatAddress, type Family } from '#pkg/ip/address.ts';
import type { EndpointRecord, EndpointSliceRecord } from '#pkg/kube/types.ts';
import { addressFromApi, formatEndpoint } from './address-text.ts';
import { isPort, printName, transportProtocol, type TransportProtocol } from './service-port.ts';

export interface Endpoint {
  /** "ip:port", canonical: what rules, comments and chain names are made from. */
  readonly target: string;
  /** Canonical text. */
  readonly address: string;
  readonly port: number;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  /** On this node. */
  readonly local: boolean;
  readonly zoneHints: readonly string[];
  readonly nodeHints: readonly string[];
}

export interface EndpointIndex {
  /** The endpoints of a Service port, sorted by target; empty when it has none. */
  readonly of: (port: {
    readonly printName: string;
    readonly protocol: TransportProtocol;
  }) => readonly Endpoint[];
  readonly problems: readonly { readonly slice: EndpointSliceRecord; readonly problem: string }[];
}

/**
 * Merges the slices of each Service. One target may be in two slices while a pod moves between
 * them, or as an ending pod beside its successor: the entry that is not terminating wins.
 */
export function indexEndpoints(
  slices: Iterable<EndpointSliceRecord>,
  family: Family,
  nodeName: string,
): EndpointIndex {
  const merged = new Map<string, Map<string, Endpoint>>();
  const problems: { slice: EndpointSliceRecord; problem: string }[] = [];
  const addressType = family === 'ip' ? 'IPv4' : 'IPv6';
  for (const slice of slices) {
    if (slice.addressType !== addressType || slice.serviceName === '') continue;
    for (const port of slice.ports) {
      // A slice without a port number means "all ports", which no Service port can.
      if (port.port === 0) continue;
      if (!isPort(port.port)) {
        problems.push({ slice, problem: `port ${port.port} is outside 1-65535` });
        continue;
      }
      const service = { namespace: slice.namespace, name: slice.serviceName };
      const key = portKey(printName(service, port.name), transportProtocol(port.protocol));
      let targets = merged.get(key);
      if (targets === undefined) merged.set(key, (targets = new Map<string, Endpoint>()));
      for (const record of slice.endpoints) {
        const endpoint = endpointOf(record, port.port, family, nodeName);
        if (endpoint === undefined) {
          problems.push({
            slice,
            problem: `endpoint ${JSON.stringify(record.address)} is no ${addressType} address`,
          });
          continue;
        }
        const other = targets.get(endpoint.target);
        if (other === undefined || other.terminating) targets.set(endpoint.target, endpoint);
      }
    }
  }
  const sorted = new Map<string, readonly Endpoint[]>();
  for (const [key, targets] of merged) sorted.set(key, [...targets.values()].toSorted(byTarget));
  return { of: (port) => sorted.get(portKey(port.printName, port.protocol)) ?? [], problems };
}

/** Byte order, as kube-proxy sorts: it decides which endpoint gets which probability. */
export function byTarget(a: Endpoint, b: Endpoint): number {
  return a.target < b.target ? -1 : a.target > b.target ? 1 : 0;
}

function endpointOf(
  record: EndpointRecord,
  port: number,
  family: Family,
  nodeName: string,
): Endpoint | undefined {
  const parsed = addressFromApi(record.address);
  if (parsed?.family !== family) return undefined;
  const address = formatAddress(parsed);
  return {
    target: formatEndpoint(address, port),
    address,
    port,
    ready: record.ready,
    serving: record.serving,
    terminating: record.terminating,
    local: record.nodeName !== '' && record.nodeName === nodeName,
    zoneHints: record.zoneHints,
    nodeHints: record.nodeHints,
  };
}

function portKey(name: string, protocol: TransportProtocol): string {
  return `${name}/${protocol}`;
}
