/** Which addresses this host has, where nobody but itself can tell. */
import type { Address } from '#pkg/ip/address.ts';
import { wishedLink, type LinkWishes } from '#pkg/overlay/link-choice.ts';
import { chooseUnderlay } from '#pkg/overlay/underlay.ts';
import type { ByFamily } from '#pkg/overlay/node-facts.ts';
import type { HostFacts } from './desired.ts';

/**
 * The addresses of the link wished for, or of the one with the default route; what is wrong when
 * there is none.
 *
 * @param before what they were: each stays while the link has it
 */
export function ownAddresses(
  host: Pick<HostFacts, 'links' | 'defaultLinks' | 'routedLink'>,
  wishes: LinkWishes,
  before: ByFamily<Address> = {},
): ByFamily<Address> | string {
  const wished = wishedLink(host.links, wishes, host.routedLink ?? (() => undefined));
  if (typeof wished === 'string') return wished;
  const link = wished?.link ?? host.defaultLinks?.[0];
  if (link === undefined) {
    return 'Cannot choose a link: there is no default route; name one in the configuration (iface)';
  }
  const underlay = chooseUnderlay(host.links, {
    internalIPs: [],
    link,
    announced: Object.values(before),
  });
  if (typeof underlay === 'string') return underlay;
  if (Object.keys(underlay.addresses).length > 0) return underlay.addresses;
  return `Cannot use link ${link}: it has no address`;
}
