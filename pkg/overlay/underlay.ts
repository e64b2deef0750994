/** Which of the host's links carries traffic between nodes, and which of its addresses is ours. */
import {
  families,
  formatAddress,
  sameAddress,
  type Address,
  type Family,
} from '#pkg/ip/address.ts';
import { containsAddress, parsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import type { Underlay } from './backend.ts';

/** A link of the host, as observed. */
export interface HostLink {
  readonly name: string;
  readonly mtuBytes: number;
  /** Its addresses with their prefix lengths, host bits kept; those that last before the others. */
  readonly addresses: readonly Prefix[];
  /** Destinations routed to it without a gateway. */
  readonly onLinkPrefixes: readonly Prefix[];
  /** Destinations within those that go another way: by a gateway, or by another link. */
  readonly routedPrefixes?: readonly Prefix[];
}

export interface UnderlayChoice {
  /** `status.addresses` of type InternalIP of our Node. */
  readonly internalIPs: readonly Address[];
  /** The link's name when the configuration gives one; undefined = the link with an InternalIP. */
  readonly link: string | undefined;
  /** By which others know this node now. */
  readonly announced?: readonly Address[];
}

/**
 * The link named, else the one that holds the Node's first InternalIP it can. Our address of each
 * family is an InternalIP on that link, else the one that others know, else its first address that is
 * not link-local: the kernel lists IPv6 addresses newest first, and one more must not make every node
 * send elsewhere. A link without any has the InternalIP of the loopback device, which routers know.
 * Returns what is wrong when there is no link.
 */
export function chooseUnderlay(
  links: readonly HostLink[],
  choice: UnderlayChoice,
): Underlay | string {
  const link =
    choice.link === undefined
      ? linkOfFirst(links, choice.internalIPs)
      : links.find(({ name }) => name === choice.link);
  const onLoopback = links.find(isLoopback)?.addresses.map(({ address }) => address) ?? [];
  if (link === undefined) return noLink(choice, onLoopback);
  const addresses: Partial<Record<Family, Address>> = {};
  for (const family of families) {
    const own = link.addresses.map(({ address }) => address).filter((a) => a.family === family);
    const preferred = [...choice.internalIPs, ...(choice.announced ?? [])];
    const chosen =
      preferred.find((a) => own.some((b) => sameAddress(a, b))) ??
      own.find((a) => !linkLocal.some((prefix) => containsAddress(prefix, a))) ??
      choice.internalIPs.find(
        (a) => a.family === family && onLoopback.some((b) => sameAddress(a, b)),
      );
    if (chosen !== undefined) addresses[family] = chosen;
  }
  const { name, mtuBytes, onLinkPrefixes, routedPrefixes = [] } = link;
  return { link: name, mtuBytes, addresses, onLinkPrefixes, routedPrefixes };
}

const linkLocal = [parsePrefix('169.254.0.0/16'), parsePrefix('fe80::/10')];

/** By which no packet leaves the host. */
function isLoopback({ name }: HostLink): boolean {
  return name === 'lo';
}

function linkOfFirst(
  links: readonly HostLink[],
  internalIPs: readonly Address[],
): HostLink | undefined {
  for (const address of internalIPs) {
    const link = links.find(
      (l) => !isLoopback(l) && l.addresses.some((p) => sameAddress(p.address, address)),
    );
    if (link !== undefined) return link;
  }
  return undefined;
}

function noLink({ link, internalIPs }: UnderlayChoice, onLoopback: readonly Address[]): string {
  if (link !== undefined) return `Cannot find link ${link}, which the configuration names`;
  if (internalIPs.length === 0) return 'Cannot choose a link: the Node has no InternalIP yet';
  const list = internalIPs.map(formatAddress).join(', ');
  if (internalIPs.some((a) => onLoopback.some((b) => sameAddress(a, b)))) {
    return `Cannot choose a link: ${list} of the Node are on lo, by which no packet leaves; name the link to other nodes in the configuration (iface)`;
  }
  return `Cannot choose a link: none has an InternalIP of the Node (${list})`;
}
