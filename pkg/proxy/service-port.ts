/**
 * One port of one Service in one address family: the unit every proxy mode works on. A dual-stack
 * Service with two ports is four of these.
 */
import { formatAddress, type Family } from '#pkg/ip/address.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';
import type { ServiceRecord } from '#pkg/kube/types.ts';
import { addressFromApi, canonicalAddress, prefixFromApi } from './address-text.ts';

export type TransportProtocol = 'tcp' | 'udp' | 'sctp';
export type TrafficPolicy = 'Cluster' | 'Local';

/** All addresses are canonical text: they are rendered far more often than compared. */
export interface ServicePort {
  readonly family: Family;
  readonly namespace: string;
  readonly name: string;
  readonly portName: string;
  /** "namespace/name:port", or "namespace/name" for the unnamed port. */
  readonly printName: string;
  readonly protocol: TransportProtocol;
  readonly clusterIP: string;
  readonly port: number;
  /** 0 = none. */
  readonly nodePort: number;
  readonly externalIPs: readonly string[];
  /** Load balancer addresses to serve here: those of ipMode VIP (KEP-1860). */
  readonly loadBalancerIPs: readonly string[];
  /** Empty = no restriction in this family. */
  readonly sourceRanges: readonly Prefix[];
  readonly internalPolicy: TrafficPolicy;
  readonly externalPolicy: TrafficPolicy;
  /** Seconds of ClientIP affinity; 0 = none. */
  readonly affinitySeconds: number;
  /** 0 = none; only for type LoadBalancer with externalTrafficPolicy Local. */
  readonly healthCheckNodePort: number;
}

/** What a Service amounts to for the proxy, and sentences about the parts that are unusable. */
export interface ServicePorts {
  readonly ports: readonly ServicePort[];
  readonly problems: readonly string[];
}

/**
 * The ports of a Service in one family; none for headless and ExternalName Services and for those
 * without a cluster address in this family. An unusable field costs only what depends on it.
 */
export function servicePorts(service: ServiceRecord, family: Family): ServicePorts {
  const clusterIP = clusterAddress(service, family);
  if (clusterIP === undefined)
    return { ports: [], problems: clusterAddressProblems(service, family) };
  const problems: string[] = [];
  if (![service.namespace, service.name].every((name) => safeName.test(name))) {
    return { ports: [], problems: [`its name cannot be written into rules`] };
  }
  const shared = sharedFields(service, family, problems);
  const ports = service.ports.flatMap((port): ServicePort[] => {
    if (!isPort(port.port) || (port.nodePort !== 0 && !isPort(port.nodePort))) {
      problems.push(`port ${JSON.stringify(port.name)} has a number outside 1-65535`);
      return [];
    }
    if (port.name !== '' && !safeName.test(port.name)) {
      problems.push(`port name ${JSON.stringify(port.name)} cannot be written into rules`);
      return [];
    }
    return [
      {
        ...shared,
        clusterIP,
        portName: port.name,
        printName: printName(service, port.name),
        protocol: transportProtocol(port.protocol),
        port: port.port,
        nodePort: port.nodePort,
      },
    ];
  });
  return { ports, problems };
}

/** kube-proxy's way to print a Service port; its hashes and comments are made from it. */
export function printName(
  service: { readonly namespace: string; readonly name: string },
  portName: string,
): string {
  const name = `${service.namespace}/${service.name}`;
  return portName === '' ? name : `${name}:${portName}`;
}

/** As iptables, nft and ipvsadm name it. */
export function transportProtocol(protocol: 'TCP' | 'UDP' | 'SCTP'): TransportProtocol {
  switch (protocol) {
    case 'TCP':
      return 'tcp';
    case 'UDP':
      return 'udp';
    case 'SCTP':
      return 'sctp';
  }
}

/** Whether it is a number from 1 to 65535. */
export function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 1 && port <= 65535;
}

/** Whether anything but the cluster address leads to the Service. */
export function isExternallyAccessible(port: ServicePort): boolean {
  return port.nodePort !== 0 || port.loadBalancerIPs.length > 0 || port.externalIPs.length > 0;
}

/**
 * Whether some traffic may go to any endpoint. With externalTrafficPolicy Local too: pods and the
 * node itself reach external addresses as if they had gone out to the load balancer and back.
 */
export function usesClusterEndpoints(port: ServicePort): boolean {
  return port.internalPolicy === 'Cluster' || isExternallyAccessible(port);
}

/** Whether some traffic may go to endpoints on this node only. */
export function usesLocalEndpoints(port: ServicePort): boolean {
  return (
    port.internalPolicy === 'Local' ||
    (port.externalPolicy === 'Local' && isExternallyAccessible(port))
  );
}

/**
 * Names go into rule text that another program parses. The API server admits only DNS labels; a
 * quote or newline from a server that does not check must not become a rule, nor a name that makes a
 * comment longer than the 255 bytes the kernel takes (xt_comment.h).
 */
const safeName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/** The API's own limit, one day. */
const maxAffinitySeconds = 86_400;

type SharedFields = Omit<
  ServicePort,
  'clusterIP' | 'portName' | 'printName' | 'protocol' | 'port' | 'nodePort'
>;

function sharedFields(service: ServiceRecord, family: Family, problems: string[]): SharedFields {
  const local = service.type === 'LoadBalancer' && service.externalTrafficPolicy === 'Local';
  const addresses = (field: string, texts: readonly string[]): string[] =>
    texts.flatMap((text) => {
      const address = addressFromApi(text);
      if (address === undefined) problems.push(`${field} ${JSON.stringify(text)} is no IP address`);
      return address?.family === family ? [formatAddress(address)] : [];
    });
  const vips = service.loadBalancerIngress.filter((i) => i.ipMode === 'VIP').map((i) => i.ip);
  return {
    family,
    namespace: service.namespace,
    name: service.name,
    externalIPs: addresses('externalIP', service.externalIPs),
    loadBalancerIPs: addresses('load balancer address', vips),
    sourceRanges: sourceRanges(service, family, problems),
    internalPolicy: service.internalTrafficPolicy,
    externalPolicy: service.externalTrafficPolicy,
    affinitySeconds: Math.min(maxAffinitySeconds, Math.max(0, service.affinitySeconds)),
    healthCheckNodePort:
      local && isPort(service.healthCheckNodePort) ? service.healthCheckNodePort : 0,
  };
}

/** A range of length 0 admits everybody, so it makes the whole list pointless. */
function sourceRanges(service: ServiceRecord, family: Family, problems: string[]): Prefix[] {
  const ranges = service.loadBalancerSourceRanges.flatMap((text) => {
    const prefix = prefixFromApi(text);
    if (prefix === undefined) {
      problems.push(`loadBalancerSourceRanges entry ${JSON.stringify(text)} is no CIDR`);
    }
    return prefix?.address.family === family ? [prefix] : [];
  });
  return ranges.some((range) => range.length === 0) ? [] : ranges;
}

function clusterAddress(service: ServiceRecord, family: Family): string | undefined {
  if (service.type === 'ExternalName') return undefined;
  const wanted = family === 'ip' ? 'IPv4' : 'IPv6';
  const text = service.clusterIPs.find((ip, i) => {
    const assigned = service.ipFamilies[i];
    if (assigned !== undefined && assigned !== wanted) return false;
    return addressFromApi(ip)?.family === family;
  });
  return text === undefined ? undefined : canonicalAddress(text);
}

function clusterAddressProblems(service: ServiceRecord, family: Family): string[] {
  // Reported once, not once per family.
  if (service.type === 'ExternalName' || family !== 'ip') return [];
  return service.clusterIPs
    .filter((ip) => ip !== '' && ip !== 'None' && addressFromApi(ip) === undefined)
    .map((ip) => `clusterIP ${JSON.stringify(ip)} is no IP address`);
}
