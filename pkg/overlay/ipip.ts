/**
 * Pod traffic between nodes as IP in IP (RFC 2003): IPv4 pods over IPv4, IPv6 pods in IPv6 (RFC
 * 2473). One device a family without a remote end, and a peer costs one route, which says where the
 * outer packet goes. Layout and overhead for IPv4 are flannel's, which has no IPv6 here.
 */
import type { HostObject } from '#pkg/host-network/object.ts';
import type { Family } from '#pkg/ip/address.ts';
import { hostPrefix } from '#pkg/ip/prefix.ts';
import {
  carryFamilies,
  directRoute,
  isOnLink,
  ownAddressProblem,
  peerAddress,
  type BackendResult,
  type Carrier,
  type SelfNode,
} from './backend.ts';
import { tunnelOverheadBytes } from './mtu.ts';
import type { NodeFacts, NodeProblem } from './node-facts.ts';

export interface IpipOptions {
  /** Peers on our own L2 get plain routes: their packets need no wrapping. */
  readonly directRouting: boolean;
  /** Upper limit for the pods' MTU. */
  readonly mtuBytes?: number;
}

/** Objects for every peer that announced itself. */
export function ipipObjects(
  peers: readonly NodeFacts[],
  self: SelfNode,
  options: IpipOptions,
): BackendResult {
  const mtu = {
    overheadBytes: tunnelOverheadBytes,
    ...(options.mtuBytes === undefined ? {} : { limitBytes: options.mtuBytes }),
  };
  return carryFamilies(self, mtu, (carrier) => {
    const { family, podCIDR, local, mtuBytes } = carrier;
    const link = ipipLinkName(family);
    const problems: NodeProblem[] = [];
    const objects: HostObject[] = [
      { kind: 'tunnel', link, local: family === 'ip' ? local : undefined, mtuBytes },
      // The range's own network address, as with VXLAN: this host's packets to remote pods.
      { kind: 'address', link, prefix: hostPrefix(podCIDR.address) },
    ];
    for (const peer of peers) {
      const route = peerRoute(peer, carrier, { self, options });
      if (typeof route === 'string') problems.push({ node: peer.name, message: route });
      else if (route !== undefined) objects.push(route);
    }
    return { objects, problems, announcement: { backend: 'ipip', publicIP: local } };
  });
}

/** `podwire.ipip`, and `podwire-v6.ipip` for IPv6. */
function ipipLinkName(family: Family): string {
  return family === 'ip' ? 'podwire.ipip' : 'podwire-v6.ipip';
}

/** The route, undefined while the peer has announced nothing, or why there is none. */
function peerRoute(
  peer: NodeFacts,
  { family, local }: Carrier,
  { self, options }: { readonly self: SelfNode; readonly options: IpipOptions },
): HostObject | string | undefined {
  const destination = peer.podCIDRs[family];
  const announcement = peer.announcements[family];
  const via = peerAddress(peer, family, self);
  if (destination === undefined || announcement === undefined || via === undefined) {
    return undefined;
  }
  const problem = ownAddressProblem(via, self);
  if (problem !== undefined) return problem;
  const takesPlain = options.directRouting || announcement.backend === 'host-gw';
  if (takesPlain && isOnLink(self.underlay, via)) {
    return directRoute(destination, via, self.underlay);
  }
  if (announcement.backend !== 'ipip') {
    return `Cannot reach the node by IP in IP: its agent runs the backend ${announcement.backend}`;
  }
  const link = ipipLinkName(family);
  return family === 'ip'
    ? { kind: 'route', destination, via, link, onLink: true }
    : { kind: 'route', destination, link, onLink: false, encap: { local, remote: via } };
}
