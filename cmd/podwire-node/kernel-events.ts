/** Which changes in the kernel concern the pod network: on a busy node most do not. */
import { podwireRouteProtocol } from '#pkg/host-network/object.ts';
import type { Address } from '#pkg/ip/address.ts';
import { containsAddress, type Prefix } from '#pkg/ip/prefix.ts';
import type { KernelChange, ObjectChange } from '#pkg/netlink/monitor.ts';

/** Names of links by index, remembered beyond a link's end. */
export interface LinkNames {
  /** The name now or at last; undefined for a link that went before anybody looked. */
  nameOf(index: number): string | undefined;
}

/**
 * Remembers what was there at first, what changes told, and what `lookUp` (a request to the kernel)
 * found.
 *
 * @param list all links: who gets another name is to be known by the one that the daemon uses
 */
export function createLinkNames(
  lookUp: (index: number) => string | undefined,
  list: () => Iterable<readonly [index: number, name: string]>,
): LinkNames & {
  /** To be told of every change of a link: names and indices are used again. */
  follow(change: KernelChange): void;
} {
  const all = (): Map<number, string> => {
    try {
      return new Map(list());
    } catch {
      // Where links come and go all the time it may fail: then each is asked for when it matters.
      return new Map();
    }
  };
  let names = all();
  const look = (index: number): string | undefined => {
    const name = lookUp(index);
    if (name !== undefined) names.set(index, name);
    return name;
  };
  return {
    nameOf: (index) => names.get(index) ?? look(index),
    follow: (change) => {
      if (change.kind === 'resync') names = all();
      if (change.kind !== 'link' || change.linkIndex === undefined) return;
      if (change.deleted) names.delete(change.linkIndex);
      else if (change.linkName !== undefined) names.set(change.linkIndex, change.linkName);
    },
  };
}

/** What the daemon wanted last. */
export interface KnownNetwork {
  /**
   * Our devices and the underlay; undefined while the daemon waits for one, when any link or address
   * may be what it waits for.
   */
  readonly watchedLinks: ReadonlySet<string> | undefined;
  hasRouteTo(destination: Prefix): boolean;
  /** The address by the way to which the underlay is chosen, where it is. */
  readonly canReach: Address | undefined;
}

/** Whether the kernel has to be read again. */
export function concernsPodNetwork(
  change: KernelChange,
  known: KnownNetwork,
  names: LinkNames,
): boolean {
  const { watchedLinks: watched } = known;
  switch (change.kind) {
    case 'resync':
      return true;
    case 'forwarding':
      return true;
    case 'route':
      return concernsRoutes(change, known, names);
    case 'link':
      if (watched === undefined) return true;
      // By the name it had at that moment, and by the one it was known by: it may be a new name.
      if (change.linkName !== undefined && watched.has(change.linkName)) return true;
      return isWatched(change.linkIndex, watched, names);
    case 'address':
      return watched === undefined || isWatched(change.linkIndex, watched, names);
    case 'neighbor':
      // The underlay's own ARP entries come and go all the time.
      return (
        watched !== undefined &&
        isWatched(change.linkIndex, watched, names) &&
        names.nameOf(change.linkIndex ?? 0)?.startsWith('podwire') === true
      );
  }
}

function concernsRoutes(
  { protocol, deleted, destination, gateway, linkIndex }: ObjectChange,
  known: KnownNetwork,
  names: LinkNames,
): boolean {
  if (protocol === podwireRouteProtocol) return true;
  if (destination === undefined) return false;
  // In the place of ours, which somebody changed and so made theirs, or beside it: IPv6 then takes both
  // in turn.
  if (!deleted && known.hasRouteTo(destination)) return true;
  const { canReach, watchedLinks = nothing } = known;
  if (canReach !== undefined && containsAddress(destination, canReach)) return true;
  // Who lies in it shares our L2. Those with a router may be a whole Internet's, and change often.
  return gateway === undefined && isWatched(linkIndex, watchedLinks, names);
}

const nothing: ReadonlySet<string> = new Set();

function isWatched(
  index: number | undefined,
  watched: ReadonlySet<string>,
  names: LinkNames,
): boolean {
  const name = index === undefined ? undefined : names.nameOf(index);
  return name !== undefined && watched.has(name);
}
