/**
 * What every way of carrying pod traffic between nodes has in common: a pure function from the
 * cluster's nodes and our own place in it to objects in the host's network.
 */
import type { HostObject, Route } from '#pkg/host-network/object.ts';
import {
  families,
  formatAddress,
  sameAddress,
  type Address,
  type Family,
} from '#pkg/ip/address.ts';
import { containsAddress, type Prefix } from '#pkg/ip/prefix.ts';
import type { BgpSpeaker } from './bgp-speaker.ts';
import { leastMtuBytes, limitMtuBytes } from './mtu.ts';
import type { ByFamily, NodeFacts, NodeProblem } from './node-facts.ts';
import type { Announcement } from './annotations.ts';

export const backendTypes = [
  'vxlan',
  'host-gw',
  'wireguard',
  'ipip',
  'udp',
  'bgp',
  'none',
] as const;
export type BackendType = (typeof backendTypes)[number];

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
  /** For a program outside the kernel that carries packets: where each peer's are sent. */
  readonly forwarding?: Forwarding;
  /** For a routing daemon. */
  readonly routing?: BgpSpeaker;
}

/** What a userspace forwarder does between a TUN device and UDP. */
export interface Forwarding {
  readonly link: string;
  readonly port: number;
  /** Where it receives, one address a family. */
  readonly locals: readonly Address[];
  readonly peers: readonly ForwardingPeer[];
}

export interface ForwardingPeer {
  readonly podCIDR: Prefix;
  readonly remote: Address;
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

/** A family that works here, as a backend sees it. */
export interface Carrier {
  readonly family: Family;
  readonly podCIDR: Prefix;
  /** Our own address on the underlay. */
  readonly local: Address;
  /** Of packets between pods. */
  readonly mtuBytes: number;
}

/** What a backend does for one family. */
type CarryFamily = (carrier: Carrier) => Pick<BackendResult, 'objects' | 'problems'> & {
  readonly announcement?: Announcement;
};

/**
 * A backend that carries each family by itself over the underlay's addresses of that family. One
 * that cannot be carried is a problem of ours, and the other works.
 *
 * @param overheadBytes what is added to each packet
 * @param limitBytes upper limit for the pods' MTU
 */
export function carryFamilies(
  self: SelfNode,
  mtu: { readonly overheadBytes: Readonly<Record<Family, number>>; readonly limitBytes?: number },
  carry: CarryFamily,
): BackendResult {
  const objects: HostObject[] = [];
  const problems: NodeProblem[] = [];
  const working: Carrier[] = [];
  const announcements: Partial<Record<Family, Announcement>> = {};
  for (const family of families) {
    const podCIDR = self.podCIDRs[family];
    if (podCIDR === undefined) continue;
    const fitsBytes = self.underlay.mtuBytes - mtu.overheadBytes[family];
    const mtuBytes = limitMtuBytes(fitsBytes, mtu.limitBytes);
    const local = localAddress(family, self, mtuBytes);
    if (typeof local === 'string') {
      problems.push({ node: self.name, message: local });
      continue;
    }
    const carrier = { family, podCIDR, local, mtuBytes };
    working.push(carrier);
    const result = carry(carrier);
    objects.push(...result.objects);
    problems.push(...result.problems);
    if (result.announcement !== undefined) announcements[family] = result.announcement;
  }
  return {
    objects,
    problems,
    families: working.map(({ family }) => family),
    announcements,
    mtuBytes: working.length === 0 ? undefined : Math.min(...working.map((c) => c.mtuBytes)),
  };
}

/** What a peer's address is when packets sent to it would come back to us; else undefined. */
export function ownAddressProblem(remote: Address, self: SelfNode): string | undefined {
  const own = self.underlay.addresses[remote.family];
  if (own === undefined || !sameAddress(own, remote)) return undefined;
  return `Cannot reach the node: it announces our own address ${formatAddress(remote)}`;
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
