/** What a cluster's network must do, as probes: the rows of the demo's table. */
import { families, type Family } from '#pkg/ip/address.ts';
import type { Probe } from './probe.ts';
import type { NodeName } from './topology.ts';

/** Addresses of the running cluster. */
export interface ClusterFacts {
  /** Every address a node has, per node: what it may call from. */
  readonly nodeAddresses: Readonly<Record<NodeName, readonly string[]>>;
  /** The address other machines know a node by. */
  readonly nodeIP: (node: NodeName, family: Family) => string;
  readonly podIP: (pod: string, family: Family) => string;
  readonly clusterIP: (service: string, family: Family) => string;
  readonly nodePort: number;
  readonly outsideIP: (family: Family) => string;
}

export const rows = {
  sameNode: 'pod → pod on its node',
  sharedL2: 'pod → pod, nodes share L2',
  acrossRouter: 'pod → pod across the router',
  nodeToOwn: 'node → pod on it',
  nodeToOther: 'node → pod elsewhere',
  self: 'pod → its own address',
  clusterIP: 'pod → ClusterIP, each endpoint',
  nodeClusterIP: 'node → ClusterIP',
  hairpin: 'pod → itself by its Service',
  nodePort: 'outside → NodePort, each node',
  outside: 'pod → outside',
  noEndpoints: 'Service without endpoints',
} as const;

/** What the server must see as the client's address, for people. */
export const sourceOf: Readonly<Record<string, string>> = {
  [rows.sameNode]: "pod's own",
  [rows.sharedL2]: "pod's own",
  [rows.acrossRouter]: "pod's own",
  [rows.nodeToOwn]: "node's",
  [rows.nodeToOther]: "node's",
  [rows.self]: "pod's own",
  [rows.clusterIP]: "pod's own",
  [rows.nodeClusterIP]: "node's",
  [rows.hairpin]: "node's (masqueraded)",
  [rows.nodePort]: "node's (masqueraded)",
  [rows.outside]: "node's (masqueraded)",
  [rows.noEndpoints]: '(refused, not dropped)',
};

const podPort = 8080;
const servicePort = 80;
const nodes: readonly NodeName[] = ['node1', 'node2', 'node3'];
const echoes = ['echo-1', 'echo-2', 'echo-3'];

/** All probes of a phase. `reachesNode3`: pods on node3 can be reached from the other nodes. */
export function probeList(facts: ClusterFacts, reachesNode3: boolean): Probe[] {
  return families.flatMap((family) => [
    ...podProbes(facts, family, reachesNode3),
    ...nodeProbes(facts, family, reachesNode3),
    ...ownProbes(facts, family),
    ...(reachesNode3 ? serviceProbes(facts, family) : []),
    ...edgeProbes(facts, family),
  ]);
}

function podProbes(facts: ClusterFacts, family: Family, reachesNode3: boolean): Probe[] {
  const direct = (row: string, from: string, to: string): Probe => ({
    row,
    family,
    from: podAgentOf(from),
    address: facts.podIP(to, family),
    port: podPort,
    expect: { kind: 'answer', servers: [to], sources: [facts.podIP(from, family)] },
  });
  return [
    direct(rows.sameNode, 'client', 'echo-1'),
    direct(rows.sharedL2, 'echo-1', 'echo-2'),
    direct(rows.sharedL2, 'echo-2', 'echo-1'),
    ...(reachesNode3
      ? [
          direct(rows.acrossRouter, 'echo-1', 'echo-3'),
          direct(rows.acrossRouter, 'echo-3', 'echo-2'),
        ]
      : []),
  ];
}

function nodeProbes(facts: ClusterFacts, family: Family, reachesNode3: boolean): Probe[] {
  const direct = (row: string, from: NodeName, to: string): Probe => ({
    row,
    family,
    from,
    address: facts.podIP(to, family),
    port: podPort,
    expect: { kind: 'answer', servers: [to], sources: facts.nodeAddresses[from] },
  });
  return [
    direct(rows.nodeToOwn, 'node1', 'echo-1'),
    direct(rows.nodeToOwn, 'node3', 'echo-3'),
    direct(rows.nodeToOther, 'node1', 'echo-2'),
    ...(reachesNode3
      ? [direct(rows.nodeToOther, 'node1', 'echo-3'), direct(rows.nodeToOther, 'node3', 'echo-1')]
      : []),
  ];
}

function ownProbes(facts: ClusterFacts, family: Family): Probe[] {
  const from = podAgentOf('echo-1');
  const own = facts.podIP('echo-1', family);
  return [
    {
      row: rows.self,
      family,
      from,
      address: own,
      port: podPort,
      expect: { kind: 'answer', servers: ['echo-1'], sources: [own] },
    },
    {
      row: rows.hairpin,
      family,
      from,
      address: facts.clusterIP('solo', family),
      port: servicePort,
      expect: { kind: 'answer', servers: ['echo-1'], sources: facts.nodeAddresses.node1 },
    },
  ];
}

/** The Service's endpoints are on all three nodes. */
function serviceProbes(facts: ClusterFacts, family: Family): Probe[] {
  const address = facts.clusterIP('echo', family);
  const sources = [facts.podIP('client', family)];
  return [
    {
      row: rows.clusterIP,
      family,
      from: podAgentOf('client'),
      address,
      port: servicePort,
      expect: { kind: 'answer', servers: echoes, sources, everyServer: true },
    },
    ...(['node1', 'node3'] as const).map((from): Probe => ({
      row: rows.nodeClusterIP,
      family,
      from,
      address,
      port: servicePort,
      expect: {
        kind: 'answer',
        servers: echoes,
        sources: facts.nodeAddresses[from],
        everyServer: true,
      },
    })),
    ...nodes.map((node): Probe => ({
      row: rows.nodePort,
      family,
      from: 'outside',
      address: facts.nodeIP(node, family),
      port: facts.nodePort,
      expect: {
        kind: 'answer',
        servers: echoes,
        sources: facts.nodeAddresses[node],
        everyServer: true,
      },
    })),
  ];
}

function edgeProbes(facts: ClusterFacts, family: Family): Probe[] {
  const leave = (pod: string, node: NodeName): Probe => ({
    row: rows.outside,
    family,
    from: podAgentOf(pod),
    address: facts.outsideIP(family),
    port: podPort,
    expect: { kind: 'answer', servers: ['outside'], sources: [facts.nodeIP(node, family)] },
  });
  const refused = (from: string): Probe => ({
    row: rows.noEndpoints,
    family,
    from,
    address: facts.clusterIP('nobody', family),
    port: servicePort,
    expect: { kind: 'refused' },
  });
  return [
    leave('client', 'node1'),
    leave('echo-3', 'node3'),
    refused(podAgentOf('client')),
    refused('node2'),
  ];
}

function podAgentOf(pod: string): string {
  return `pod-default-${pod}`;
}
