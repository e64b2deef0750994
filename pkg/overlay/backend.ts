/**
 * What every way of carrying pod traffic between nodes has in common: a pure function from the
 * cluster's nodes and our own place in it to objects in the host's network.
 */
import type { HostObject, Route } from '#pkg/host-network/object.ts';
import type { Address, Family } from '#pkg/ip/address.ts';
import { containsAddress, type Prefix } from '#pkg/ip/prefix.ts';
import { leastMtuBytes } from './mtu.ts';
import type { ByFamily, NodeFacts, NodeProblem } from './node-facts.ts';
import type { Announcement } from './annotations.ts';

export type BackendType = 'vxlan' | 'host-gw';

/** The link that carries traffic between nodes, as observed. */
export interface Underlay {
  readonly link: string;
  readonly mtuBytes: number;
  /** The node's own address per family on it: where peers reach us. */
  readonly addresses: ByFamily<Address>;
  /** Destinations reached on this link without a gateway: who lies in them shares our L2. */
  readonly onLinkPrefixes: readonly Prefix[];
  /** Destinations within those that are reached another way all the same. */
  readonly routedPrefixes: readonly Prefix[];
}

export interface SelfNode {
  readonly name: string;
  readonly uid: string;
  readonly podCIDRs: ByFamily<Prefix>;
  readonly underlay: Underlay;
}

export interface BackendResult {
  /** In the order they need each other. */
  readonly objects: readonly HostObject[];
  readonly problems: readonly NodeProblem[];
  /** Families that work with this underlay. */
  readonly families: readonly Family[];
  /** What other nodes must know of us. */
  readonly announcements: ByFamily<Announcement>;
  /** The largest packet every path of every family carries; undefined when no family works. */
  readonly mtuBytes: number | undefined;
}

/** `peers` are the other nodes; our own is not among them. */
export type Backend = (peers: readonly NodeFacts[], self: SelfNode) => BackendResult;

/** Whether a packet to this address leaves our underlay link without a router in between. */
export function isOnLink(underlay: Underlay, address: Address): boolean {
  const routed = longestMatch(underlay.routedPrefixes, address);
  return longestMatch(underlay.onLinkPrefixes, address) > routed;
}

/** Length of the prefix routing chooses; -1 where none matches. */
function longestMatch(prefixes: readonly Prefix[], address: Address): number {
  return prefixes.reduce(
    (longest, prefix) =>
      containsAddress(prefix, address) ? Math.max(longest, prefix.length) : longest,
    -1,
  );
}

/** The announced address, else the Node's InternalIP, one that shares our L2 before the others. */
export function peerAddress(peer: NodeFacts, family: Family, self: SelfNode): Address | undefined {
  const announced = peer.announcements[family]?.publicIP;
  if (announced !== undefined) return announced;
  const candidates = peer.internalIPs.filter((address) => address.family === family);
  return candidates.find((address) => isOnLink(self.underlay, address)) ?? candidates[0];
}

/** A plain route to a peer's pods through the peer itself, which must share our L2. */
export function directRoute(podCIDR: Prefix, via: Address, underlay: Underlay): Route {
  return { kind: 'route', destination: podCIDR, via, link: underlay.link, onLink: false };
}

/** Our own address to carry this family from, or what stops the family on this node. */
export function localAddress(family: Family, self: SelfNode, mtuBytes: number): Address | string {
  const kind = familyName(family);
  const address = self.underlay.addresses[family];
  if (address === undefined) {
    return `Cannot carry ${kind} pod traffic: link ${self.underlay.link} has no ${kind} address of this node`;
  }
  if (mtuBytes < leastMtuBytes[family]) {
    return `Cannot carry ${kind} pod traffic: an MTU of ${mtuBytes} bytes is left for pods, ${kind} needs ${leastMtuBytes[family]}`;
  }
  return address;
}

/** For people. */
export function familyName(family: Family): 'IPv4' | 'IPv6' {
  return family === 'ip' ? 'IPv4' : 'IPv6';
}
