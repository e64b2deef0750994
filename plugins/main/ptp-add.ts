/** ADD of a pod on a wire of its own: all of it, or nothing. */
import { addressBits, type Address } from '#pkg/ip/address.ts';
import { familyOf, formatPrefix, hostPrefix, networkOf } from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readInteger } from '#pkg/cni/json-fields.ts';
import type { CniAddRequest } from '#pkg/cni/plugin.ts';
import type { CniIp, CniResult } from '#pkg/cni/result.ts';
import { addAddressRequest } from '#pkg/netlink/address.ts';
import { RT_SCOPE_HOST, RT_SCOPE_LINK } from '#pkg/netlink/constants.ts';
import { changeLinkRequest, deleteLink } from '#pkg/netlink/link-change.ts';
import { createVeth } from '#pkg/netlink/link-create.ts';
import { getLink, type Link } from '#pkg/netlink/link.ts';
import { addRouteRequest, type RouteEntry } from '#pkg/netlink/route.ts';
import { NetlinkSocket, type NetlinkRequest } from '#pkg/netlink/socket.ts';
import { withNetns, type Netns } from '#pkg/netns/netns.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { openPodNetns } from '#plugins/pod-netns.ts';
import { addressMac, hostLinkAlias, hostLinkMac, hostLinkName } from './attachment-link.ts';
import { enableForwarding } from './bridge-device.ts';
import { addMasquerade, parseMasquerade } from './ip-masquerade.ts';
import { parseIpamType, readDns, takeAddresses } from './ipam.ts';
import { configurePodLink, describeLink, setPodSysctls } from './pod-link.ts';
import { waitUntilRunning } from './wait-link.ts';

/** @throws {CniError} after everything it did is undone */
export function addPointToPoint(system: CniSystem, request: CniAddRequest): CniResult {
  const { config, ifName } = request;
  const mtuBytes = readInteger(config.fields, 'mtu', { min: 0, max: 65_535 }) ?? 0;
  const masquerade = parseMasquerade(config);
  const dns = readDns(config);
  using netns = openPodNetns(request.netns);
  using host = new NetlinkSocket(system.sys);
  using pod = withNetns(system.sys, netns.fd, () => new NetlinkSocket(system.sys), system.die);
  if (getLink(pod, ifName) !== undefined) {
    throw new CniError(
      cniCode.invalidEnvironment,
      `container veth name (${ifName}) already exists in ${request.netns}`,
    );
  }
  using undo = new DisposableStack();
  const addresses = takeAddresses(system, request, undo);
  if (addresses === undefined) {
    throw new CniError(cniCode.invalidConfig, 'Cannot use ptp configuration: it needs ipam.type');
  }
  const ips = addresses.ips.map((ip) => withGateway(ip, request));
  enableForwarding(ips.map(({ address, gateway }) => ({ ...address, address: gateway })));
  const hostLink = connect({ request, netns, host, ips, mtuBytes });
  undo.defer(() => deleteLink(host, hostLink.index));
  const podLink = getLink(pod, ifName);
  if (podLink === undefined) {
    throw new CniError(cniCode.internal, `Cannot find ${ifName}: it was just made`);
  }
  const families = new Set(ips.map(({ address }) => familyOf(address)));
  withNetns(system.sys, netns.fd, () => setPodSysctls(ifName, { families }), system.die);
  setHostSysctls(hostLink.name);
  const subnetRoutes = routesByGateway(ips, podLink.index);
  configurePodLink(pod, podLink.index, { ips, routes: addresses.routes, subnetRoutes });
  // The pod's end waits for a carrier until now: once it has one, the host knows the way back.
  connectHost(host, hostLink, ips);
  waitUntilRunning(host, hostLink.name);
  waitUntilRunning(pod, ifName);
  if (masquerade !== undefined) {
    const prefixes = ips.map(({ address }) => address);
    addMasquerade(system, { request, config: masquerade, prefixes, undo });
  }
  undo.move();
  const interfaces = [describeLink(hostLink), { ...describeLink(podLink), sandbox: request.netns }];
  return { interfaces, ips, routes: addresses.routes, dns: dns ?? addresses.dns };
}

/** An address of the pod, which is always the second interface of the result. */
type PodIp = CniIp & { readonly gateway: Address };

function withGateway(ip: CniIp, { config }: CniAddRequest): PodIp {
  const { gateway } = ip;
  if (gateway !== undefined) return { ...ip, gateway, interfaceIndex: 1 };
  throw new CniError(
    cniCode.invalidConfig,
    `Cannot route ${formatPrefix(ip.address)}: IPAM plugin "${parseIpamType(config)}" gave it no gateway`,
  );
}

function connect(context: {
  readonly request: CniAddRequest;
  readonly netns: Netns;
  readonly host: NetlinkSocket;
  readonly ips: readonly PodIp[];
  readonly mtuBytes: number;
}): Link {
  const { request, netns, host, ips, mtuBytes } = context;
  const name = hostLinkName(request);
  if (getLink(host, name) !== undefined) {
    throw new CniError(
      cniCode.invalidEnvironment,
      `Cannot create ${name}: it exists already; ${request.containerId} was added before and not deleted`,
    );
  }
  const [first] = ips;
  return createVeth(host, {
    mtuBytes: mtuBytes === 0 ? defaultMtuBytes : mtuBytes,
    host: {
      name,
      mac: hostLinkMac(request),
      alias: hostLinkAlias(request.config.name, request),
      up: false,
    },
    peer: {
      name: request.ifName,
      netnsFd: netns.fd,
      ...(first === undefined ? {} : { mac: addressMac(first.address.address) }),
    },
  });
}

/** Ethernet's, which a link without an MTU of its own gets from the kernel. */
const defaultMtuBytes = 1500;

function setHostSysctls(name: string): void {
  // A router advertisement that a pod sends must not change the host's routes. And the host asks
  // for pods from its link-local address, which must not wait a second for nobody to have it.
  for (const setting of ['accept_ra', 'accept_dad']) {
    const path = `net/ipv6/conf/${name}/${setting}`;
    if (readSysctl(path) !== undefined) writeSysctl(path, '0');
  }
}

/**
 * Brings the host's end up, after the pod's (see NewVeth). It answers for the gateway on each wire,
 * and knows the way to each pod.
 */
function connectHost(host: NetlinkSocket, { index }: Link, ips: readonly PodIp[]): void {
  const gateways = new Map(ips.map(({ gateway }) => [gateway.value, gateway]));
  send(host, [
    ...gateways
      .values()
      .map((gateway) =>
        addAddressRequest({ linkIndex: index, prefix: hostPrefix(gateway), noDad: true }),
      ),
    // Not later: the kernel takes no route by a link that is down.
    changeLinkRequest(index, { up: true }),
    ...ips.map(({ address }) =>
      addRouteRequest({
        destination: hostPrefix(address.address),
        linkIndex: index,
        ...(address.address.family === 'ip' ? { scope: RT_SCOPE_HOST } : {}),
      }),
    ),
  ]);
}

/** What is on the pod's wire is the gateway alone; the rest of its subnet is behind that. */
function routesByGateway(ips: readonly PodIp[], linkIndex: number): readonly RouteEntry[] {
  return ips.flatMap(({ address, gateway }) => {
    const { address: source } = address;
    const whole = address.length === addressBits(source.family);
    return [
      { destination: hostPrefix(gateway), linkIndex, source, scope: RT_SCOPE_LINK },
      ...(whole ? [] : [{ destination: networkOf(address), linkIndex, gateway, source }]),
    ];
  });
}

function send(socket: NetlinkSocket, requests: readonly NetlinkRequest[]): void {
  for (const { error } of socket.batch(requests)) if (error !== undefined) throw error;
}
