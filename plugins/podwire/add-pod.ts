/** ADD of a pod: addresses, link, host ports, limits, settings. All of it, or nothing. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { AttachmentKey } from '#pkg/cni/attachment-store.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import type { CniAddRequest } from '#pkg/cni/plugin.ts';
import type { CniResult } from '#pkg/cni/result.ts';
import { deleteLink } from '#pkg/netlink/link-change.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';
import { addressMac, hostLinkName } from '#plugins/main/attachment-link.ts';
import { parseBridgeConfig, type BridgeConfig } from '#plugins/main/bridge-config.ts';
import { bandwidthPlugin } from '#plugins/meta/bandwidth.ts';
import { parsePortmapConfig, portmapWishes } from '#plugins/meta/portmap-config.ts';
import { forgetFlowsTo } from '#plugins/meta/portmap-host.ts';
import { portmapPlugin } from '#plugins/meta/portmap.ts';
import { openPodNetns } from '#plugins/pod-netns.ts';
import { recordDocument, type AttachmentRecord } from './attachment-record.ts';
import { reclaimPod } from './delete-pod.ts';
import { installPod, removePod } from './packet-filter.ts';
import {
  bridgeWithAddresses,
  chained,
  ipamOf,
  withIptables,
  withoutIpam,
  type PodTools,
} from './pod-tools.ts';
import { parsePodwireConfig, type PodwireConfig, type SysctlSetting } from './podwire-config.ts';
import { addRouted } from './routed-pod.ts';

/**
 * Adds a pod.
 *
 * @param request with the bridge plugin's configuration of this network (bridgeConfigOf())
 * @throws {CniError} after everything it did is undone
 */
export function addPod(tools: PodTools, request: CniAddRequest): CniResult {
  const config = parsePodwireConfig(request.config, request.ifName);
  const bridge = parseBridgeConfig(withoutIpam(request, 'leased'));
  const { containerId, ifName } = request;
  const key: AttachmentKey = { network: request.config.name, containerId, ifName };
  const { store } = tools;
  store.reclaimEarlierBoots(key.network, (stale) => reclaimPod(tools, request, stale));
  if (store.has(key)) throw addedBefore(key);
  using undo = new DisposableStack();
  const context = { tools, request, config, bridge, undo };
  const addresses = lease(context);
  const record = remember(context, recordOf(context, key, addresses));
  const result = connect(context, addresses, record);
  const shaped = addHostPorts(context, result, record);
  setSysctls(context);
  undo.move();
  return shaped;
}

interface AddContext {
  readonly tools: PodTools;
  readonly request: CniAddRequest;
  readonly config: PodwireConfig;
  readonly bridge: BridgeConfig;
  /** Runs backwards unless ADD comes to its end. */
  readonly undo: DisposableStack;
}

function lease({ tools: { system }, request, undo }: AddContext): CniResult {
  const ipam = ipamOf(system, request);
  const addresses = ipam.add(request);
  // Not before: an ADD that is refused because the attachment has an address must not free that.
  undo.defer(() => ipam.del(request));
  return addresses;
}

function recordOf(
  { request, config, bridge }: AddContext,
  key: AttachmentKey,
  addresses: CniResult,
): AttachmentRecord {
  const [first] = addresses.ips;
  if (first === undefined) {
    throw new CniError(cniCode.internal, 'IPAM plugin returned missing IP config');
  }
  const hostLink = hostLinkName(request);
  return {
    ...key,
    mode: config.mode,
    hostLink,
    reachedBy: config.mode === 'bridge' ? bridge.bridge : hostLink,
    mac: bridge.mac ?? addressMac(first.address.address),
    addresses: addresses.ips.map(({ address }) => address),
    hostPorts: config.hostPorts,
    antiSpoofing: config.antiSpoofing,
    iptables: false,
  };
}

/**
 * Writes the record, before the kernel is touched: whatever happens from here on, DEL knows what to
 * look for. Then the pod's elements: a host port that is taken costs no link, and a link that comes
 * up is guarded from its first packet.
 */
function remember({ tools, undo }: AddContext, record: AttachmentRecord): AttachmentRecord {
  const { store, openFilter } = tools;
  store.put(record, recordDocument(record));
  undo.defer(() => store.delete(record));
  using filter = openFilter();
  // Also when it got none: another ADD, which found a table lost, may have put them in.
  undo.defer(() => {
    store.retire(record);
    using again = openFilter();
    removePod(again, record);
  });
  try {
    installPod(filter, record);
  } catch (error) {
    if (!isErrno(error, 'NftMissing') || record.antiSpoofing) throw error;
    const other = { ...record, iptables: true };
    store.put(other, recordDocument(other));
    return other;
  }
  return record;
}

function connect(
  { tools: { system }, request, config, bridge, undo }: AddContext,
  addresses: CniResult,
  { hostLink, mac }: AttachmentRecord,
): CniResult {
  if (config.mode === 'routed') {
    return addRouted(system, { request, bridge, mac, addresses, undo });
  }
  const result = bridgeWithAddresses(system, addresses).add(withoutIpam(request, 'leased'));
  undo.defer(() => {
    using host = new NetlinkSocket(system.sys);
    deleteLink(host, hostLink);
  });
  return result;
}

/** What the host does for the pod's packets once the link is there. Returns the whole result. */
function addHostPorts(
  { tools: { system }, request, undo }: AddContext,
  result: CniResult,
  record: AttachmentRecord,
): CniResult {
  const limits = bandwidthPlugin(system);
  const shaped = limits.add(chained(request, result));
  undo.defer(() => limits.del(request));
  if (record.hostPorts.length === 0) return shaped;
  if (record.iptables) {
    const ports = portmapPlugin(system);
    ports.add(withIptables(chained(request, result)));
    undo.defer(() => ports.del(request));
    return shaped;
  }
  const wishes = portmapWishes(request, parsePortmapConfig(request.config), result);
  allowLocalhost(record);
  // Not before the elements are there: the next packet would bring the old flow back.
  forgetFlowsTo(system.sys, wishes);
  return shaped;
}

/**
 * Lets connections from 127.0.0.0/8 leave by the link that leads to the pod, where the kernel would
 * drop them before they get another source. There is no such setting for ::1: that cannot work.
 */
function allowLocalhost({ reachedBy, addresses }: AttachmentRecord): void {
  if (!addresses.some(({ address }) => address.family === 'ip')) return;
  const setting = `net/ipv4/conf/${reachedBy}/route_localnet`;
  if (readSysctl(setting) !== '1') writeSysctl(setting, '1');
}

function setSysctls({ tools: { system }, request, config }: AddContext): void {
  const { sysctls } = config;
  if (sysctls.length === 0) return;
  using netns = openPodNetns(request.netns);
  withNetns(system.sys, netns.fd, () => writeSysctls(sysctls), system.die);
}

function writeSysctls(sysctls: readonly SysctlSetting[]): void {
  for (const { path, value } of sysctls) writeSysctl(path, value);
}

function addedBefore({ containerId, ifName, network }: AttachmentKey): CniError {
  return new CniError(
    cniCode.invalidEnvironment,
    `Cannot add ${ifName} of container ${containerId} to network ${network}: ` +
      'it was added before and not deleted',
  );
}
