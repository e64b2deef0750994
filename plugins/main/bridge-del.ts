/** DEL and GC of pods on a bridge. Neither needs anything but names. */
import { delegateFor, type CniDelegate } from '#pkg/cni/delegate.ts';
import { readValidAttachments } from '#pkg/cni/config.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import { podwireAlias } from '#pkg/host-network/object.ts';
import { deleteLink } from '#pkg/netlink/link-change.ts';
import { getLink, listLinks } from '#pkg/netlink/link.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { openPodNetnsIfThere } from '#plugins/pod-netns.ts';
import { hostLinkName, networkAlias } from './attachment-link.ts';
import { parseBridgeName, parseIpamType } from './bridge-config.ts';

/** Idempotent. The addresses go last: nobody may get one that a link still has. */
export function deleteFromBridge(system: CniSystem, request: CniRequest): void {
  using host = new NetlinkSocket(system.sys);
  // The pod's end goes with the host's; its namespace may be gone, or be gone any moment.
  if (!deleteLink(host, hostLinkName(request))) deleteForeignLink(system, host, request);
  ipamOf(system, request)?.del(request);
}

/** Removes what belongs to this network and to no valid attachment. */
export function collectBridge(system: CniSystem, request: CniRequest): void {
  const valid = new Set(readValidAttachments(request.config).map(hostLinkName));
  using host = new NetlinkSocket(system.sys);
  const ours = networkAlias(request.config.name);
  for (const { name, index, alias } of listLinks(host)) {
    if (alias?.startsWith(ours) === true && !valid.has(name)) deleteLink(host, index);
  }
  ipamOf(system, request)?.gc(request);
}

export function ipamOf(system: CniSystem, request: CniRequest): CniDelegate | undefined {
  const type = parseIpamType(request.config);
  if (type === undefined) return undefined;
  return delegateFor(type, { own: system.delegates, runProgram: system.runProgram });
}

/**
 * A pod that the reference plugin connected, before this one took its place: the host's end has a
 * random name. What else may be called CNI_IFNAME stays: an ADD that failed because the name was
 * taken is followed by a DEL.
 */
function deleteForeignLink(system: CniSystem, host: NetlinkSocket, request: CniRequest): void {
  using netns = openPodNetnsIfThere(request.netns);
  if (netns === undefined) return;
  using pod = withNetns(system.sys, netns.fd, () => new NetlinkSocket(system.sys), system.die);
  const link = getLink(pod, request.ifName);
  if (link?.kind !== 'veth' || link.peerIndex === undefined) return;
  const peer = getLink(host, link.peerIndex);
  if (peer?.kind !== 'veth' || peer.peerIndex !== link.index) return;
  // One of ours under another name is another container's.
  if (peer.alias?.startsWith(podwireAlias) === true) return;
  const bridge = getLink(host, parseBridgeName(request.config));
  if (bridge !== undefined && peer.masterIndex === bridge.index) deleteLink(host, peer.index);
}
