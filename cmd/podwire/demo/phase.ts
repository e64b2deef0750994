/** The backends the demo goes through, and how pod packets must travel with each. */
import type { Clock } from '#pkg/clock/clock.ts';
import { families, type Family } from '#pkg/ip/address.ts';
import { plainPodPackets, startCapture, vxlanBetween, type SeenPacket } from './capture.ts';
import type { Cluster } from './cluster.ts';
import { readFacts } from './facts.ts';
import type { BackendChoice } from './node-programs.ts';
import { probeList } from './probe-list.ts';
import { sendProbes, type ProbeResult } from './prober.ts';
import { pathsSettled } from './routes.ts';
import type { Topology } from './topology.ts';

export interface Phase {
  readonly title: string;
  readonly choice: BackendChoice;
  /** host-gw needs shared L2: pods behind the router are out of its reach. */
  readonly reachesNode3: boolean;
  /** How packets travel between nodes that share L2. */
  readonly sharedL2: 'vxlan' | 'plain';
}

export const phases: readonly [Phase, ...Phase[]] = [
  {
    title: 'vxlan',
    choice: { backend: 'vxlan', directRouting: false },
    reachesNode3: true,
    sharedL2: 'vxlan',
  },
  {
    title: 'host-gw',
    choice: { backend: 'host-gw', directRouting: true },
    reachesNode3: false,
    sharedL2: 'plain',
  },
  {
    title: 'vxlan+direct',
    choice: { backend: 'vxlan', directRouting: true },
    reachesNode3: true,
    sharedL2: 'plain',
  },
];

export interface PacketCount {
  readonly row: string;
  readonly family: Family;
  readonly count: number;
  readonly expected: 'some' | 'none';
}

export interface PhaseResult {
  readonly phase: Phase;
  readonly probes: readonly ProbeResult[];
  readonly counts: readonly PacketCount[];
}

export const countRows = {
  vxlanSharedL2: 'VXLAN packets node1 ↔ node2',
  vxlanAcrossRouter: 'VXLAN packets node1, 2 ↔ node3',
  plain: 'pod packets not in VXLAN',
} as const;

/** Limits only, for a machine that has other work, too. */
const settleMs = 60_000;
const probePatienceMs = 60_000;

/** Waits until the nodes have followed the backend, then probes with tcpdump running. */
export async function runPhase(
  cluster: Cluster,
  phase: Phase,
  clock: Clock,
  signal: AbortSignal,
): Promise<PhaseResult> {
  await pathsSettled(cluster.topology, phase, { clock, withinMs: settleMs, signal });
  await using capture = await startCapture(cluster.run, cluster.topology, clock);
  const facts = await readFacts(cluster, signal);
  const options = { run: cluster.run, clock, patienceMs: probePatienceMs };
  const probes = await sendProbes(options, probeList(facts, phase.reachesNode3), signal);
  const packets = await capture.finish();
  return { phase, probes, counts: countPackets(packets, cluster.topology, phase) };
}

function countPackets(
  packets: readonly SeenPacket[],
  topology: Topology,
  phase: Phase,
): PacketCount[] {
  return families.flatMap((family): PacketCount[] => [
    {
      row: countRows.vxlanSharedL2,
      family,
      count: vxlanBetween(packets, topology, ['node1', 'node2', family]),
      expected: phase.sharedL2 === 'vxlan' ? 'some' : 'none',
    },
    {
      row: countRows.vxlanAcrossRouter,
      family,
      count:
        vxlanBetween(packets, topology, ['node1', 'node3', family]) +
        vxlanBetween(packets, topology, ['node2', 'node3', family]),
      expected: phase.reachesNode3 ? 'some' : 'none',
    },
    {
      row: countRows.plain,
      family,
      count: plainPodPackets(packets, family),
      expected: phase.sharedL2 === 'plain' ? 'some' : 'none',
    },
  ]);
}

/** Whether everything a phase showed is as it must be. */
export function phaseHolds({ probes, counts }: PhaseResult): boolean {
  return probes.every((probe) => probe.problem === undefined) && counts.every(countHolds);
}

export function countHolds({ count, expected }: PacketCount): boolean {
  return expected === 'some' ? count > 0 : count === 0;
}
