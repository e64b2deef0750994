/** kube-proxy's names for per-service chains; tools and people grep for them. */
import { hash } from 'node:crypto';
import type { TransportProtocol } from './service-port.ts';

export interface ServiceChainNames {
  /** KUBE-SVC-: picks among the endpoints of policy Cluster. */
  readonly cluster: string;
  /** KUBE-SVL-: picks among the endpoints of policy Local. */
  readonly local: string;
  /** KUBE-EXT-: entry for node ports, external and load balancer addresses. */
  readonly external: string;
  /** KUBE-FW-: admits loadBalancerSourceRanges. */
  readonly firewall: string;
}

/** kube-proxy's names for the chains of a Service port. */
export function serviceChainNames(
  printName: string,
  protocol: TransportProtocol,
): ServiceChainNames {
  const hash = hash16(printName + protocol);
  return {
    cluster: `KUBE-SVC-${hash}`,
    local: `KUBE-SVL-${hash}`,
    external: `KUBE-EXT-${hash}`,
    firewall: `KUBE-FW-${hash}`,
  };
}

/** KUBE-SEP-: sends to one endpoint of one Service port. */
export function endpointChainName(
  printName: string,
  protocol: TransportProtocol,
  target: string,
): string {
  return `KUBE-SEP-${hash16(printName + protocol + target)}`;
}

export const treeChainPrefix = 'KUBE-SVT-';

/** KUBE-SVT-: dispatches what goes to a prefix, in the layout `tree`. */
export function treeChainName(prefix: string): string {
  // An IPv6 prefix may be too long, and has characters that nft takes in no name.
  return `${treeChainPrefix}${prefix.includes(':') ? hash16(prefix) : prefix}`;
}

/**
 * The first 16 characters of base32(sha256): 80 bits, since a chain name has 28 characters at most
 * (XT_EXTENSION_MAXNAMELEN - 1 in linux/netfilter/x_tables.h).
 */
function hash16(text: string): string {
  const digest = hash('sha256', text, 'buffer');
  let name = '';
  for (let bit = 0; bit < 80; bit += 5) {
    const pair = ((digest[bit >> 3] ?? 0) << 8) | (digest[(bit >> 3) + 1] ?? 0);
    name += base32.charAt((pair >> (11 - (bit & 7))) & 31);
  }
  return name;
}

/** RFC 4648 §6. */
const base32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
