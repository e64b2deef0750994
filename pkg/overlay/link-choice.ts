/** Which link carries traffic between nodes, where people say so for many nodes at once. */
import { formatAddress, tryParseAddress, sameAddress, type Address } from '#pkg/ip/address.ts';
import type { HostLink } from './underlay.ts';

/** In the order of flannel's flags --iface, --iface-regex, --iface-can-reach: the first that fits. */
export interface LinkWishes {
  /** Names of links, or addresses on them. */
  readonly links: readonly string[];
  /** Regular expressions for whole names or addresses, or for parts of them. */
  readonly patterns: readonly string[];
  /** The link by which packets to this address leave. */
  readonly canReach: Address | undefined;
}

/**
 * The name of the first link that fits; undefined when nothing is wished for; what is wrong when
 * nothing fits.
 *
 * @param routedLink the link that packets to an address leave by
 */
export function wishedLink(
  links: readonly HostLink[],
  wishes: LinkWishes,
  routedLink: (address: Address) => string | undefined,
): { readonly link: string } | string | undefined {
  for (const wish of wishes.links) {
    const found = links.find((link) => link.name === wish || hasAddress(link, wish));
    if (found !== undefined) return { link: found.name };
  }
  for (const pattern of wishes.patterns) {
    const expression = new RegExp(pattern);
    const fits = ({ name, addresses }: HostLink): boolean =>
      [name, ...addresses.map(({ address }) => formatAddress(address))].some((text) =>
        expression.test(text),
      );
    const found = links.find(fits);
    if (found !== undefined) return { link: found.name };
  }
  if (wishes.canReach !== undefined) {
    const link = routedLink(wishes.canReach);
    if (link !== undefined) return { link };
  }
  const said = [
    ...wishes.links,
    ...wishes.patterns.map((pattern) => `/${pattern}/`),
    ...(wishes.canReach === undefined ? [] : [`a route to ${formatAddress(wishes.canReach)}`]),
  ];
  if (said.length === 0) return undefined;
  const there = links.map(({ name }) => name).join(', ');
  return `Cannot find a link: none is or has ${said.join(' or ')}, which the configuration asks for; there are ${there}`;
}

function hasAddress(link: HostLink, text: string): boolean {
  const wished = tryParseAddress(text);
  return wished !== undefined && link.addresses.some(({ address }) => sameAddress(address, wished));
}
