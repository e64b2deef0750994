/**
 * Addresses that people set for a node by its annotations, under flannel's names (flannel
 * Documentation/kubernetes.md, "Annotations"): which of the host's own it uses, and which one others
 * send to where that is another, behind NAT.
 */
import { tryParseAddress, type Address, type Family } from '#pkg/ip/address.ts';
import type { Announcement } from './annotations.ts';
import type { ByFamily } from './node-facts.ts';

export interface AddressWishes {
  /** In place of the Node's InternalIPs, when there is one. */
  readonly local: ByFamily<Address>;
  /** Announced in place of the local one. */
  readonly announced: ByFamily<Address>;
  /** What is wrong with an annotation, which then says nothing. */
  readonly problems: readonly string[];
}

const keys = [
  ['local', 'ip', 'node-public-ip'],
  ['local', 'ip6', 'node-public-ipv6'],
  ['announced', 'ip', 'public-ip-overwrite'],
  ['announced', 'ip6', 'public-ipv6-overwrite'],
] as const;

/** Reads the four annotations of our own Node. */
export function parseAddressWishes(
  annotations: Readonly<Record<string, string>>,
  prefix: string,
): AddressWishes {
  const wishes = { local: {}, announced: {} } as Record<
    'local' | 'announced',
    Partial<Record<Family, Address>>
  >;
  const problems: string[] = [];
  for (const [kind, family, key] of keys) {
    const text = annotations[prefix + key];
    if (text === undefined || text === '') continue;
    const address = tryParseAddress(text);
    if (address?.family === family) wishes[kind][family] = address;
    else {
      const expected = family === 'ip' ? 'IPv4' : 'IPv6';
      problems.push(
        `Cannot use annotation ${prefix}${key} ${JSON.stringify(text)}: expected an ${expected} address`,
      );
    }
  }
  return { ...wishes, problems };
}

/** The announcements with the addresses that others are to use. */
export function announceAs(
  announcements: ByFamily<Announcement>,
  announced: ByFamily<Address>,
): ByFamily<Announcement> {
  return Object.fromEntries(
    Object.entries(announcements).map(([family, announcement]) => {
      const publicIP = announced[family as Family] ?? announcement.publicIP;
      return [family, { ...announcement, publicIP }];
    }),
  );
}
