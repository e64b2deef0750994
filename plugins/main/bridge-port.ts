/** A pod's port of the bridge: the host's end of its veth. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import type { CniAddRequest } from '#pkg/cni/plugin.ts';
import { changeLinkRequest } from '#pkg/netlink/link-change.ts';
import { createVeth, type NewVeth } from '#pkg/netlink/link-create.ts';
import { getLink, getLinkRequest, parseLink, type Link } from '#pkg/netlink/link.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';

export interface BridgePort {
  readonly bridgeLink: Link;
  readonly hostLink: Link;
}

/** @throws {CniError} code 4 when the host's end is there already */
export function createPodVeth(host: NetlinkSocket, request: CniAddRequest, veth: NewVeth): Link {
  try {
    return createVeth(host, veth);
  } catch (cause) {
    const { name } = veth.host;
    if (!isErrno(cause, 'EEXIST') || getLink(host, name) === undefined) throw cause;
    throw new CniError(
      cniCode.invalidEnvironment,
      `Cannot create ${name}: it exists already; ${request.containerId} was added before and not deleted`,
      { cause },
    );
  }
}

/**
 * Brings the host's end up, after the pod's (see NewVeth). It gets no link-local address: frames that
 * come in by a port are the bridge's, and what the port itself sends (router solicitations, group
 * memberships) goes to the pod alone, which has no use for it.
 *
 * @returns both links as they are now: on Linux 6.18 the port is running already
 */
export function bringUp(host: NetlinkSocket, { bridgeLink, hostLink }: BridgePort): BridgePort {
  const [linkLocal, up, bridge, port] = host.batch([
    changeLinkRequest(hostLink.index, { ipv6LinkLocal: false }),
    changeLinkRequest(hostLink.index, { up: true }),
    // Again: a bridge that others made may take MTU and MAC of the port it just got.
    getLinkRequest(bridgeLink.index),
    getLinkRequest(hostLink.index),
  ]);
  // Where there is no IPv6 there is no such address either.
  const refused = isErrno(linkLocal?.error, 'EAFNOSUPPORT') ? undefined : linkLocal?.error;
  if (refused !== undefined) throw refused;
  if (up?.error !== undefined) throw up.error;
  return {
    bridgeLink: bridge?.replies.flatMap(parseLink)[0] ?? bridgeLink,
    hostLink: port?.replies.flatMap(parseLink)[0] ?? hostLink,
  };
}
