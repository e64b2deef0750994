/** CHECK of a pod's side: what ADD made is still there. What others added is not looked at. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { sameAddress } from '#pkg/ip/address.ts';
import { familyOf, formatPrefix, networkOf, samePrefix } from '#pkg/ip/prefix.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import { readPrevResult } from '#pkg/cni/config.ts';
import type { CniAddRequest } from '#pkg/cni/plugin.ts';
import type { CniInterface, CniIp, CniResult, CniRoute } from '#pkg/cni/result.ts';
import { listAddresses } from '#pkg/netlink/address.ts';
import { getLink, type Link } from '#pkg/netlink/link.ts';
import { listRoutes } from '#pkg/netlink/route.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';

/** @throws {CniError} without the result of ADD there is nothing to compare with */
export function requireAddResult(request: CniAddRequest): CniResult {
  const result = readPrevResult(request.config);
  if (result !== undefined) return result;
  throw new CniError(cniCode.invalidConfig, 'Cannot check the network: prevResult is missing');
}

export interface PodCheck {
  readonly request: CniAddRequest;
  readonly result: CniResult;
  /** What the interface has to be: "veth". */
  readonly kind: string;
  /** Nobody brings it up before the pod does. */
  readonly mayBeDown?: boolean;
}

/**
 * Compares the interface, its addresses and the routes with the result. Returns the interface.
 *
 * @throws {AgentError} that names the first thing that is not as ADD left it
 */
export function checkPod(pod: NetlinkSocket, check: PodCheck): Link {
  const { request, result } = check;
  const link = checkLink(getLink(pod, request.ifName), check);
  for (const ip of result.ips) checkAddress(pod, { ip, link, check });
  for (const route of result.routes) checkRoute(pod, route);
  return link;
}

/** The error of a CHECK that found something else than ADD left. */
export function wrong(state: string): AgentError {
  return new AgentError('NetworkChanged', `Cannot confirm the pod's network: ${state}`);
}

function checkLink(link: Link | undefined, check: PodCheck): Link {
  const { request, result, kind, mayBeDown = false } = check;
  const { ifName, netns } = request;
  if (link === undefined) throw wrong(`interface ${ifName} is missing in ${netns}`);
  if (link.kind !== kind) throw wrong(`interface ${ifName} is no ${kind}`);
  if (!link.up && !mayBeDown) throw wrong(`interface ${ifName} is down`);
  const wanted = result.interfaces.find((i) => isPodInterface(i, request));
  if (wanted?.mac !== undefined && wanted.mac.toLowerCase() !== link.mac) {
    throw wrong(`interface ${ifName} has MAC ${link.mac}, not ${wanted.mac}`);
  }
  return link;
}

function checkAddress(
  pod: NetlinkSocket,
  { ip, link, check }: { readonly ip: CniIp; readonly link: Link; readonly check: PodCheck },
): void {
  if (ip.interfaceIndex !== undefined) {
    const owner = check.result.interfaces[ip.interfaceIndex];
    if (owner === undefined || !isPodInterface(owner, check.request)) return;
  }
  const present = listAddresses(pod, { family: familyOf(ip.address), linkIndex: link.index });
  if (present.some(({ prefix }) => samePrefix(prefix, ip.address))) return;
  throw wrong(`address ${formatPrefix(ip.address)} is missing on ${link.name}`);
}

/** @throws {AgentError} without a route to this destination, by this gateway where there is one */
export function checkRoute(pod: NetlinkSocket, route: CniRoute): void {
  const { destination, gateway, table } = route;
  const wanted = networkOf(destination);
  const present = listRoutes(pod, {
    family: familyOf(destination),
    ...(table === undefined ? {} : { table }),
  });
  const found = present.some(
    (r) =>
      samePrefix(r.destination, wanted) &&
      (gateway === undefined || (r.gateway !== undefined && sameAddress(r.gateway, gateway))),
  );
  if (!found) throw wrong(`route to ${formatPrefix(destination)} is missing`);
}

function isPodInterface(link: CniInterface, request: CniAddRequest): boolean {
  return link.name === request.ifName && link.sandbox !== undefined;
}
