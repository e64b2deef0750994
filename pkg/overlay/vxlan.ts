/**
 * Pod traffic between nodes in VXLAN (RFC 7348): IPv4 pods over the IPv4 underlay, IPv6 pods over
 * the IPv6 one, each family by itself. A peer costs one neighbour, one FDB entry and one route,
 * however many pods it has; nothing is learned from packets. Layout and defaults are flannel's, so
 * that both kinds of node can share one network.
 */
import type { FdbEntry, HostObject, Neighbor, Route } from '#pkg/host-network/object.ts';
import { families, formatAddress, type Address, type Family } from '#pkg/ip/address.ts';
import { hostPrefix, type Prefix } from '#pkg/ip/prefix.ts';
import type { Announcement } from './annotations.ts';
import {
  directRoute,
  isOnLink,
  localAddress,
  peerAddress,
  type BackendResult,
  type SelfNode,
} from './backend.ts';
import { limitMtuBytes, vxlanOverheadBytes } from './mtu.ts';
import type { NodeFacts, NodeProblem } from './node-facts.ts';
import { vtepMac } from './vtep-mac.ts';

export interface VxlanOptions {
  /** VXLAN network identifier, 1 to 16777215. */
  readonly vni: number;
  /** UDP port of outer packets; Linux' own default and flannel's is 8472, IANA's 4789. */
  readonly port: number;
  /** Peers on our own L2 get plain routes: their packets need no wrapping. */
  readonly directRouting: boolean;
  /** Upper limit for the pods' MTU. */
  readonly mtuBytes?: number;
}

/** Objects for every peer that announced a VTEP, or shares our L2 when direct routing is on. */
export function vxlanObjects(
  peers: readonly NodeFacts[],
  self: SelfNode,
  options: VxlanOptions,
): BackendResult {
  const objects: HostObject[] = [];
  const problems: NodeProblem[] = [];
  const working: Family[] = [];
  const announcements: Partial<Record<Family, Announcement>> = {};
  let podMtuBytes: number | undefined;
  for (const family of families) {
    const podCIDR = self.podCIDRs[family];
    if (podCIDR === undefined) continue;
    const fitsBytes = self.underlay.mtuBytes - vxlanOverheadBytes[family];
    const mtuBytes = limitMtuBytes(fitsBytes, options.mtuBytes);
    const local = localAddress(family, self, mtuBytes);
    if (typeof local === 'string') {
      problems.push({ node: self.name, message: local });
      continue;
    }
    working.push(family);
    podMtuBytes = Math.min(mtuBytes, podMtuBytes ?? mtuBytes);
    const vtep: Vtep = {
      family,
      link: vxlanLinkName(options.vni, family),
      podCIDR,
      local,
      mtuBytes,
    };
    const mac = vtepMac(self.uid, options.vni, family);
    announcements[family] = {
      backend: 'vxlan',
      publicIP: local,
      vtep: { vni: options.vni, mac },
    };
    objects.push(...deviceObjects(vtep, mac, { self, options }));
    const result = peerObjects(peers, vtep, { self, options });
    objects.push(...result.objects);
    problems.push(...result.problems);
  }
  return { objects, problems, families: working, announcements, mtuBytes: podMtuBytes };
}

/** `podwire.<vni>`, and `podwire-v6.<vni>` for IPv6: at most 15 bytes while the VNI has 4 digits. */
export function vxlanLinkName(vni: number, family: Family): string {
  return family === 'ip' ? `podwire.${vni}` : `podwire-v6.${vni}`;
}

interface Vtep {
  readonly family: Family;
  readonly link: string;
  readonly podCIDR: Prefix;
  readonly local: Address;
  readonly mtuBytes: number;
}

interface Context {
  readonly self: SelfNode;
  readonly options: VxlanOptions;
}

function deviceObjects(vtep: Vtep, mac: string, { self, options }: Context): HostObject[] {
  const { link, local, mtuBytes, podCIDR } = vtep;
  const underlay = self.underlay.link;
  const { vni, port } = options;
  return [
    { kind: 'vxlan', link, vni, port, mtuBytes, mac, local, underlay },
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
    neighbors.push({ kind: 'neighbor', link, address: podCIDR.address, mac: path.mac });
    fdb.push({ kind: 'fdb', link, mac: path.mac, remote: path.remote });
    routes.push({ kind: 'route', destination: podCIDR, via: podCIDR.address, link, onLink: true });
  }
  // Routes last: from a route's first packet on, the neighbour and FDB entry are there.
  return { objects: [...neighbors, ...fdb, ...plain, ...routes], problems };
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
  if (remote.value === vtep.local.value) {
    const message = `Cannot reach the node: it announces our own address ${formatAddress(remote)}`;
    return { kind: 'problem', message };
  }
  if (options.directRouting && isOnLink(self.underlay, remote))
    return { kind: 'direct', via: remote };
  if (announcement.vtep === undefined) {
    const message = `Cannot reach the node by VXLAN: its agent runs the backend ${announcement.backend}`;
    return { kind: 'problem', message };
  }
  if (announcement.vtep.vni !== options.vni) {
    const message = `Cannot reach the node by VXLAN: it uses VNI ${announcement.vtep.vni}, this node ${options.vni}`;
    return { kind: 'problem', message };
  }
  return { kind: 'tunnel', remote, mac: announcement.vtep.mac };
}
