/** ADD of a pod to a bridge: all of it, or nothing. */
import { addressPlus } from '#pkg/ip/address.ts';
import { defaultPrefix, familyOf, networkOf, samePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import type { CniAddRequest } from '#pkg/cni/plugin.ts';
import { emptyDns, type CniIp, type CniResult, type CniRoute } from '#pkg/cni/result.ts';
import { changeBridgePort, deleteLink } from '#pkg/netlink/link-change.ts';
import { getLink, type Link } from '#pkg/netlink/link.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { openOwnNetns, withNetns, type Netns } from '#pkg/netns/netns.ts';
import { LOCK_EX, LOCK_SH } from '#pkg/sys/constants.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { openPodNetns } from '#plugins/pod-netns.ts';
import { addressMac, hostLinkAlias, hostLinkMac, hostLinkName } from './attachment-link.ts';
import { parseBridgeConfig, type BridgeConfig } from './bridge-config.ts';
import {
  enableForwarding,
  ensureBridge,
  ensureGateway,
  revertBridge,
  type BridgeWish,
} from './bridge-device.ts';
import { bringUp, createPodVeth, type BridgePort } from './bridge-port.ts';
import {
  ensureVlanGateway,
  requireVlanFiltering,
  revertVlanGateway,
  setPortVlans,
  usesVlans,
} from './bridge-vlans.ts';
import { addMasquerade } from './ip-masquerade.ts';
import { takeAddresses } from './ipam.ts';
import { addSpoofCheck } from './mac-spoof-check.ts';
import { configurePodLink, describeLink, setPodSysctls } from './pod-link.ts';
import { settleAddresses } from './settle-addresses.ts';
import { waitUntilRunning } from './wait-link.ts';

/** @throws {CniError} after everything it did is undone */
export function addToBridge(system: CniSystem, request: CniAddRequest): CniResult {
  const config = parseBridgeConfig(request);
  using netns = openPodNetns(request.netns);
  using host = new NetlinkSocket(system.sys);
  using pod = withNetns(system.sys, netns.fd, () => new NetlinkSocket(system.sys), system.die);
  if (getLink(pod, request.ifName) !== undefined) {
    throw new CniError(
      cniCode.invalidEnvironment,
      `container veth name (${request.ifName}) already exists in ${request.netns}`,
    );
  }
  using undo = new DisposableStack();
  const addresses = addAddresses(system, { request, config, undo });
  const bridge = attach(system, { request, config, addresses, netns, host, undo });
  const podLink = bridge.podLink ?? requirePodLink(pod, request);
  if (config.macSpoofCheck && podLink.mac !== undefined) {
    const { name: hostLink } = bridge.hostLink;
    addSpoofCheck(system, { request, hostLink, mac: podLink.mac, undo });
  }
  if (!config.disableContainerInterface) {
    const { duplicateAddressDetection } = config;
    const families = new Set(addresses.ips.map(({ address }) => familyOf(address)));
    const settings = { families, duplicateAddressDetection };
    withNetns(system.sys, netns.fd, () => setPodSysctls(request.ifName, settings), system.die);
    configurePodLink(pod, podLink.index, { ...addresses, duplicateAddressDetection });
  }
  const { bridgeLink, hostLink } = bringUp(host, bridge);
  if (!config.disableContainerInterface) {
    if (!hostLink.running) waitUntilRunning(host, hostLink.name);
    waitUntilRunning(pod, request.ifName);
    if (config.duplicateAddressDetection) settleAddresses(pod, podLink.index);
  }
  if (config.masquerade !== undefined) {
    const prefixes = addresses.ips.map(({ address }) => address);
    addMasquerade(system, { request, config: config.masquerade, prefixes, undo });
  }
  undo.move();
  return resultOf(request, addresses, [bridgeLink, bridge.hostLink, podLink]);
}

/** The pod's end, as far as an ADD has to know it. */
type PodLink = Pick<Link, 'index' | 'name' | 'mac' | 'mtuBytes'>;

function requirePodLink(pod: NetlinkSocket, { ifName }: CniAddRequest): PodLink {
  const link = getLink(pod, ifName);
  if (link !== undefined) return link;
  throw new CniError(cniCode.internal, `Cannot find ${ifName}: it was just made`);
}

/** What the pod gets, with the gateways and routes that the bridge adds. */
type Addresses = Pick<CniResult, 'ips' | 'routes' | 'dns'>;

interface AddContext {
  readonly request: CniAddRequest;
  readonly config: BridgeConfig;
  /** Runs backwards unless ADD comes to its end. */
  readonly undo: DisposableStack;
}

function addAddresses(system: CniSystem, { request, config, undo }: AddContext): Addresses {
  const { dns } = config;
  const result = takeAddresses(system, request, undo);
  if (result === undefined) return { ips: [], routes: [], dns: dns ?? emptyDns };
  const ips = result.ips.map((ip) => ({
    ...ip,
    gateway: ip.gateway ?? (config.isGateway ? firstHost(ip.address) : undefined),
    interfaceIndex: podInterfaceIndex,
  }));
  const routes = config.isDefaultGateway ? withDefaultRoutes(result.routes, ips) : result.routes;
  return { ips, routes, dns: dns ?? result.dns };
}

interface AttachContext extends AddContext {
  readonly addresses: Addresses;
  readonly netns: Netns;
  readonly host: NetlinkSocket;
}

/**
 * Makes the bridge if need be, and the pair of links, both down. While that lasts the host's namespace is
 * locked shared; who takes a new bridge back locks it exclusively, so that none is deleted that
 * another pod is just joining. flock(2) on the namespace's own file needs no file of ours, and the
 * kernel unlocks it when the process dies.
 *
 * @returns the pod's end unless only the kernel knows its MAC
 */
function attach(
  system: CniSystem,
  { request, config, addresses, netns, host, undo }: AttachContext,
): BridgePort & { readonly podLink?: PodLink } {
  const { sys } = system;
  const gateways = gatewaysOf(config, addresses);
  const wish = bridgeWish(config, gateways);
  using lock = openOwnNetns();
  sys.flock(lock.fd, LOCK_SH);
  const { link, created } = ensureBridge(host, wish);
  const revert = (gateway?: Prefix): void =>
    revertLocked(system, () => revertBridge(host, link, gateway));
  if (created) undo.defer(() => revert());
  if (usesVlans(config)) requireVlanFiltering(link);
  const gatewayLink =
    gateways.length === 0 || config.vlan === undefined
      ? link
      : vlanGateway(system, { host, config: { ...config, vlan: config.vlan }, bridge: link, undo });
  for (const gateway of gateways) {
    const added = ensureGateway(host, { link: gatewayLink, gateway, force: config.forceAddress });
    if (added && gatewayLink === link) undo.defer(() => revert(gateway));
  }
  enableForwarding(gateways);
  const mac = config.mac ?? firstMac(addresses.ips);
  const name = hostLinkName(request);
  const mtuBytes = config.mtuBytes ?? defaultMtuBytes;
  const hostLink = createPodVeth(host, request, {
    mtuBytes,
    host: {
      name,
      mac: hostLinkMac(request),
      masterIndex: link.index,
      hairpin: config.hairpin,
      alias: hostLinkAlias(request.config.name, request),
      up: false,
    },
    peer: {
      name: request.ifName,
      netnsFd: netns.fd,
      ...(mac === undefined ? {} : { mac }),
    },
  });
  undo.defer(() => deleteLink(host, name));
  setPortVlans(host, hostLink.index, config);
  if (config.portIsolation) changeBridgePort(host, name, { isolated: true });
  const { peerIndex: index } = hostLink;
  if (mac === undefined || index === undefined) return { bridgeLink: link, hostLink };
  return { bridgeLink: link, hostLink, podLink: { index, name: request.ifName, mac, mtuBytes } };
}

/** The host's own interface in the pod's VLAN. */
function vlanGateway(
  system: CniSystem,
  context: Pick<AttachContext, 'host' | 'undo'> & {
    readonly config: BridgeConfig & { readonly vlan: number };
    readonly bridge: Link;
  },
): Link {
  const { host, config, bridge, undo } = context;
  const { link, created } = ensureVlanGateway(host, bridge, config);
  if (created) {
    undo.defer(() => revertLocked(system, () => revertVlanGateway(host, bridge, link)));
  }
  return link;
}

function revertLocked(system: CniSystem, revert: () => void): void {
  using lock = openOwnNetns();
  system.sys.flock(lock.fd, LOCK_EX);
  revert();
}

/** Ethernet's, which a link without an MTU of its own gets from the kernel. */
const defaultMtuBytes = 1500;

const podInterfaceIndex = 2;

function resultOf(
  request: CniAddRequest,
  addresses: Addresses,
  [bridge, host, pod]: readonly [Link, Link, PodLink],
): CniResult {
  const interfaces = [
    describeLink(bridge),
    describeLink(host),
    { ...describeLink(pod), sandbox: request.netns },
  ];
  return { ...addresses, interfaces };
}

/** What the bridge is to answer to, with the length of each subnet. */
function gatewaysOf(config: BridgeConfig, { ips }: Addresses): readonly Prefix[] {
  if (!config.isGateway) return [];
  return ips.flatMap(({ address, gateway }) =>
    gateway === undefined ? [] : [{ address: gateway, length: address.length }],
  );
}

function bridgeWish(config: BridgeConfig, [first]: readonly Prefix[]): BridgeWish {
  return {
    name: config.bridge,
    mac: first === undefined ? randomMac() : addressMac(first.address),
    mtuBytes: config.mtuBytes,
    promiscuous: config.promiscuous,
    vlanFiltering: usesVlans(config),
  };
}

/** Of a bridge without an address, that other machines may share a wire with: unicast, local. */
function randomMac(): string {
  const byte = (): string =>
    Math.floor(Math.random() * 256)
      .toString(16)
      .padStart(2, '0');
  return ['0e', byte(), byte(), byte(), byte(), byte()].join(':');
}

function firstMac([first]: readonly CniIp[]): string | undefined {
  return first === undefined ? undefined : addressMac(first.address.address);
}

function firstHost(subnet: Prefix): CniIp['gateway'] {
  return addressPlus(networkOf(subnet).address, 1);
}

/** A default route for each family that has a gateway and no default route with one already. */
function withDefaultRoutes(
  routes: readonly CniRoute[],
  ips: readonly CniIp[],
): readonly CniRoute[] {
  const all = [...routes];
  for (const { address, gateway } of ips) {
    const destination = defaultPrefix(familyOf(address));
    const there = all.some(
      (r) => samePrefix(r.destination, destination) && r.gateway !== undefined,
    );
    if (!there && gateway !== undefined) all.push({ destination, gateway });
  }
  return all;
}
