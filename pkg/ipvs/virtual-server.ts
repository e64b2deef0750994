/**
 * The noun of this vocabulary: virtual servers of the kernel's IPVS (net/netfilter/ipvs), as data.
 * Addresses are canonical text.
 */
import type { Family } from '#pkg/ip/address.ts';

export type IpvsProtocol = 'tcp' | 'udp' | 'sctp';

export interface VirtualServer {
  readonly family: Family;
  readonly protocol: IpvsProtocol;
  readonly address: string;
  readonly port: number;
  /** The kernel's name: "rr", "mh". */
  readonly scheduler: string;
  /** Of the scheduler, as ipvsadm names them: "mh-port". */
  readonly flags: string;
  /** How long a client stays with its real server; 0 = no affinity. */
  readonly persistenceSeconds: number;
  readonly realServers: readonly RealServer[];
  /** What else it was found to be told, by ipvsadm's options: "-M 255.255.255.0 -o". Never wanted. */
  readonly foreign?: string;
}

/** Reached by NAT ("masquerading" in ipvsadm's words). */
export interface RealServer {
  readonly address: string;
  readonly port: number;
  /** 0 = takes no new connections: it is leaving, and those it has go on. */
  readonly weight: number;
  /** What else it was found to be told: "-g" for not by NAT. Never wanted. */
  readonly foreign?: string;
}

/** How ipvsadm names a virtual server: "-t 10.96.0.1:80". Also its identity. */
export function serverKey(server: Pick<VirtualServer, 'protocol' | 'address' | 'port'>): string {
  return `${protocolOptions[server.protocol]} ${endpointText(server)}`;
}

const protocolOptions = { tcp: '-t', udp: '-u', sctp: '--sctp-service' } as const;

/** "10.0.0.1:80", "[fd00::1]:80" */
export function endpointText(of: { readonly address: string; readonly port: number }): string {
  return of.address.includes(':') ? `[${of.address}]:${of.port}` : `${of.address}:${of.port}`;
}
