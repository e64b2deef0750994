/**
 * A pod on a link of its own, without a bridge. The pod has its address alone (/32, /128) and the
 * gateway on the link; the host has the gateway's address on every such link and a route to each
 * pod. Both ends know each other's MAC address from the start and never ask: no ARP, no neighbour
 * discovery, no duplicate address detection. A pod that reaches itself by its Service is routed
 * back like any other.
 */
import { addressPlus, formatAddress, sameAddress, type Address } from '#pkg/ip/address.ts';
import {
  defaultPrefix,
  familyOf,
  formatPrefix,
  hostPrefix,
  networkOf,
  samePrefix,
} from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import type { CniAddRequest } from '#pkg/cni/plugin.ts';
import type { CniIp, CniResult, CniRoute } from '#pkg/cni/result.ts';
import { addAddressRequest, listAddresses } from '#pkg/netlink/address.ts';
import { RT_SCOPE_LINK } from '#pkg/netlink/constants.ts';
import { changeLinkRequest, deleteLink } from '#pkg/netlink/link-change.ts';
import { createVeth } from '#pkg/netlink/link-create.ts';
import { getLink, type Link } from '#pkg/netlink/link.ts';
import { putNeighborRequest } from '#pkg/netlink/neighbor.ts';
import { addRouteRequest, appendRouteRequest, listRoutes } from '#pkg/netlink/route.ts';
import { NetlinkSocket, type NetlinkRequest } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { hostLinkAlias, hostLinkMac, hostLinkName } from '#plugins/main/attachment-link.ts';
import type { BridgeConfig } from '#plugins/main/bridge-config.ts';
import { enableForwarding } from '#plugins/main/bridge-device.ts';
import { checkRoute, wrong } from '#plugins/main/pod-check.ts';
import { describeLink, routeRequests, setPodSysctls } from '#plugins/main/pod-link.ts';
import { waitUntilRunning } from '#plugins/main/wait-link.ts';
import { openPodNetns } from '#plugins/pod-netns.ts';
import type { AttachmentRecord } from './attachment-record.ts';

export interface RoutedPod {
  readonly request: CniAddRequest;
  /** For `mtu`, `isDefaultGateway` and `dns`, which mean the same here. */
  readonly bridge: Pick<BridgeConfig, 'mtuBytes' | 'isDefaultGateway' | 'dns'>;
  readonly mac: string;
  readonly addresses: CniResult;
  /** Gets what takes it all back. */
  readonly undo: DisposableStack;
}

/** @throws {AgentError} the first refusal of the kernel */
export function addRouted(system: CniSystem, pod: RoutedPod): CniResult {
  const { request, bridge, addresses, undo } = pod;
  const { ifName } = request;
  const ips = addresses.ips.map(onItsOwn);
  using netns = openPodNetns(request.netns);
  using host = new NetlinkSocket(system.sys);
  using inside = withNetns(system.sys, netns.fd, () => new NetlinkSocket(system.sys), system.die);
  if (getLink(inside, ifName) !== undefined) {
    throw new CniError(
      cniCode.invalidEnvironment,
      `container veth name (${ifName}) already exists in ${request.netns}`,
    );
  }
  enableForwarding(ips.map(({ gateway }) => hostPrefix(gateway)));
  const name = hostLinkName(request);
  const hostLink = createVeth(host, {
    mtuBytes: bridge.mtuBytes ?? defaultMtuBytes,
    host: {
      name,
      mac: hostLinkMac(request),
      alias: hostLinkAlias(request.config.name, request),
      up: false,
    },
    peer: { name: ifName, netnsFd: netns.fd, mac: pod.mac },
  });
  undo.defer(() => {
    // A socket of its own: ours is closed when the caller undoes.
    using again = new NetlinkSocket(system.sys);
    deleteLink(again, name);
  });
  const podLink = requireLink(inside, ifName);
  const families = new Set(ips.map(({ address }) => familyOf(address)));
  withNetns(system.sys, netns.fd, () => setPodSysctls(ifName, { families }), system.die);
  refuseRouters(name);
  const routes = bridge.isDefaultGateway
    ? withDefaultRoutes(addresses.routes, ips)
    : addresses.routes;
  send(inside, podRequests(podLink, hostLinkMac(request), ips));
  // The configuration may have the very same route twice.
  send(inside, routeRequests(routes, ips, podLink.index), 'EEXIST');
  send(host, hostRequests(hostLink, pod.mac, ips));
  waitUntilRunning(host, name);
  waitUntilRunning(inside, ifName);
  return {
    interfaces: [describeLink(hostLink), { ...describeLink(podLink), sandbox: request.netns }],
    ips: ips.map((ip) => ({ ...ip, interfaceIndex: podInterfaceIndex })),
    routes,
    dns: bridge.dns ?? addresses.dns,
  };
}

/** @throws {AgentError} that names the first thing that is not as ADD left it */
export function checkRouted(
  system: CniSystem,
  request: CniAddRequest,
  { record, result }: { readonly record: AttachmentRecord; readonly result: CniResult },
): void {
  using host = new NetlinkSocket(system.sys);
  using netns = openPodNetns(request.netns);
  using inside = withNetns(system.sys, netns.fd, () => new NetlinkSocket(system.sys), system.die);
  const hostLink = getLink(host, record.hostLink);
  if (hostLink?.up !== true) throw wrong(`${record.hostLink} is missing or down`);
  const podLink = getLink(inside, request.ifName);
  if (podLink?.up !== true) throw wrong(`interface ${request.ifName} is missing or down`);
  if (podLink.mac !== record.mac) {
    throw wrong(`interface ${request.ifName} has MAC ${podLink.mac}, not ${record.mac}`);
  }
  const present = listAddresses(inside, { linkIndex: podLink.index });
  for (const { address } of record.addresses) {
    const own = hostPrefix(address);
    if (!present.some(({ prefix }) => samePrefix(prefix, own))) {
      throw wrong(`address ${formatPrefix(own)} is missing on ${request.ifName}`);
    }
    const routes = listRoutes(host, { family: address.family });
    if (!routes.some((r) => samePrefix(r.destination, own) && r.linkIndex === hostLink.index)) {
      throw wrong(`the host's route to ${formatAddress(address)} is missing`);
    }
  }
  for (const route of result.routes) checkRoute(inside, route);
}

/** Ethernet's, which a link without an MTU of its own gets from the kernel. */
const defaultMtuBytes = 1500;

const podInterfaceIndex = 1;

interface OwnIp extends CniIp {
  readonly gateway: Address;
}

/** The address without its subnet: all other pods are beyond the gateway. */
function onItsOwn({ address, gateway }: CniIp): OwnIp {
  return {
    address: hostPrefix(address.address),
    gateway: gateway ?? addressPlus(networkOf(address).address, 1),
  };
}

function hostRequests(link: Link, mac: string, ips: readonly OwnIp[]): NetlinkRequest[] {
  const linkIndex = link.index;
  return [
    ...distinctGateways(ips).map((gateway) =>
      addAddressRequest({
        linkIndex,
        prefix: hostPrefix(gateway),
        noDad: true,
        // Every link has this address: a route to it by one of them would be none to the others.
        noPrefixRoute: true,
      }),
    ),
    // After the pod's end (see NewVeth), and before the routes: there are none by a link that is down.
    changeLinkRequest(linkIndex, { up: true }),
    ...ips.flatMap(({ address }) => [
      putNeighborRequest({ linkIndex, address: address.address, mac }),
      addRouteRequest({ destination: address, linkIndex, scope: RT_SCOPE_LINK }),
    ]),
  ];
}

function podRequests(link: Link, hostMac: string, ips: readonly OwnIp[]): NetlinkRequest[] {
  const linkIndex = link.index;
  return [
    ...ips.map(({ address }) => addAddressRequest({ linkIndex, prefix: address, noDad: true })),
    changeLinkRequest(linkIndex, { up: true }),
    ...distinctGateways(ips).flatMap((gateway) => [
      putNeighborRequest({ linkIndex, address: gateway, mac: hostMac }),
      // Another interface of the pod in the same network has it, too.
      appendRouteRequest({ destination: hostPrefix(gateway), linkIndex, scope: RT_SCOPE_LINK }),
    ]),
  ];
}

function withDefaultRoutes(
  routes: readonly CniRoute[],
  ips: readonly OwnIp[],
): readonly CniRoute[] {
  const all = [...routes];
  for (const { address, gateway } of ips) {
    const destination = defaultPrefix(familyOf(address));
    if (!all.some((route) => samePrefix(route.destination, destination))) {
      all.push({ destination, gateway });
    }
  }
  return all;
}

function distinctGateways(ips: readonly OwnIp[]): readonly Address[] {
  return ips
    .map(({ gateway }) => gateway)
    .filter((gateway, i, all) => all.findIndex((other) => sameAddress(other, gateway)) === i);
}

/** A router advertisement that a pod sends must not change the host's routes. */
function refuseRouters(link: string): void {
  const setting = `net/ipv6/conf/${link}/accept_ra`;
  if (readSysctl(setting) !== undefined) writeSysctl(setting, '0');
}

/** @param tolerated the code of errors that are none */
function send(
  socket: NetlinkSocket,
  requests: readonly NetlinkRequest[],
  tolerated?: string,
): void {
  for (const { error } of socket.batch(requests)) {
    if (error !== undefined && error.code !== tolerated) throw error;
  }
}

function requireLink(socket: NetlinkSocket, name: string): Link {
  const link = getLink(socket, name);
  if (link !== undefined) return link;
  throw new CniError(cniCode.internal, `Cannot find ${name}: it was just made`);
}
