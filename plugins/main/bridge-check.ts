/** CHECK of a pod on a bridge. */
import type { CniAddRequest } from '#pkg/cni/plugin.ts';
import { getLink, type Link } from '#pkg/netlink/link.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { openPodNetns } from '#plugins/pod-netns.ts';
import { parseBridgeConfig, type BridgeConfig } from './bridge-config.ts';
import { hasMasquerade } from './ip-masquerade.ts';
import { ipamOf } from './ipam.ts';
import { hasSpoofCheck } from './mac-spoof-check.ts';
import { checkPod, requireAddResult, wrong } from './pod-check.ts';

/** @throws {AgentError} that names the first thing that is not as ADD left it */
export function checkOnBridge(system: CniSystem, request: CniAddRequest): void {
  const config = parseBridgeConfig(request);
  const result = requireAddResult(request);
  using host = new NetlinkSocket(system.sys);
  using netns = openPodNetns(request.netns);
  using pod = withNetns(system.sys, netns.fd, () => new NetlinkSocket(system.sys), system.die);
  const mayBeDown = config.disableContainerInterface;
  const podLink = checkPod(pod, { request, result, kind: 'veth', mayBeDown });
  checkHostLink(host, { config, podLink });
  if (config.macSpoofCheck && !hasSpoofCheck(system, request)) {
    throw wrong(`the rules that drop forged source MACs of ${request.ifName} are missing`);
  }
  const masquerades = config.masquerade !== undefined && result.ips.length > 0;
  if (masquerades && !hasMasquerade(system, request)) {
    throw wrong(`the rules that masquerade ${request.ifName} are missing`);
  }
  ipamOf(system, request)?.check(request);
}

function checkHostLink(
  host: NetlinkSocket,
  { config, podLink }: { readonly config: BridgeConfig; readonly podLink: Link },
): void {
  const bridge = getLink(host, config.bridge);
  if (bridge === undefined) throw wrong(`bridge ${config.bridge} is missing`);
  if (bridge.kind !== 'bridge') throw wrong(`${config.bridge} is no bridge`);
  if (!bridge.up) throw wrong(`bridge ${config.bridge} is down`);
  if (config.promiscuous && !bridge.promiscuous) {
    throw wrong(`bridge ${config.bridge} is not promiscuous`);
  }
  const link = podLink.peerIndex === undefined ? undefined : getLink(host, podLink.peerIndex);
  if (link === undefined) throw wrong(`the host's end of ${podLink.name} is missing`);
  if (link.masterIndex !== bridge.index) {
    throw wrong(`${link.name} is not connected to ${config.bridge}`);
  }
}
