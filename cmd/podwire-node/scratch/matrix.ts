/** What a backend has to carry, as a table of real packets: rows are the same for every backend. */
import type { Family } from '#pkg/ip/address.ts';
import { exchange, type End } from './datagram.ts';
import { outside, type NodeName, type RoundCluster } from './rounds.ts';

/** Where two nodes stand to each other. */
export type Placement = 'same L2' | 'routed';

const pairs: Readonly<Record<Placement, readonly [NodeName, NodeName]>> = {
  'same L2': ['a', 'b'],
  routed: ['a', 'c'],
};

const headerBytes: Readonly<Record<Family, number>> = { ip: 28, ip6: 48 };

/** What does not hold, a line each: "IPv6 routed, fragmented UDP: Cannot …". Empty = all is well. */
export async function matrixProblems(
  cluster: RoundCluster,
  families: readonly Family[],
  placements: readonly Placement[],
): Promise<readonly string[]> {
  const problems: string[] = [];
  for (const family of families) {
    for (const placement of placements) {
      for (const [row, check] of rowsOf(cluster, family, pairs[placement])) {
        const at = `${family === 'ip' ? 'IPv4' : 'IPv6'} ${placement}, ${row}`;
        try {
          const problem = await check();
          if (problem !== undefined) problems.push(`${at}: ${problem}`);
        } catch (error) {
          problems.push(`${at}: ${error instanceof Error ? error.message : String(error)}`);
        }
      }
    }
  }
  return problems;
}

type Row = readonly [name: string, check: () => Promise<string | undefined>];

function rowsOf(
  cluster: RoundCluster,
  family: Family,
  [from, to]: readonly [NodeName, NodeName],
): readonly Row[] {
  const pod = (name: NodeName): End & { readonly address: string } => ({
    address: cluster.nodes[name].pods[family],
    inside: cluster.nodes[name].inside,
  });
  const node = (name: NodeName): End => ({ ...pod(name), address: undefined });
  const mtuBytes = Math.min(
    cluster.nodes[from].nodeFile().mtuBytes,
    cluster.nodes[to].nodeFile().mtuBytes,
  );
  const largest = mtuBytes - headerBytes[family];
  const seenAs = async (
    source: string,
    ends: readonly [End, End & { readonly address: string }],
    bytes: number,
    fragment: 'never' | 'always',
  ): Promise<string | undefined> => {
    const answer = await exchange(ends[0], ends[1], { bytes, fragment });
    return answer.source === source ? undefined : `seen as ${answer.source}, and not ${source}`;
  };
  const own = cluster.nodes[from].pods[family];
  const beyond = { address: outside[family], inside: cluster.insideRouter };
  return [
    ['pod to pod', () => seenAs(own, [pod(from), pod(to)], 64, 'never')],
    [
      'pod to pod and back',
      () => seenAs(cluster.nodes[to].pods[family], [pod(to), pod(from)], 64, 'never'),
    ],
    [
      'node to pod',
      async () => {
        await exchange(node(from), pod(to), { bytes: 64, fragment: 'never' });
        return undefined;
      },
    ],
    [
      'pod to outside',
      () => seenAs(cluster.nodes[from].addresses[family], [pod(from), beyond], 64, 'never'),
    ],
    ['a packet as large as the MTU', () => seenAs(own, [pod(from), pod(to)], largest, 'never')],
    ['fragmented UDP', () => seenAs(own, [pod(from), pod(to)], 4000, 'always')],
  ];
}
