/** Reads what the pod network needs to know of this host's links. */
import { families } from '#pkg/ip/address.ts';
import { containsPrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { listAddresses, type LinkAddressRecord } from '#pkg/netlink/address.ts';
import { IP6_RT_PRIO_USER } from '#pkg/netlink/constants.ts';
import { listLinks } from '#pkg/netlink/link.ts';
import { routedLinkIndex } from '#pkg/netlink/route-lookup.ts';
import { listRoutes, type RouteEntry } from '#pkg/netlink/route.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { podwireAlias, podwireRouteProtocol } from '#pkg/host-network/object.ts';
import type { HostFacts } from '#pkg/pod-network/desired.ts';

/** rtm_protocol of a route from a router advertisement (include/uapi/linux/rtnetlink.h). */
const RTPROT_RA = 9;

/**
 * Every link with its addresses and what the main table reaches on it without a gateway, and which
 * of them routers advertise themselves on.
 */
export function observeHostLinks(
  socket: NetlinkSocket,
): Pick<HostFacts, 'links' | 'advertisedLinks' | 'defaultLinks' | 'routedLink'> {
  const addresses = new Map<number, Prefix[]>();
  const onLinkPrefixes = new Map<number, Prefix[]>();
  const usable = listAddresses(socket).filter(({ dadFailed }) => !dadFailed);
  // Those that last come first: whoever takes the first one shall not lose it by the day.
  const passes = (address: LinkAddressRecord): boolean => address.secondary || address.deprecated;
  for (const last of [false, true]) {
    for (const address of usable) {
      if (passes(address) === last) append(addresses, address.linkIndex, address.prefix);
    }
  }
  const advertised = new Set<number>();
  const routes: RouteEntry[] = [];
  for (const family of families) {
    for (const route of listRoutes(socket, { family })) {
      const { destination, linkIndex, protocol } = route;
      if (protocol !== podwireRouteProtocol) routes.push(route);
      if (protocol === RTPROT_RA && linkIndex !== undefined) advertised.add(linkIndex);
      // A default route without a gateway is a point-to-point line: it says nothing of neighbours.
      if (hasGateway(route) || linkIndex === undefined || destination.length === 0) continue;
      append(onLinkPrefixes, linkIndex, destination);
    }
  }
  const links = listLinks(socket);
  const nameOf = new Map(links.map(({ index, name }) => [index, name]));
  return {
    routedLink: (address) => nameOf.get(routedLinkIndex(socket, address) ?? 0),
    defaultLinks: routes
      .filter(({ destination }) => destination.length === 0)
      // Numbers of different families say nothing of each other.
      .toSorted((a, b) => familyRank(a) - familyRank(b) || metricOf(a) - metricOf(b))
      .flatMap(({ linkIndex = 0 }) => nameOf.get(linkIndex) ?? []),
    links: links.map(({ index, name, mtuBytes }) => ({
      name,
      mtuBytes,
      addresses: addresses.get(index) ?? [],
      onLinkPrefixes: onLinkPrefixes.get(index) ?? [],
      // When asked for: of hundreds of links one is, and there may be thousands of routes.
      get routedPrefixes() {
        return routedWithin(onLinkPrefixes.get(index) ?? [], routes, index);
      },
    })),
    // A pod on a bridge of ours is no router.
    advertisedLinks: links
      .filter(({ index, alias }) => advertised.has(index) && !alias?.startsWith(podwireAlias))
      .map(({ name }) => name),
  };
}

function hasGateway({ gateway, viaOtherFamily }: RouteEntry): boolean {
  return gateway !== undefined || viaOtherFamily === true;
}

function familyRank({ destination }: RouteEntry): number {
  return families.indexOf(destination.address.family);
}

/** A route without one has the kernel's own. */
function metricOf({ destination, metric }: RouteEntry): number {
  return metric ?? (destination.address.family === 'ip' ? 0 : IP6_RT_PRIO_USER);
}

/** Longer prefixes than those on the link, that do not go straight out of it. */
function routedWithin(
  onLink: readonly Prefix[],
  routes: readonly RouteEntry[],
  linkIndex: number,
): readonly Prefix[] {
  return routes
    .filter((route) => hasGateway(route) || route.linkIndex !== linkIndex)
    .map(({ destination }) => destination)
    .filter((prefix) =>
      onLink.some((outer) => outer.length < prefix.length && containsPrefix(outer, prefix)),
    );
}

function append(map: Map<number, Prefix[]>, key: number, prefix: Prefix): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [prefix]);
  else list.push(prefix);
}
