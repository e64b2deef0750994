/**
 * The whole of what one node's pod network wants, from the cluster's Nodes and the node's own
 * links: a pure function, and the only place where its parts meet.
 */
import type { Device } from '#pkg/host-network/device.ts';
import type { HostObject } from '#pkg/host-network/object.ts';
import { families, type Address, type Family } from '#pkg/ip/address.ts';
import { familyOf, tryParsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { Ruleset as IptablesRuleset } from '#pkg/iptables/ruleset.ts';
import type { Ruleset } from '#pkg/nftables/ruleset.ts';
import { announceAs, parseAddressWishes } from '#pkg/overlay/address-wishes.ts';
import { announcementPatch } from '#pkg/overlay/annotations.ts';
import { backendOf, formerDevices, type BackendOptions } from '#pkg/overlay/backend-of.ts';
import { familyName, type BackendResult, type SelfNode } from '#pkg/overlay/backend.ts';
import { wishedLink, type LinkWishes } from '#pkg/overlay/link-choice.ts';
import {
  parseCluster,
  type ByFamily,
  type NodeFacts,
  type NodeProblem,
} from '#pkg/overlay/node-facts.ts';
import { chooseUnderlay, type HostLink } from '#pkg/overlay/underlay.ts';
import { masqueradeRuleset } from './masquerade.ts';
import { nodeFileText } from './node-file.ts';
import { subnetEnvText } from './subnet-env.ts';
import { packetFilterRulesets } from './packet-filter.ts';
import type { PeerBasis } from './peer-index.ts';
import { addressSysctls, forwardingSysctls } from './sysctls.ts';

export interface PodNetworkOptions extends BackendOptions {
  readonly nodeName: string;
  /** The link between nodes; undefined = the one with the Node's InternalIP. */
  readonly link: string | undefined;
  /** As `link`, where it is not the same on every node. */
  readonly linkWishes?: LinkWishes;
  readonly masquerade: boolean;
  /** What does it; nftables by default. */
  readonly masqueradeBy?: 'nftables' | 'iptables';
  /** Masquerade with random source ports; true by default. */
  readonly randomFully?: boolean;
  /** Let pod traffic pass where the host's policy is to drop what it forwards; true by default. */
  readonly forwardAccept?: boolean;
  readonly nonMasqueradeCIDRs: readonly Prefix[];
  readonly annotationPrefix: string;
  /** Families of pods; none = those of the Node's podCIDRs. */
  readonly families?: readonly Family[];
  /** The networks all pods are in, where they are known. */
  readonly clusterCIDRs?: readonly Prefix[];
}

/** What was observed of this host. */
export interface HostFacts {
  readonly links: readonly HostLink[];
  /** Where packets go that have no other way: the best route first, IPv4 before IPv6. */
  readonly defaultLinks?: readonly string[];
  /** The link that packets to an address leave by. */
  readonly routedLink?: (address: Address) => string | undefined;
  /** Links on which the host has learned IPv6 routes by router advertisement. */
  readonly advertisedLinks: readonly string[];
  /** net/ipv6/conf/LINK/accept_ra by link name; undefined = absent. */
  readonly acceptRa: (link: string) => string | undefined;
}

/** The node cannot have a pod network yet. */
export interface NotReady {
  readonly kind: 'not-ready';
  /** For people: what is missing and who provides it. */
  readonly reason: string;
}

export interface Desired {
  readonly kind: 'desired';
  /** The link that carries traffic between nodes. */
  readonly underlay: string;
  readonly objects: readonly HostObject[];
  /** Kinds of devices of another backend that peers still send to: those that are there stay. */
  readonly retainedDevices: ReadonlySet<Device['kind']>;
  readonly forwarding: BackendResult['forwarding'];
  readonly routing: BackendResult['routing'];
  readonly ruleset: Ruleset;
  /** For iptables, one of each family. */
  readonly packetFilter: readonly IptablesRuleset[];
  /** Text of node.json. */
  readonly nodeFile: string;
  /** Text of flannel's subnet.env. */
  readonly subnetEnv: string;
  /** Changes to our own Node's annotations; empty = none. */
  readonly annotationPatch: Readonly<Record<string, string | null>>;
  readonly problems: readonly NodeProblem[];
  /** From which changes of single peers can be told. */
  readonly basis: PeerBasis;
}

/** What this node wants, or why it cannot want anything yet. */
export function desiredPodNetwork(
  records: ReadonlyMap<string, NodeRecord>,
  host: HostFacts,
  options: PodNetworkOptions,
): Desired | NotReady {
  const { nodeName, annotationPrefix, families: wanted, clusterCIDRs = [] } = options;
  const record = records.get(nodeName);
  const cluster = parseCluster(records.values(), {
    selfName: nodeName,
    annotationPrefix,
    ...(wanted === undefined ? {} : { families: wanted }),
  });
  const facts = cluster.nodes.get(nodeName);
  if (record === undefined || facts === undefined) {
    return notReady(`Cannot find Node ${nodeName}: it is not registered with the API server`);
  }
  if (Object.keys(facts.podCIDRs).length === 0) return notReady(noPodCIDRs(record, wanted));
  const { podCIDRs, uid } = facts;
  const wishes = parseAddressWishes(record.annotations, annotationPrefix);
  const chosen = Object.values(wishes.local);
  const internalIPs = chosen.length === 0 ? facts.internalIPs : chosen;
  const wished = linkOf(host, options);
  if (typeof wished === 'string') return notReady(wished);
  const announced = Object.values(facts.announcements).map(({ publicIP }) => publicIP);
  const underlay = chooseUnderlay(host.links, { internalIPs, link: wished?.link, announced });
  if (typeof underlay === 'string') return notReady(underlay);
  const self: SelfNode = { name: nodeName, uid, podCIDRs, underlay };
  const peers = [...cluster.nodes.values()].filter((node) => node !== facts);
  const backend = backendOf(options);
  const overlay = backend(peers, self);
  const wrong = wishes.problems.map((message) => ({ node: nodeName, message }));
  const problems = [...cluster.problems, ...overlay.problems, ...wrong];
  if (overlay.mtuBytes === undefined) {
    const own = problems.filter(({ node }) => node === nodeName);
    return notReady(own.map(({ message }) => message).join('; '));
  }
  const { link } = underlay;
  const advertised = [...new Set([link, ...host.advertisedLinks])].map((name) => ({
    link: name,
    acceptRa: host.acceptRa(name),
  }));
  const sysctls = forwardingSysctls(overlay.families, advertised);
  const nonMasqueradeCIDRs = [...options.nonMasqueradeCIDRs, ...clusterCIDRs];
  const ownPodCIDRs = inNodeOrder(record, podCIDRs, overlay.families);
  const byIptables = options.masqueradeBy === 'iptables';
  const masquerade = !options.masquerade
    ? undefined
    : {
        ownPodCIDRs,
        podCIDRs: allPodCIDRs(cluster.nodes),
        nodeAddresses: allNodeAddresses(cluster.nodes),
        nonMasqueradeCIDRs,
        randomFully: options.randomFully ?? true,
      };
  return {
    kind: 'desired',
    underlay: link,
    objects: [...sysctls, ...addressSysctls(overlay.objects), ...overlay.objects],
    retainedDevices: formerDevices(peers, overlay.objects, options.backend),
    forwarding: overlay.forwarding,
    routing: overlay.routing,
    ruleset:
      masquerade !== undefined && !byIptables ? masqueradeRuleset(masquerade) : { tables: [] },
    packetFilter: packetFilterRulesets({
      ownPodCIDRs,
      forward: options.forwardAccept !== false,
      masquerade: byIptables ? masquerade : undefined,
    }),
    nodeFile: nodeFileText({
      podCIDRs: ownPodCIDRs,
      mtuBytes: overlay.mtuBytes,
      backend: options.backend,
    }),
    subnetEnv: subnetEnvText({
      clusterCIDRs,
      podCIDRs: ownPodCIDRs,
      mtuBytes: overlay.mtuBytes,
      masquerade: options.masquerade,
    }),
    annotationPatch: announcementPatch(
      announceAs(overlay.announcements, wishes.announced),
      record.annotations,
      annotationPrefix,
    ),
    problems,
    basis: {
      backend,
      self,
      announcements: overlay.announcements,
      nodes: cluster.nodes,
      // Rules of iptables are a list: each peer has its place in it.
      isContested: cluster.isContested || (masquerade !== undefined && byIptables),
      troubled: new Set(problems.map(({ node }) => node)),
      annotationPrefix,
      ...(wanted === undefined ? {} : { families: wanted }),
      masqueraded: options.masquerade ? ownPodCIDRs.map(familyOf) : [],
      nonMasqueradeCIDRs,
    },
  };
}

/** The link that the configuration asks for; what is wrong when there is none. */
export function linkOf(
  host: Pick<HostFacts, 'links' | 'routedLink'>,
  { link, linkWishes }: Pick<PodNetworkOptions, 'link' | 'linkWishes'>,
): { readonly link: string } | string | undefined {
  if (link !== undefined || linkWishes === undefined) {
    return link === undefined ? undefined : { link };
  }
  return wishedLink(host.links, linkWishes, host.routedLink ?? (() => undefined));
}

/** The Node's first podCIDR is of the cluster's first family: pods get their addresses in its order. */
function inNodeOrder(
  record: NodeRecord,
  podCIDRs: ByFamily<Prefix>,
  working: readonly Family[],
): readonly Prefix[] {
  const first = tryParsePrefix(record.podCIDRs[0] ?? '')?.address.family;
  const order = first === 'ip6' ? working.toReversed() : working;
  return order.flatMap((family) => podCIDRs[family] ?? []);
}

function notReady(reason: string): NotReady {
  return { kind: 'not-ready', reason };
}

function noPodCIDRs(record: NodeRecord, wanted: readonly Family[] = families): string {
  if (record.podCIDRs.length > 0) {
    const expected = wanted.map(familyName).join(' or ');
    return `Cannot use podCIDRs of Node ${record.name}: ${record.podCIDRs.join(', ')}: expected ${expected}`;
  }
  return (
    `Cannot find podCIDRs of Node ${record.name}: none assigned yet ` +
    '(kube-controller-manager does it with --allocate-node-cidrs and --cluster-cidr)'
  );
}

function allPodCIDRs(nodes: ReadonlyMap<string, NodeFacts>): readonly Prefix[] {
  return [...nodes.values()].flatMap((node) => Object.values(node.podCIDRs));
}

function allNodeAddresses(nodes: ReadonlyMap<string, NodeFacts>): readonly Address[] {
  return [...nodes.values()].flatMap((node) => [
    ...node.internalIPs,
    ...Object.values(node.announcements).map(({ publicIP }) => publicIP),
  ]);
}
