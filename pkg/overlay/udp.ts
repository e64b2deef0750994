/**
 * Pod traffic between nodes in plain UDP, by a program of ours: for kernels with nothing else. The
 * packets are flannel's (backend udp): each datagram holds one IP packet and nothing more, and all
 * nodes use one port. flannel knows IPv4 only.
 */
import type { HostObject } from '#pkg/host-network/object.ts';
import type { Address } from '#pkg/ip/address.ts';
import { hostPrefix } from '#pkg/ip/prefix.ts';
import {
  carryFamilies,
  ownAddressProblem,
  peerAddress,
  type BackendResult,
  type ForwardingPeer,
  type SelfNode,
} from './backend.ts';
import { udpOverheadBytes } from './mtu.ts';
import type { NodeFacts, NodeProblem } from './node-facts.ts';

export interface UdpOptions {
  /** UDP port of every node; flannel's is 8285. */
  readonly port: number;
  /** Upper limit for the pods' MTU. */
  readonly mtuBytes?: number;
}

/** One TUN device for both families. */
const udpLinkName = 'podwire.udp';

/** Objects and forwarding entries for every peer that runs this backend. */
export function udpObjects(
  peers: readonly NodeFacts[],
  self: SelfNode,
  options: UdpOptions,
): BackendResult {
  const limit = options.mtuBytes === undefined ? {} : { limitBytes: options.mtuBytes };
  const mtu = { overheadBytes: udpOverheadBytes, ...limit };
  const link = udpLinkName;
  const locals: Address[] = [];
  const remotes: ForwardingPeer[] = [];
  const result = carryFamilies(self, mtu, ({ family, podCIDR, local }) => {
    const problems: NodeProblem[] = [];
    locals.push(local);
    const objects: HostObject[] = [{ kind: 'address', link, prefix: hostPrefix(podCIDR.address) }];
    for (const peer of peers) {
      const destination = peer.podCIDRs[family];
      const announcement = peer.announcements[family];
      const remote = peerAddress(peer, family, self);
      if (destination === undefined || announcement === undefined || remote === undefined) continue;
      const problem =
        ownAddressProblem(remote, self) ??
        (announcement.backend === 'udp'
          ? undefined
          : `Cannot reach the node by UDP: its agent runs the backend ${announcement.backend}`);
      if (problem !== undefined) {
        problems.push({ node: peer.name, message: problem });
        continue;
      }
      remotes.push({ podCIDR: destination, remote });
      objects.push({ kind: 'route', destination, link, onLink: false });
    }
    return { objects, problems, announcement: { backend: 'udp', publicIP: local } };
  });
  const { mtuBytes } = result;
  if (mtuBytes === undefined) return result;
  return {
    ...result,
    objects: [{ kind: 'tun', link, mtuBytes }, ...result.objects],
    forwarding: { link, port: options.port, locals, peers: remotes },
  };
}
