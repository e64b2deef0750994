/** The pod's side of an attachment: addresses, routes and settings inside its namespace. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { Address, Family } from '#pkg/ip/address.ts';
import type { CniIp, CniRoute } from '#pkg/cni/result.ts';
import { addAddressRequest } from '#pkg/netlink/address.ts';
import { changeLinkRequest } from '#pkg/netlink/link-change.ts';
import { addRouteRequest, type RouteEntry } from '#pkg/netlink/route.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';

/**
 * Settings that must be made before the interface comes up. Runs inside the pod's namespace.
 *
 * @param families of the addresses it is going to have
 */
export function setPodSysctls(ifName: string, families: ReadonlySet<Family>): void {
  setIfKnown(`net/ipv4/conf/${ifName}/arp_notify`, '1');
  // Addresses come from our own book: looking for duplicates costs a second and finds none.
  setIfKnown(`net/ipv6/conf/${ifName}/accept_dad`, '0');
  if (!families.has('ip6')) return;
  for (const link of ['lo', ifName]) setIfKnown(`net/ipv6/conf/${link}/disable_ipv6`, '0');
  setIfKnown(`net/ipv6/conf/${ifName}/keep_addr_on_down`, '1');
}

/**
 * Gives the pod's interface its addresses, brings it up, adds its routes: one send to the kernel.
 *
 * @throws {NetlinkError} the first refusal; a route that is there already is none
 */
export function configurePodLink(
  pod: NetlinkSocket,
  linkIndex: number,
  { ips, routes }: { readonly ips: readonly CniIp[]; readonly routes: readonly CniRoute[] },
): void {
  const setUp = pod.batch([
    ...ips.map(({ address }) =>
      addAddressRequest({
        linkIndex,
        prefix: address,
        noDad: true,
        broadcast: address.address.family === 'ip',
      }),
    ),
    changeLinkRequest(linkIndex, { up: true }),
  ]);
  for (const { error } of setUp) if (error !== undefined) throw error;
  const added = pod.batch(
    routes.map((route) => addRouteRequest(routeEntry(route, ips, linkIndex))),
  );
  for (const { error } of added) {
    if (error !== undefined && !isErrno(error, 'EEXIST')) throw error;
  }
}

/** A route without a gateway of its own takes that of the first address of its family. */
function routeEntry(route: CniRoute, ips: readonly CniIp[], linkIndex: number): RouteEntry {
  const { destination, priority, table, scope, mtuBytes, advmssBytes } = route;
  const gateway = route.gateway ?? firstGateway(ips, destination.address.family);
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
  if (readSysctl(path) !== undefined) writeSysctl(path, value);
}
