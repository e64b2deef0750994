/** Routes of others that stand where one of ours belongs: who has them, and how to be rid of them. */
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { formatAddress } from '#pkg/ip/address.ts';
import { familyOf, formatPrefix, networkOf, type Prefix } from '#pkg/ip/prefix.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { listRoutes, type RouteEntry } from '#pkg/netlink/route.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { podwireRouteProtocol } from './object.ts';
import type { Step } from './step.ts';

/**
 * Outcomes of steps, with who is in the way in the place of the kernel's word for it: what
 * another agent left behind, for one.
 *
 * @returns as `outcomes`; an AgentError RouteTaken, with the kernel's refusal as its cause
 */
export function withHolders(
  socket: NetlinkSocket,
  steps: readonly Step[],
  outcomes: readonly (Error | undefined)[],
): (Error | undefined)[] {
  const holders = new Map<string, RouteEntry>();
  const listed = new Set<string>();
  return outcomes.map((cause, i) => {
    const object = steps[i]?.object;
    if (object?.kind !== 'route' || !refusals.some((code) => isErrno(cause, code))) return cause;
    const family = familyOf(object.destination);
    if (!listed.has(family)) {
      listed.add(family);
      for (const route of listRoutes(socket, { family })) holders.set(placeOf(route), route);
    }
    const holder = holders.get(placeOf(object));
    if (holder === undefined) return cause;
    // One of ours is changed, not added; that of a device that is not ours is in the way all the same.
    if (holder.protocol === podwireRouteProtocol && !isErrno(cause, 'EEXIST')) return cause;
    const destination = formatPrefix(networkOf(object.destination));
    const remedy = `ip ${family === 'ip' ? '' : '-6 '}route del ${destination} ${wayOf(socket, holder)}`;
    return new AgentError(
      'RouteTaken',
      `Cannot have the route to ${destination}: there is one of somebody else's; if nobody needs it any more: ${remedy}`,
      { cause },
    );
  });
}

/** The second where our next hop is within theirs, and theirs leads to another device (IPv6). */
const refusals = ['EEXIST', 'EINVAL'];

/** The kernel has one route of a destination and metric in a table. */
function placeOf(route: { readonly destination: Prefix; readonly metric?: number }): string {
  const { destination, metric } = route;
  const byDefault = familyOf(destination) === 'ip' ? 0 : 1024;
  return `${formatPrefix(networkOf(destination))} ${metric ?? byDefault}`;
}

/** As `ip route` takes it. */
function wayOf(socket: NetlinkSocket, { gateway, linkIndex, protocol }: RouteEntry): string {
  const link = linkIndex === undefined ? undefined : getLink(socket, linkIndex)?.name;
  return [
    ...(gateway === undefined ? [] : [`via ${formatAddress(gateway)}`]),
    ...(link === undefined ? [] : [`dev ${link}`]),
    ...(protocol === undefined ? [] : [`proto ${protocol}`]),
  ].join(' ');
}
