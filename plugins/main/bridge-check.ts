/** CHECK of a pod on a bridge: what ADD made is still there. What others added is not looked at. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { sameAddress } from '#pkg/ip/address.ts';
import { familyOf, formatPrefix, samePrefix } from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readPrevResult } from '#pkg/cni/config.ts';
import type { CniAddRequest } from '#pkg/cni/plugin.ts';
import type { CniInterface, CniIp, CniResult, CniRoute } from '#pkg/cni/result.ts';
import { listAddresses } from '#pkg/netlink/address.ts';
import { getLink, type Link } from '#pkg/netlink/link.ts';
import { listRoutes } from '#pkg/netlink/route.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { CniSystem } from '#plugins/cni-system.ts';
import { openPodNetns } from '#plugins/pod-netns.ts';
import { parseBridgeConfig, type BridgeConfig } from './bridge-config.ts';
import { ipamOf } from './bridge-del.ts';

/** @throws {AgentError} that names the first thing that is not as ADD left it */
export function checkOnBridge(system: CniSystem, request: CniAddRequest): void {
  const config = parseBridgeConfig(request);
  const result = readPrevResult(request.config);
  if (result === undefined) {
    throw new CniError(cniCode.invalidConfig, 'Cannot check the network: prevResult is missing');
  }
  using host = new NetlinkSocket(system.sys);
  using netns = openPodNetns(request.netns);
  using pod = withNetns(system.sys, netns.fd, () => new NetlinkSocket(system.sys), system.die);
  const podLink = checkPodLink(getLink(pod, request.ifName), { request, config, result });
  checkHostLink(host, { config, podLink });
  for (const ip of result.ips) checkAddress(pod, { ip, podLink, request, result });
  for (const route of result.routes) checkRoute(pod, route);
  ipamOf(system, request)?.check(request);
}

function checkPodLink(
  link: Link | undefined,
  context: {
    readonly request: CniAddRequest;
    readonly config: BridgeConfig;
    readonly result: CniResult;
  },
): Link {
  const { request, config, result } = context;
  const { ifName, netns } = request;
  if (link === undefined) throw wrong(`interface ${ifName} is missing in ${netns}`);
  if (link.kind !== 'veth') throw wrong(`interface ${ifName} is no veth`);
  if (!link.up && !config.disableContainerInterface) throw wrong(`interface ${ifName} is down`);
  const wanted = result.interfaces.find((i) => isPodInterface(i, request));
  if (wanted?.mac !== undefined && wanted.mac.toLowerCase() !== link.mac) {
    throw wrong(`interface ${ifName} has MAC ${link.mac}, not ${wanted.mac}`);
  }
  return link;
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

function checkAddress(
  pod: NetlinkSocket,
  context: {
    readonly ip: CniIp;
    readonly podLink: Link;
    readonly request: CniAddRequest;
    readonly result: CniResult;
  },
): void {
  const { ip, podLink, request, result } = context;
  if (ip.interfaceIndex !== undefined) {
    const link = result.interfaces[ip.interfaceIndex];
    if (link === undefined || !isPodInterface(link, request)) return;
  }
  const present = listAddresses(pod, { family: familyOf(ip.address), linkIndex: podLink.index });
  if (present.some(({ prefix }) => samePrefix(prefix, ip.address))) return;
  throw wrong(`address ${formatPrefix(ip.address)} is missing on ${podLink.name}`);
}

function checkRoute(pod: NetlinkSocket, route: CniRoute): void {
  const { destination, gateway, table } = route;
  const present = listRoutes(pod, {
    family: familyOf(destination),
    ...(table === undefined ? {} : { table }),
  });
  const found = present.some(
    (r) =>
      samePrefix(r.destination, destination) &&
      (gateway === undefined || (r.gateway !== undefined && sameAddress(r.gateway, gateway))),
  );
  if (!found) throw wrong(`route to ${formatPrefix(destination)} is missing`);
}

function isPodInterface(link: CniInterface, request: CniAddRequest): boolean {
  return link.name === request.ifName && link.sandbox !== undefined;
}

function wrong(state: string): AgentError {
  return new AgentError('NetworkChanged', `Cannot confirm the pod's network: ${state}`);
}
