/** Names of the iptables chains that the reference plugins make for one container. */
import { referenceHash } from './reference-hash.ts';

/** What iptables allows a chain's name. */
const maxChainLength = 28;

/**
 * The reference's own name for a container's chain, so that each finds what the other made: "CNI-",
 * the kind, and the start of SHA-512 over network and container.
 *
 * @param kind "DN-" for host ports; "" for masquerading
 */
export function containerChainName(kind: string, network: string, containerId: string): string {
  const hash = referenceHash(`${network}${containerId}`);
  return `CNI-${kind}${hash}`.slice(0, maxChainLength);
}
