/**
 * Pod traffic between nodes by routes that a routing daemon on each node exchanges over BGP (RFC
 * 4271): every node with every other, or all with route reflectors (RFC 4456). One session for each
 * family, over that family. What we contribute is the daemon's configuration; routes are its own.
 */
import { formatAddress, sameAddress, type Address } from '#pkg/ip/address.ts';
import { familyOf, type Prefix } from '#pkg/ip/prefix.ts';
import {
  carryFamilies,
  familyName,
  isOnLink,
  ownAddressProblem,
  peerAddress,
  type BackendResult,
  type Carrier,
  type SelfNode,
} from './backend.ts';
import type { BgpFamily, BgpSession } from './bgp-speaker.ts';
import type { NodeFacts, NodeProblem } from './node-facts.ts';

export interface BgpOptions {
  /** Of every node and reflector. */
  readonly asNumber: number;
  /**
   * Addresses of route reflectors: nodes of the cluster, which then reflect, or other machines.
   * Empty = every node speaks with every other.
   */
  readonly reflectors: readonly Address[];
  /** Upper limit for the pods' MTU. */
  readonly mtuBytes?: number;
}

/** What the routing daemon has to say, and to whom; no objects. */
export function bgpRouting(
  peers: readonly NodeFacts[],
  self: SelfNode,
  options: BgpOptions,
): BackendResult {
  const limit = options.mtuBytes === undefined ? {} : { limitBytes: options.mtuBytes };
  const mtu = { overheadBytes: { ip: 0, ip6: 0 }, ...limit };
  const spoken: BgpFamily[] = [];
  const result = carryFamilies(self, mtu, (carrier) => {
    const { family, podCIDR, local } = carrier;
    const problems: NodeProblem[] = [];
    const sessions = sessionsOf(peers, carrier, { self, options, problems });
    const { link, onLinkPrefixes, routedPrefixes } = self.underlay;
    const ofFamily = (prefix: Prefix): boolean => familyOf(prefix) === family;
    spoken.push({
      family,
      podCIDR,
      link,
      local,
      onLinkPrefixes: onLinkPrefixes.filter(ofFamily),
      routedPrefixes: routedPrefixes.filter(ofFamily),
      sessions,
    });
    return { objects: [], problems, announcement: { backend: 'bgp', publicIP: local } };
  });
  if (result.mtuBytes === undefined) return result;
  const { asNumber } = options;
  return { ...result, routing: { asNumber, identifier: identifierOf(self), families: spoken } };
}

/** The node's IPv4 address, else the end of the other, which is where those of a network differ. */
function identifierOf({ underlay: { addresses } }: SelfNode): Address {
  const value = addresses.ip?.value ?? (addresses.ip6?.value ?? 0n) & 0xffff_ffffn;
  // 0 is forbidden (RFC 6286, 2.1).
  return { family: 'ip', value: value === 0n ? 1n : value };
}

interface Context {
  readonly self: SelfNode;
  readonly options: BgpOptions;
  readonly problems: NodeProblem[];
}

function sessionsOf(
  peers: readonly NodeFacts[],
  { family, local }: Carrier,
  { self, options, problems }: Context,
): readonly BgpSession[] {
  const reflectors = options.reflectors.filter((address) => address.family === family);
  if (options.reflectors.length > 0 && reflectors.length === 0) {
    const kind = familyName(family);
    const message = `Cannot announce ${kind} pods: no route reflector has an ${kind} address`;
    problems.push({ node: self.name, message });
    return [];
  }
  const isReflector = (address: Address): boolean =>
    reflectors.some((reflector) => sameAddress(reflector, address));
  const session = (neighbor: Address, isClient: boolean): BgpSession => ({
    neighbor,
    onLink: isOnLink(self.underlay, neighbor),
    isReflector: isReflector(neighbor),
    isClient,
  });
  const others = reflectors.filter(
    (address, i) =>
      !sameAddress(address, local) && reflectors.findIndex((r) => sameAddress(r, address)) === i,
  );
  const reflecting = isReflector(local);
  const toReflectors = others.map((address) => session(address, false));
  if (reflectors.length > 0 && !reflecting) return toReflectors;
  const toNodes: BgpSession[] = [];
  // A session is named by its address, and BIRD refuses all of a file that has a name twice.
  const ownerOf = new Map<string, string>();
  for (const peer of peers) {
    const announcement = peer.announcements[family];
    const neighbor = peerAddress(peer, family, self);
    if (announcement === undefined || neighbor === undefined || isReflector(neighbor)) continue;
    const problem =
      ownAddressProblem(neighbor, self) ??
      (announcement.backend === 'bgp'
        ? undefined
        : `Cannot speak BGP with ${formatAddress(neighbor)}: the node's agent runs the backend ${announcement.backend}`);
    const text = formatAddress(neighbor);
    const twin = ownerOf.get(text);
    if (problem !== undefined) problems.push({ node: peer.name, message: problem });
    else if (twin !== undefined) {
      const message = `Cannot speak BGP with the node: its address ${text} is that of node ${twin}`;
      problems.push({ node: peer.name, message });
    } else {
      ownerOf.set(text, peer.name);
      toNodes.push(session(neighbor, reflecting));
    }
  }
  return [...toReflectors, ...toNodes];
}
