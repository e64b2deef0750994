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

/** Brings the host's end up, after the pod's (see NewVeth). Returns the bridge as it is now. */
export function bringUp(host: NetlinkSocket, { bridgeLink, hostLink }: BridgePort): Link {
  const [up, bridge] = host.batch([
    changeLinkRequest(hostLink.index, { up: true }),
    // Again: a bridge that others made may take MTU and MAC of the port it just got.
    getLinkRequest(bridgeLink.index),
  ]);
  if (up?.error !== undefined) throw up.error;
  return bridge?.replies.flatMap(parseLink)[0] ?? bridgeLink;
}
