/** Taking away the veth of an attachment, by nothing but its name. */
import { readValidAttachments } from '#pkg/cni/config.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import { podwireAlias } from '#pkg/host-network/object.ts';
import { deleteLink } from '#pkg/netlink/link-change.ts';
import { getLink, listLinks, type Link } from '#pkg/netlink/link.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { openPodNetnsIfThere } from '#plugins/pod-netns.ts';
import { hostLinkName, networkAlias } from './attachment-link.ts';

/**
 * Deletes the host's end, and with it the pod's, whose namespace may be gone, or be gone any moment.
 *
 * @param isReference whether the host's end of another name, found through the pod's, is one that
 *   the reference plugin made
 */
export function deleteVeth(
  system: CniSystem,
  request: CniRequest,
  isReference: (hostLink: Link, host: NetlinkSocket) => boolean,
): void {
  using host = new NetlinkSocket(system.sys);
  if (deleteLink(host, hostLinkName(request))) return;
  const foreign = foreignLink(system, host, request);
  if (foreign !== undefined && isReference(foreign, host)) deleteLink(host, foreign.index);
}

/** Deletes the veths of this network that belong to no valid attachment. */
export function collectVeths(system: CniSystem, request: CniRequest): void {
  const valid = new Set(readValidAttachments(request.config).map(hostLinkName));
  using host = new NetlinkSocket(system.sys);
  const ours = networkAlias(request.config.name);
  for (const { name, index, alias } of listLinks(host)) {
    if (alias?.startsWith(ours) === true && !valid.has(name)) deleteLink(host, index);
  }
}

/**
 * The host's end for a pod that the reference plugin connected, before ours took its place: it has a
 * random name. What else may be called CNI_IFNAME stays: an ADD that failed because the name was
 * taken is followed by a DEL.
 */
function foreignLink(
  system: CniSystem,
  host: NetlinkSocket,
  request: CniRequest,
): Link | undefined {
  using netns = openPodNetnsIfThere(request.netns);
  if (netns === undefined) return undefined;
  using pod = withNetns(system.sys, netns.fd, () => new NetlinkSocket(system.sys), system.die);
  const link = getLink(pod, request.ifName);
  if (link?.kind !== 'veth' || link.peerIndex === undefined) return undefined;
  const peer = getLink(host, link.peerIndex);
  if (peer?.kind !== 'veth' || peer.peerIndex !== link.index) return undefined;
  // One of ours under another name is another container's.
  return peer.alias?.startsWith(podwireAlias) === true ? undefined : peer;
}
