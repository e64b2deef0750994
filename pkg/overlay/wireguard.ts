/**
 * Pod traffic between nodes encrypted by WireGuard. Every node has a key of its own and is a peer
 * of every other, allowed to send from its own pods' addresses only. Modes, ports and annotations
 * are flannel's, so that both kinds of node can share one network.
 */
import type { HostObject, WireguardPeer } from '#pkg/host-network/object.ts';
import { compareAddresses, families, type Address, type Family } from '#pkg/ip/address.ts';
import { hostPrefix, type Prefix } from '#pkg/ip/prefix.ts';
import type { Announcement } from './annotations.ts';
import {
  carryFamilies,
  familyName,
  ownAddressProblem,
  type BackendResult,
  type SelfNode,
} from './backend.ts';
import { leastMtuBytes, limitMtuBytes, wireguardOverheadBytes } from './mtu.ts';
import type { NodeFacts, NodeProblem } from './node-facts.ts';

/**
 * `separate`: a device per family, each over its own family's addresses. The others: one device for
 * both, over IPv4, over IPv6, or (`auto`) over IPv4 where both nodes have it and else over IPv6.
 */
export const wireguardModes = ['separate', 'auto', 'ipv4', 'ipv6'] as const;
export type WireguardMode = (typeof wireguardModes)[number];

export interface WireguardOptions {
  readonly mode: WireguardMode;
  /** Base64. */
  readonly publicKey: string;
  /** UDP port of every node's device; of the one for IPv6 in mode `separate`. */
  readonly port: number;
  readonly portV6: number;
  /** 0 = off. */
  readonly keepaliveSeconds: number;
  /** Name of the secret that all nodes share, if there is one. */
  readonly presharedKey: string | undefined;
  /** Upper limit for the pods' MTU. */
  readonly mtuBytes?: number;
}

/** Objects for every peer that announced its key. */
export function wireguardObjects(
  peers: readonly NodeFacts[],
  self: SelfNode,
  options: WireguardOptions,
): BackendResult {
  return options.mode === 'separate'
    ? separateDevices(peers, self, options)
    : oneDevice(peers, self, options, options.mode);
}

/** `podwire-wg`, and `podwire-wg-v6` for IPv6 in mode `separate`. */
function wireguardLinkName(family: Family): string {
  return family === 'ip' ? 'podwire-wg' : 'podwire-wg-v6';
}

/** Whether a device of this name is one of ours. */
export function isWireguardLink(name: string): boolean {
  return name === wireguardLinkName('ip') || name === wireguardLinkName('ip6');
}

function separateDevices(
  peers: readonly NodeFacts[],
  self: SelfNode,
  options: WireguardOptions,
): BackendResult {
  const overheadBytes = { ip: wireguardOverheadBytes, ip6: wireguardOverheadBytes };
  const limit = options.mtuBytes === undefined ? {} : { limitBytes: options.mtuBytes };
  return carryFamilies(self, { overheadBytes, ...limit }, ({ family, local, mtuBytes }) => {
    const port = family === 'ip' ? options.port : options.portV6;
    const device = { link: wireguardLinkName(family), port, mtuBytes };
    const problems: NodeProblem[] = [];
    const found = peers.flatMap((peer): Peer[] => {
      const podCIDR = peer.podCIDRs[family];
      if (podCIDR === undefined) return [];
      const remote = peer.announcements[family]?.publicIP;
      return peerOf(peer, { remote, ranges: [podCIDR], self, problems });
    });
    return {
      objects: deviceObjects(device, found, { self, options, families: [family], problems }),
      problems,
      announcement: announce(local, options),
    };
  });
}

function oneDevice(
  peers: readonly NodeFacts[],
  self: SelfNode,
  options: WireguardOptions,
  mode: 'auto' | 'ipv4' | 'ipv6',
): BackendResult {
  const problems: NodeProblem[] = [];
  const { addresses } = self.underlay;
  const over = outerFamilies(mode).filter((family) => addresses[family] !== undefined);
  const fitsBytes = self.underlay.mtuBytes - wireguardOverheadBytes;
  const mtuBytes = limitMtuBytes(fitsBytes, options.mtuBytes);
  const working = families.filter((family) => {
    if (self.podCIDRs[family] === undefined) return false;
    if (mtuBytes >= leastMtuBytes[family]) return true;
    const kind = familyName(family);
    const message = `Cannot carry ${kind} pod traffic: an MTU of ${mtuBytes} bytes is left for pods, ${kind} needs ${leastMtuBytes[family]}`;
    problems.push({ node: self.name, message });
    return false;
  });
  if (over.length === 0) {
    const kinds = outerFamilies(mode).map(familyName).join(' or ');
    const message = `Cannot carry pod traffic by WireGuard: link ${self.underlay.link} has no ${kinds} address of this node`;
    problems.push({ node: self.name, message });
  }
  if (over.length === 0 || working.length === 0) {
    return { objects: [], problems, families: [], announcements: {}, mtuBytes: undefined };
  }
  const device = { link: wireguardLinkName('ip'), port: options.port, mtuBytes };
  const found = peers.flatMap((peer): Peer[] => {
    const ranges = working.flatMap((family) => peer.podCIDRs[family] ?? []);
    if (ranges.length === 0) return [];
    const outer = over.find((family) => peer.announcements[family] !== undefined);
    const remote = outer === undefined ? undefined : peer.announcements[outer]?.publicIP;
    return peerOf(peer, { remote, ranges, self, problems });
  });
  const announcements: Partial<Record<Family, Announcement>> = {};
  for (const family of families) {
    const local = addresses[family];
    if (local !== undefined) announcements[family] = announce(local, options);
  }
  return {
    objects: deviceObjects(device, found, { self, options, families: working, problems }),
    problems,
    families: working,
    announcements,
    mtuBytes,
  };
}

function outerFamilies(mode: 'auto' | 'ipv4' | 'ipv6'): readonly Family[] {
  if (mode === 'auto') return families;
  return mode === 'ipv4' ? ['ip'] : ['ip6'];
}

function announce(publicIP: Address, { publicKey }: WireguardOptions): Announcement {
  return { backend: 'wireguard', publicIP, publicKey };
}

interface Peer {
  readonly name: string;
  readonly publicKey: string;
  readonly remote: Address;
  readonly ranges: readonly Prefix[];
}

/** Nothing while the peer has announced nothing. */
function peerOf(
  peer: NodeFacts,
  path: {
    readonly remote: Address | undefined;
    readonly ranges: readonly Prefix[];
    readonly self: SelfNode;
    readonly problems: NodeProblem[];
  },
): Peer[] {
  const { remote, ranges, self, problems } = path;
  const [announcement] = families.flatMap((family) => peer.announcements[family] ?? []);
  if (announcement === undefined) return [];
  const report = (message: string): Peer[] => {
    problems.push({ node: peer.name, message });
    return [];
  };
  const { publicKey, backend } = announcement;
  if (publicKey === undefined) {
    return report(`Cannot reach the node by WireGuard: its agent runs the backend ${backend}`);
  }
  if (remote === undefined) {
    return report('Cannot reach the node by WireGuard: it announces no address of a family we use');
  }
  const own = ownAddressProblem(remote, self);
  if (own !== undefined) return report(own);
  return [{ name: peer.name, publicKey, remote, ranges }];
}

function deviceObjects(
  device: { readonly link: string; readonly port: number; readonly mtuBytes: number },
  peers: readonly Peer[],
  context: {
    readonly self: SelfNode;
    readonly options: WireguardOptions;
    readonly families: readonly Family[];
    readonly problems: NodeProblem[];
  },
): HostObject[] {
  const { self, options, problems } = context;
  const { link, port } = device;
  const { publicKey, keepaliveSeconds, presharedKey } = options;
  const entries: WireguardPeer[] = [];
  const routes: HostObject[] = [];
  const ownerOfKey = new Map([[publicKey, self.name]]);
  for (const peer of peers) {
    const twin = ownerOfKey.get(peer.publicKey);
    if (twin !== undefined) {
      const message = `Cannot reach the node by WireGuard: its public key ${peer.publicKey} is that of node ${twin}`;
      problems.push({ node: peer.name, message });
      continue;
    }
    ownerOfKey.set(peer.publicKey, peer.name);
    entries.push({
      kind: 'wireguard-peer',
      link,
      publicKey: peer.publicKey,
      endpoint: { address: peer.remote, port },
      allowedIPs: peer.ranges.toSorted((a, b) => compareAddresses(a.address, b.address)),
      keepaliveSeconds,
      presharedKey,
    });
    for (const destination of peer.ranges) {
      routes.push({ kind: 'route', destination, link, onLink: false });
    }
  }
  const addresses = context.families.flatMap((family): HostObject[] => {
    const podCIDR = self.podCIDRs[family];
    // This host's packets to remote pods need a source that our peers allow us.
    return podCIDR === undefined
      ? []
      : [{ kind: 'address', link, prefix: hostPrefix(podCIDR.address) }];
  });
  return [{ kind: 'wireguard', ...device, publicKey }, ...addresses, ...entries, ...routes];
}
