/**
 * Pod traffic between nodes in VXLAN (RFC 7348): IPv4 pods over the IPv4 underlay, IPv6 pods over
 * the IPv6 one, each family by itself. A peer costs one neighbour, one FDB entry and one route,
 * however many pods it has; nothing is learned from packets. Layout and defaults are flannel's, so
 * that both kinds of node can share one network.
 */
import type { FdbEntry, HostObject, Neighbor, Route } from '#pkg/host-network/object.ts';
import type { Address, Family } from '#pkg/ip/address.ts';
import { hostPrefix, type Prefix } from '#pkg/ip/prefix.ts';
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
import { vxlanOverheadBytes } from './mtu.ts';
import { isAnnouncedVni } from './annotations.ts';
import type { NodeFacts, NodeProblem } from './node-facts.ts';
import { linkLocalAddress, vtepMac } from './vtep-mac.ts';

export interface VxlanOptions {
  /** VXLAN network identifier, 1 to 16777215. */
  readonly vni: number;
  /** UDP port of outer packets; Linux' own default and flannel's is 8472, IANA's 4789. */
  readonly port: number;
  /** Peers on our own L2 get plain routes: their packets need no wrapping. */
  readonly directRouting: boolean;
  /** Upper limit for the pods' MTU. */
  readonly mtuBytes?: number;
  /** Packet marks travel along: every node must have it, or none. */
  readonly groupPolicy?: boolean;
}

/** Objects for every peer that announced a VTEP, or shares our L2 when direct routing is on. */
export function vxlanObjects(
  peers: readonly NodeFacts[],
  self: SelfNode,
  options: VxlanOptions,
): BackendResult {
  const mtu = {
    overheadBytes: vxlanOverheadBytes,
    ...(options.mtuBytes === undefined ? {} : { limitBytes: options.mtuBytes }),
  };
  return carryFamilies(self, mtu, (carrier) => {
    const { family, local } = carrier;
    const vtep: Vtep = { ...carrier, link: vxlanLinkName(options.vni, family) };
    const mac = vtepMac(self.uid, options.vni, family);
    const { objects, problems } = peerObjects(peers, vtep, { self, options });
    return {
      objects: [...deviceObjects(vtep, mac, { self, options }), ...objects],
      problems,
      announcement: { backend: 'vxlan', publicIP: local, vtep: { vni: options.vni, mac } },
    };
  });
}

/**
 * `podwire.<vni>`, and `podwire-v6.<vni>` for IPv6. From five digits on the number is written in
 * base 16 after an "x": a name has 15 bytes, and a VNI up to eight digits.
 */
export function vxlanLinkName(vni: number, family: Family): string {
  if (vni <= 9999) return family === 'ip' ? `podwire.${vni}` : `podwire-v6.${vni}`;
  const number = `x${vni.toString(16)}`;
  return family === 'ip' ? `podwire.${number}` : `podwire6${number}`;
}

interface Vtep extends Carrier {
  readonly link: string;
}

interface Context {
  readonly self: SelfNode;
  readonly options: VxlanOptions;
}

function deviceObjects(vtep: Vtep, mac: string, { self, options }: Context): HostObject[] {
  const { link, local, mtuBytes, podCIDR } = vtep;
  const underlay = self.underlay.link;
  const { vni, port, groupPolicy } = options;
  return [
    {
      kind: 'vxlan',
      link,
      vni,
      port,
      mtuBytes,
      mac,
      local,
      underlay,
      ...(groupPolicy === true ? { groupPolicy } : {}),
    },
    // The range's own network address, which no pod gets: packets from this host to remote pods
    // leave with it, so that the way back is the overlay too.
    { kind: 'address', link, prefix: hostPrefix(podCIDR.address) },
  ];
}

function peerObjects(
  peers: readonly NodeFacts[],
  vtep: Vtep,
  context: Context,
): Pick<BackendResult, 'objects' | 'problems'> {
  const plain: Route[] = [];
  const neighbors: Neighbor[] = [];
  const fdb: FdbEntry[] = [];
  const routes: Route[] = [];
  const problems: NodeProblem[] = [];
  const ownerOfMac = new Map([
    [vtepMac(context.self.uid, context.options.vni, vtep.family), context.self.name],
  ]);
  for (const peer of peers) {
    const podCIDR = peer.podCIDRs[vtep.family];
    if (podCIDR === undefined) continue;
    const path = peerPath(peer, vtep, context);
    if (path === undefined) continue;
    if (path.kind === 'problem') {
      problems.push({ node: peer.name, message: path.message });
      continue;
    }
    if (path.kind === 'direct') {
      plain.push(directRoute(podCIDR, path.via, context.self.underlay));
      continue;
    }
    const twin = ownerOfMac.get(path.mac);
    if (twin !== undefined) {
      // One FDB entry per MAC: two nodes with one MAC would take each other's packets.
      const message = `Cannot reach the node by VXLAN: its VTEP MAC ${path.mac} is that of node ${twin}`;
      problems.push({ node: peer.name, message });
      continue;
    }
    ownerOfMac.set(path.mac, peer.name);
    const { link } = vtep;
    const inner = innerAddress(podCIDR, path.mac);
    const onLink = inner.family === 'ip';
    neighbors.push({ kind: 'neighbor', link, address: inner, mac: path.mac });
    fdb.push({ kind: 'fdb', link, mac: path.mac, remote: path.remote });
    routes.push({ kind: 'route', destination: podCIDR, via: inner, link, onLink });
  }
  // Routes last: from a route's first packet on, the neighbour and FDB entry are there.
  return { objects: [...neighbors, ...fdb, ...plain, ...routes], problems };
}

/**
 * The next hop to a peer, which nothing but our own neighbour entry has to know. For IPv4 its range's
 * first address, as in flannel. For IPv6 the link-local address that belongs to the MAC: as long as
 * another route leads to the pods, the kernel refuses a gateway among them on this device.
 */
function innerAddress(podCIDR: Prefix, mac: string): Address {
  return podCIDR.address.family === 'ip' ? podCIDR.address : linkLocalAddress(mac);
}

type PeerPath =
  | { readonly kind: 'direct'; readonly via: Address }
  | { readonly kind: 'tunnel'; readonly remote: Address; readonly mac: string }
  | { readonly kind: 'problem'; readonly message: string };

/** How to reach a peer, or undefined while its agent has not announced anything. */
function peerPath(peer: NodeFacts, vtep: Vtep, { self, options }: Context): PeerPath | undefined {
  const announcement = peer.announcements[vtep.family];
  if (announcement === undefined) return undefined;
  const remote = peerAddress(peer, vtep.family, self);
  if (remote === undefined) return undefined;
  const message = ownAddressProblem(remote, self);
  if (message !== undefined) return { kind: 'problem', message };
  // A node that changes to host-gw is followed before the others are told to change.
  const takesPlain = options.directRouting || announcement.backend === 'host-gw';
  if (takesPlain && isOnLink(self.underlay, remote)) return { kind: 'direct', via: remote };
  if (announcement.vtep === undefined) {
    const message = `Cannot reach the node by VXLAN: its agent runs the backend ${announcement.backend}`;
    return { kind: 'problem', message };
  }
  if (!isAnnouncedVni(announcement.vtep.vni, options.vni)) {
    const message = `Cannot reach the node by VXLAN: it uses VNI ${announcement.vtep.vni}, this node ${options.vni}`;
    return { kind: 'problem', message };
  }
  return { kind: 'tunnel', remote, mac: announcement.vtep.mac };
}
