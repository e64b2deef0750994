/**
 * Pod traffic between nodes by plain routes: each node is the gateway to its own pods. Nothing is
 * added to packets, and every node must share one L2 network with every other.
 */
import type { HostObject } from '#pkg/host-network/object.ts';
import { formatAddress, sameAddress, type Family } from '#pkg/ip/address.ts';
import {
  carryFamilies,
  directRoute,
  familyName,
  isOnLink,
  peerAddress,
  type BackendResult,
  type SelfNode,
} from './backend.ts';
import type { NodeFacts, NodeProblem } from './node-facts.ts';

export interface HostGatewayOptions {
  /** Upper limit for the pods' MTU. */
  readonly mtuBytes?: number;
}

/** One route per peer and family; a peer behind a router is reported. */
export function hostGatewayObjects(
  peers: readonly NodeFacts[],
  self: SelfNode,
  options: HostGatewayOptions = {},
): BackendResult {
  const mtu = {
    overheadBytes: { ip: 0, ip6: 0 },
    ...(options.mtuBytes === undefined ? {} : { limitBytes: options.mtuBytes }),
  };
  return carryFamilies(self, mtu, ({ family, local }) => {
    const objects: HostObject[] = [];
    const problems: NodeProblem[] = [];
    for (const peer of peers) {
      const route = peerRoute(peer, family, self);
      if (typeof route === 'string') problems.push({ node: peer.name, message: route });
      else if (route !== undefined) objects.push(route);
    }
    return { objects, problems, announcement: { backend: 'host-gw', publicIP: local } };
  });
}

/** The route, undefined for a peer without pods of this family, or why there is none. */
function peerRoute(
  peer: NodeFacts,
  family: Family,
  self: SelfNode,
): HostObject | string | undefined {
  const podCIDR = peer.podCIDRs[family];
  if (podCIDR === undefined) return undefined;
  const via = peerAddress(peer, family, self);
  const kind = familyName(family);
  if (via === undefined) {
    return `Cannot route ${kind} to the node: it has no InternalIP of this family`;
  }
  const own = self.underlay.addresses[family];
  if (own !== undefined && sameAddress(via, own)) {
    return `Cannot route ${kind} to the node: it announces our own address ${formatAddress(via)}`;
  }
  if (!isOnLink(self.underlay, via)) {
    return (
      `Cannot route ${kind} to the node: ${formatAddress(via)} is not on the L2 network of link ` +
      `${self.underlay.link}, which backend host-gw needs; use backend vxlan`
    );
  }
  return directRoute(podCIDR, via, self.underlay);
}
