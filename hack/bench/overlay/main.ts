/**
 * TCP between pods of two nodes through each backend, against the same device set up by hand with
 * `ip` (`wg`) on the same two nodes, in turn: what our settings cost or gain. The ratio is the median
 * of those of two neighbouring turns, which a machine's moods change less than medians of each; with
 * it comes what half of them lie within. First it says in which settings the two devices differ. The
 * backend udp has no such twin; it is put against plain
 * routes. With host-gw both are the same route: what its ratio is away from 1 is noise.
 *
 *   node hack/bench/overlay/main.ts [--seconds 2] [--rounds 6] [BACKEND…]
 *
 * What this kernel lacks: `npm run test:vm -- --count-instructions --timeout 900 --
 * hack/bench/overlay/main.ts --rounds 5 wireguard ipip`. An emulated processor's speed says nothing of
 * a real one's; counted instructions per byte do, and no other load changes them.
 */
import { availableParallelism, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import {
  createRoundCluster,
  nodeNames,
  type RoundCluster,
  type RoundNode,
} from '#cmd/podwire-node/scratch/rounds.ts';
import { byHand, unlikeByHand, type Handwork } from './by-hand.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '6' },
  },
});
const [seconds, rounds] = [Number(values.seconds), Number(values.rounds)];
const backends = positionals.length > 0 ? positionals : ['host-gw', 'vxlan', 'udp'];

await using cluster = await createRoundCluster(['ip']);
const { a, b } = cluster.nodes;
const server = execa('ip', ['netns', 'exec', b.netns.name, 'iperf3', '-s', '-B', b.pods.ip], {
  reject: false,
});
try {
  console.log(
    `${availableParallelism()} CPUs, load ${loadavg()[0]?.toFixed(1)}; Gbit/s, median of ${rounds}`,
  );
  for (const backend of backends) console.log(await compare(cluster, backend));
} finally {
  server.kill('SIGKILL');
  await server;
}

/** Ours and the other in turn, each the same number of times. */
async function compare(network: RoundCluster, backend: string): Promise<string> {
  for (const name of nodeNames)
    network.configure(name, `backend: ${backend}\ndirectRouting: false`);
  await network.settle();
  const { mtuBytes } = a.nodeFile();
  const hand = byHand(backend === 'udp' ? 'host-gw' : backend, { a, b, mtuBytes });
  const ours: number[] = [];
  const other: number[] = [];
  const differences = await unlikeByHand(network, backend);
  if (differences.length > 0) console.log(`${backend}: ${differences.join('; ')}`);
  await gigabits(a, b);
  const runOurs = async (): Promise<unknown> => ours.push(await gigabits(a, b));
  const runOther = async (): Promise<unknown> =>
    other.push(await withHandwork(hand, () => gigabits(a, b)));
  for (let round = 0; round < rounds; round++) {
    // Whatever comes second may find a warmer machine.
    const order = round % 2 === 0 ? [runOurs, runOther] : [runOther, runOurs];
    for (const run of order) await run();
  }
  const ratios = ours.map((one, i) => one / (other[i] ?? Number.NaN));
  const twin = backend === 'udp' ? 'plain routes' : 'by hand';
  return [
    backend.padEnd(10),
    `podwire ${significant(median(ours))} (${spread(ours)})`,
    `${twin} ${significant(median(other))} (${spread(other)})`,
    `ratio ${median(ratios).toFixed(3)} (${quarter(ratios, 1)}–${quarter(ratios, 3)})`,
  ].join('  ');
}

async function withHandwork<T>(hand: Handwork, run: () => Promise<T>): Promise<T> {
  await hand.up();
  try {
    return await run();
  } finally {
    await hand.down();
  }
}

async function gigabits(from: RoundNode, to: RoundNode): Promise<number> {
  const args = ['-c', to.pods.ip, '-B', from.pods.ip, '-t', String(seconds), '-J'];
  const { stdout } = await from.netns.exec('iperf3', args, { timeoutMs: (seconds + 20) * 1000 });
  const { end } = JSON.parse(stdout) as {
    readonly end: { readonly sum_received: { readonly bits_per_second: number } };
  };
  return end.sum_received.bits_per_second / 1e9;
}

function median(list: readonly number[]): number {
  return list.toSorted((x, y) => x - y)[Math.floor(list.length / 2)] ?? Number.NaN;
}

function quarter(list: readonly number[], n: 1 | 3): string {
  const sorted = list.toSorted((x, y) => x - y);
  return (sorted[Math.floor((n * sorted.length) / 4)] ?? Number.NaN).toFixed(3);
}

function spread(list: readonly number[]): string {
  return `${significant(Math.min(...list))}–${significant(Math.max(...list))}`;
}

function significant(value: number): string {
  return value.toPrecision(4);
}
