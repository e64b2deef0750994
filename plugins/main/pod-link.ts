/** The pod's side of an attachment: addresses, routes and settings inside its namespace. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { Address, Family } from '#pkg/ip/address.ts';
import type { CniInterface, CniIp, CniRoute } from '#pkg/cni/result.ts';
import { addAddressRequest } from '#pkg/netlink/address.ts';
import { RT_SCOPE_LINK } from '#pkg/netlink/constants.ts';
import { changeLinkRequest } from '#pkg/netlink/link-change.ts';
import type { Link } from '#pkg/netlink/link.ts';
import { appendRouteRequest, type RouteEntry } from '#pkg/netlink/route.ts';
import type { NetlinkRequest, NetlinkSocket } from '#pkg/netlink/socket.ts';
import { writeSysctl } from '#pkg/sysctl/sysctl.ts';

export interface PodSettings {
  /** Of the addresses the interface is going to have. */
  readonly families: ReadonlySet<Family>;
  /**
   * Look whether another host has an IPv6 address before it is used. It costs a second, and finds
   * nothing where addresses come from our own book.
   */
  readonly duplicateAddressDetection?: boolean;
}

/** Settings that must be made before the interface comes up. Runs inside the pod's namespace. */
export function setPodSysctls(ifName: string, settings: PodSettings): void {
  const { families, duplicateAddressDetection: dad = false } = settings;
  setIfKnown(`net/ipv4/conf/${ifName}/arp_notify`, '1');
  // Enhanced: the pod's own question that comes back over a hairpin port is no answer (RFC 7527).
  if (dad) setIfKnown(`net/ipv6/conf/${ifName}/enhanced_dad`, '1');
  setIfKnown(`net/ipv6/conf/${ifName}/accept_dad`, dad ? '1' : '0');
  // Who has no IPv6 address but the link-local one need not tell every port of the bridge of that.
  if (!families.has('ip6')) return;
  setIfKnown(`net/ipv6/conf/${ifName}/ndisc_notify`, '1');
  for (const link of ['lo', ifName]) setIfKnown(`net/ipv6/conf/${link}/disable_ipv6`, '0');
  setIfKnown(`net/ipv6/conf/${ifName}/keep_addr_on_down`, '1');
}

export interface PodConfiguration {
  readonly ips: readonly CniIp[];
  readonly routes: readonly CniRoute[];
  /** See PodSettings. */
  readonly duplicateAddressDetection?: boolean;
  /** How to reach the subnets; by default they are on the link, as the kernel has it. */
  readonly subnetRoutes?: readonly RouteEntry[];
}

/**
 * Gives the pod's interface its addresses, brings it up, adds its routes: one send to the kernel.
 *
 * @throws {NetlinkError} the first refusal; a route that is there already is none
 */
export function configurePodLink(
  pod: NetlinkSocket,
  linkIndex: number,
  configuration: PodConfiguration,
): void {
  const { ips, routes, subnetRoutes, duplicateAddressDetection: dad = false } = configuration;
  const setUp = [
    ...ips.map(({ address }) =>
      addAddressRequest({
        linkIndex,
        prefix: address,
        noDad: !dad,
        noPrefixRoute: subnetRoutes !== undefined,
        broadcast: address.address.family === 'ip',
      }),
    ),
    changeLinkRequest(linkIndex, { up: true }),
  ];
  const results = pod.batch([
    ...setUp,
    // Beside those of another interface of the pod in the same network.
    ...(subnetRoutes ?? []).map(appendRouteRequest),
    ...routeRequests(routes, ips, linkIndex),
  ]);
  for (const [i, { error }] of results.entries()) {
    const isRoute = i >= setUp.length;
    if (error !== undefined && !(isRoute && isErrno(error, 'EEXIST'))) throw error;
  }
}

/**
 * Adds the routes of a result; the very same is EEXIST. Others to the same destination stay: of
 * several ways the kernel spreads flows over those of IPv6, and of IPv4 goes from one to the next when
 * it is dead. So a pod's first interface keeps its default route when the second has one too.
 */
export function routeRequests(
  routes: readonly CniRoute[],
  ips: readonly CniIp[],
  linkIndex: number,
): NetlinkRequest[] {
  return routes.map((route) => appendRouteRequest(routeEntry(route, ips, linkIndex)));
}

/** A link as results name it. */
export function describeLink({
  name,
  mac,
  mtuBytes,
}: Pick<Link, 'name' | 'mac' | 'mtuBytes'>): CniInterface {
  return { name, ...(mac === undefined ? {} : { mac }), mtuBytes };
}

/**
 * A route without a gateway of its own takes that of the first address of its family, unless its
 * scope says that there is none.
 */
function routeEntry(route: CniRoute, ips: readonly CniIp[], linkIndex: number): RouteEntry {
  const { destination, priority, table, scope, mtuBytes, advmssBytes } = route;
  const isOnLink = scope !== undefined && scope >= RT_SCOPE_LINK;
  const byFamily = isOnLink ? undefined : firstGateway(ips, destination.address.family);
  const gateway = route.gateway ?? byFamily;
  return {
    destination,
    linkIndex,
    ...(gateway === undefined ? {} : { gateway }),
    ...(priority === undefined ? {} : { metric: priority }),
    ...(table === undefined ? {} : { table }),
    ...(scope === undefined ? {} : { scope }),
    ...(mtuBytes === undefined ? {} : { mtuBytes }),
    ...(advmssBytes === undefined ? {} : { advertisedMssBytes: advmssBytes }),
  };
}

function firstGateway(ips: readonly CniIp[], family: Family): Address | undefined {
  return ips.find((ip) => ip.address.address.family === family && ip.gateway !== undefined)
    ?.gateway;
}

function setIfKnown(path: string, value: string): void {
  try {
    writeSysctl(path, value);
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
}
