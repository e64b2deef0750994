/**
 * DEL and GC of pods. All that ADD did is found by the attachment's names and its record: neither
 * the pod's namespace, nor the node's facts, nor the network's present configuration is needed.
 */
import { formatAddress } from '#pkg/ip/address.ts';
import type { StoredAttachment } from '#pkg/cni/attachment-store.ts';
import { readValidAttachments } from '#pkg/cni/config.ts';
import type { CniRequest } from '#pkg/cni/plugin.ts';
import { deleteLink } from '#pkg/netlink/link-change.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { collectAll } from '#plugins/collect-all.ts';
import { bridgePlugin } from '#plugins/main/bridge.ts';
import { isOfAttachment, isStale } from '#plugins/meta/attachment-comment.ts';
import { ifbName } from '#plugins/meta/bandwidth-names.ts';
import { bandwidthPlugin } from '#plugins/meta/bandwidth.ts';
import type { HostPortClaim } from '#plugins/meta/host-port-claim.ts';
import { forgetFlowsOf } from '#plugins/meta/portmap-host.ts';
import { portmapPlugin } from '#plugins/meta/portmap.ts';
import { readRecord, type AttachmentRecord } from './attachment-record.ts';
import { removePod, removeWhere } from './packet-filter.ts';
import { hostPortMaps, firstAddresses, specificAddress } from './pod-elements.ts';
import { inNetwork, ipamOf, withoutIpam, type PodTools } from './pod-tools.ts';

/** Idempotent. */
export function deletePod(tools: PodTools, request: CniRequest): void {
  const { containerId, ifName } = request;
  const stored = tools.store.find({ network: request.config.name, containerId, ifName });
  disconnect(tools, request, stored);
}

/** Takes an attachment of an earlier boot back: its pod is gone, the address is still leased. */
export function reclaimPod(tools: PodTools, request: CniRequest, stale: StoredAttachment): void {
  const { containerId, ifName } = stale;
  disconnect(tools, { ...request, containerId, ifName, netns: undefined }, stale);
}

/**
 * Removes what belongs to this network and to no valid attachment. One that cannot be removed keeps
 * no other.
 *
 * @throws {AggregateError} of all that failed, where several did
 */
export function collectPods(tools: PodTools, request: CniRequest): void {
  const { config } = request;
  const valid = readValidAttachments(config);
  const isValid = (a: StoredAttachment): boolean =>
    valid.some(({ containerId, ifName }) => a.containerId === containerId && a.ifName === ifName);
  collectAll(request, [
    ...tools.store
      .list(config.name)
      .filter((stored) => !isValid(stored))
      .map((stored) => () => reclaimPod(tools, request, stored)),
    // What has no record: another version made it, or the record was lost.
    () => bridgePlugin(tools.system).gc?.(withoutIpam(request, 'none')),
    () => bandwidthPlugin(tools.system).gc?.(request),
    () => removeWhere(tools, (comment) => isStale(comment, config.name, valid)),
    () => ipamOf(tools.system, request).gc(request),
  ]);
}

/**
 * The link first: then no packet of the pod's is left to guard. The addresses go after all that
 * leads to them: nobody may get one that a host port still points to. The record goes last; it is
 * retired before the elements go, or an ADD that finds a table lost would put them back.
 */
function disconnect(
  tools: PodTools,
  request: CniRequest,
  stored: StoredAttachment | undefined,
): void {
  const { system, store } = tools;
  const call = inNetwork(request, stored?.network ?? request.config.name);
  const record = stored === undefined ? undefined : readRecord(stored);
  deleteIfb(tools, call);
  bridgePlugin(system).del(withoutIpam(call, 'none'));
  if (record === undefined) {
    removeWhere(tools, (comment) => isOfAttachment(comment, call));
    if (stored !== undefined) portmapPlugin(system).del(call);
  } else {
    store.retire(record);
    removePodElements(tools, record);
    if (record.iptables) portmapPlugin(system).del(call);
    else forgetFlowsOf(system.sys, claimsOf(record));
  }
  ipamOf(system, call).del(call);
  const { containerId, ifName } = call;
  store.delete({ network: call.config.name, containerId, ifName });
}

function deleteIfb({ system }: PodTools, request: CniRequest): void {
  using host = new NetlinkSocket(system.sys);
  deleteLink(host, ifbName(request.config.name, request));
}

function removePodElements({ openFilter }: PodTools, record: AttachmentRecord): void {
  using filter = openFilter();
  removePod(filter, record);
}

/** The pod's host ports, as far as they are of interest to who forgets flows. */
function claimsOf(record: AttachmentRecord): readonly HostPortClaim[] {
  const addresses = firstAddresses(record);
  return hostPortMaps(record).flatMap(({ port, family }) => {
    const hostIp = specificAddress(port);
    return addresses
      .filter((address) => address.family === family)
      .map((address) => ({
        network: record.network,
        containerId: record.containerId,
        protocol: port.protocol,
        hostPort: port.hostPort,
        hostIp: hostIp === undefined ? undefined : formatAddress(hostIp),
        target: formatAddress(address),
        conditional: false,
      }));
  });
}
