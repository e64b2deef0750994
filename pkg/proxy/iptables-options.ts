/** What the iptables renderer must know besides Services. */
import type { Family } from '#pkg/ip/address.ts';
import type { LocalDetector } from './local-detector.ts';

/**
 * How a packet finds its Service. `compatible`: as in kube-proxy, chain KUBE-SERVICES has a rule for
 * each Service address and a packet is compared with one after the other. `tree`: KUBE-SERVICES
 * jumps by the destination's bits through chains KUBE-SVT-… to a few rules. All other chains are the
 * same in both.
 */
export type IptablesLayout = 'compatible' | 'tree';

export interface IptablesOptions {
  readonly family: Family;
  readonly layout: IptablesLayout;
  /** Which bit of the packet mark asks for masquerade, 0-31. */
  readonly masqueradeBit: number;
  readonly masqueradeAll: boolean;
  readonly localDetector: LocalDetector;
  /** Node ports answer on 127.0.0.1 (IPv4 only; needs net.ipv4.conf.all.route_localnet). */
  readonly localhostNodePorts: boolean;
  /** Addresses node ports answer on, canonical; 'all' = every address of the host. */
  readonly nodePortAddresses: 'all' | readonly string[];
  /** The node's own address in this family, canonical; for loadBalancerSourceRanges. */
  readonly nodeAddress: string | undefined;
  /** The iptables here knows MASQUERADE --random-fully. */
  readonly randomFully: boolean;
  /** net.netfilter.nf_conntrack_tcp_be_liberal is set: no packet is INVALID by its window. */
  readonly conntrackLiberal: boolean;
}

/** "0x4000": the mark, and the mask of the only bit we look at and change. */
export function masqueradeMark(options: IptablesOptions): string {
  return `0x${(2 ** options.masqueradeBit).toString(16)}`;
}

/** Node ports on 127.0.0.1 as far as they can work: never in IPv6, and only if admitted. */
export function servesLocalhost(options: IptablesOptions): boolean {
  if (options.family !== 'ip' || !options.localhostNodePorts) return false;
  const { nodePortAddresses } = options;
  return nodePortAddresses === 'all' || nodePortAddresses.some((a) => a.startsWith('127.'));
}
