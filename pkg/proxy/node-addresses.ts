/** Which addresses are this node's own, as kube-proxy's detectNodeIPs decides. */
import type { Family } from '#pkg/ip/address.ts';
import { canonicalAddress } from './address-text.ts';

export interface NodeAddresses {
  /** The family that matters when only one works here. */
  readonly primaryFamily: Family;
  /** By family, canonical; absent where nothing says one. */
  readonly byFamily: ReadonlyMap<Family, string>;
}

/**
 * The configured address comes first, for its family; then the Node object's, of which the first
 * decides the primary family. kube-proxy takes 127.0.0.1 and ::1 where nothing is known; nothing
 * follows from those.
 *
 * @param configured `bindAddress`, if it is none of the wildcards; canonical
 * @param ofNode the InternalIPs of the Node, in their order
 */
export function nodeAddresses(
  configured: string | undefined,
  ofNode: readonly string[],
): NodeAddresses {
  const byFamily = new Map<Family, string>();
  for (const text of [...(configured === undefined ? [] : [configured]), ...ofNode]) {
    const address = canonicalAddress(text);
    if (address === undefined) continue;
    const family = address.includes(':') ? 'ip6' : 'ip';
    if (!byFamily.has(family)) byFamily.set(family, address);
  }
  const [first] = byFamily.keys();
  return { primaryFamily: first ?? 'ip', byFamily };
}
