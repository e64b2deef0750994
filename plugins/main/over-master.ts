/**
 * What macvlan and ipvlan have in common: the pod's one interface shares a master. It lives and dies
 * with the pod's namespace, so that nothing of it is ever left on the host.
 */
import { familyOf } from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import type { CniAddRequest, CniRequest } from '#pkg/cni/plugin.ts';
import { emptyDns, type CniResult } from '#pkg/cni/result.ts';
import { podwireAlias } from '#pkg/host-network/object.ts';
import { changeLink, deleteLink } from '#pkg/netlink/link-change.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { NetlinkSocket, type NetlinkRequest } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { openPodNetns, openPodNetnsIfThere } from '#plugins/pod-netns.ts';
import { hostLinkAlias } from './attachment-link.ts';
import { readDns } from './ipam.ts';
import { findMaster, type OverMasterConfig } from './over-master-config.ts';
import { checkPod, requireAddResult, wrong } from './pod-check.ts';
import { configurePodLink, describeLink, setPodSysctls } from './pod-link.ts';
import { settleAddresses } from './settle-addresses.ts';

/** A kind of interface that shares a master. */
export interface OverMaster {
  readonly kind: 'macvlan' | 'ipvlan';
  readonly config: OverMasterConfig;
  /** The kernel's number of its mode. */
  readonly mode: number;
  /** Makes it, given the master's index and the pod's namespace. */
  readonly create: (masterIndex: number, netnsFd: number) => NetlinkRequest;
  /** What it gets; none for a layer 2 network. */
  readonly addresses: (undo: DisposableStack) => CniResult | undefined;
}

/** ADD: all of it, or nothing. */
export function addOverMaster(
  system: CniSystem,
  request: CniAddRequest,
  link: OverMaster,
): CniResult {
  const { ifName } = request;
  const dns = readDns(request.config);
  using netns = openPodNetns(request.netns);
  using host = new NetlinkSocket(system.sys);
  using pod = withNetns(system.sys, netns.fd, () => new NetlinkSocket(system.sys), system.die);
  if (getLink(pod, ifName) !== undefined) {
    throw new CniError(
      cniCode.invalidEnvironment,
      `container interface name (${ifName}) already exists in ${request.netns}`,
    );
  }
  const beside = link.config.linkInContainer ? pod : host;
  const master = findMaster(beside, link.config);
  using undo = new DisposableStack();
  const result = link.addresses(undo);
  const ips = (result?.ips ?? []).map((ip) => ({ ...ip, interfaceIndex: 0 }));
  const routes = result?.routes ?? [];
  beside.request(link.create(master.index, netns.fd));
  undo.defer(() => deleteLink(pod, ifName));
  const podLink = getLink(pod, ifName);
  if (podLink === undefined) {
    throw new CniError(cniCode.internal, `Cannot find ${ifName}: it was just made`);
  }
  changeLink(pod, podLink.index, { alias: hostLinkAlias(request.config.name, request) });
  const families = new Set(ips.map(({ address }) => familyOf(address)));
  // The master's network has other hosts, whose addresses are in no book of ours.
  const settings = { families, duplicateAddressDetection: true };
  withNetns(system.sys, netns.fd, () => setPodSysctls(ifName, settings), system.die);
  configurePodLink(pod, podLink.index, { ips, routes, duplicateAddressDetection: true });
  if (families.has('ip6')) settleAddresses(pod, podLink.index);
  undo.move();
  return {
    interfaces: [{ ...describeLink(podLink), sandbox: request.netns }],
    ips,
    routes,
    dns: dns ?? result?.dns ?? emptyDns,
  };
}

/**
 * Deletes the interface, if the namespace is still there. What else may be called CNI_IFNAME stays:
 * an ADD that failed because the name was taken is followed by a DEL.
 */
export function deleteOverMaster(
  system: CniSystem,
  request: CniRequest,
  kind: OverMaster['kind'],
): void {
  using netns = openPodNetnsIfThere(request.netns);
  if (netns === undefined) return;
  using pod = withNetns(system.sys, netns.fd, () => new NetlinkSocket(system.sys), system.die);
  const link = getLink(pod, request.ifName);
  if (link?.kind !== kind) return;
  const ours = hostLinkAlias(request.config.name, request);
  // Without an alias it is the reference plugin's, from before this one took its place.
  if (link.alias?.startsWith(podwireAlias) === true && link.alias !== ours) return;
  deleteLink(pod, link.index);
}

/** @throws {AgentError} that names the first thing that is not as ADD left it */
export function checkOverMaster(
  system: CniSystem,
  request: CniAddRequest,
  link: Omit<OverMaster, 'create' | 'addresses'>,
): void {
  const result = requireAddResult(request);
  using host = new NetlinkSocket(system.sys);
  using netns = openPodNetns(request.netns);
  using pod = withNetns(system.sys, netns.fd, () => new NetlinkSocket(system.sys), system.die);
  const podLink = checkPod(pod, { request, result, kind: link.kind });
  // One that is not named may have been another at ADD: the default route has changed since.
  if (link.config.master !== undefined) {
    const master = findMaster(link.config.linkInContainer ? pod : host, link.config);
    if (podLink.peerIndex !== master.index) {
      throw wrong(`the master of ${podLink.name} is not ${master.name}`);
    }
  }
  if (podLink.mode === link.mode) return;
  throw wrong(`${link.kind} mode of ${podLink.name} is ${podLink.mode}, not ${link.mode}`);
}

/** @throws {CniError} code 50 when ADD would find no master */
export function requireMaster(system: CniSystem, config: OverMasterConfig): void {
  // Each pod has its own.
  if (config.linkInContainer) return;
  using host = new NetlinkSocket(system.sys);
  try {
    findMaster(host, config);
  } catch (cause) {
    if (!(cause instanceof CniError)) throw cause;
    throw new CniError(cniCode.notAvailable, `Cannot add pods: ${cause.message}`, { cause });
  }
}
