/**
 * What an ADD and a DEL cost, next to the reference plugins of Debian's containernetworking-plugins:
 *
 *     node --disable-warning=ExperimentalWarning hack/bench/cni/main.ts [turns] [pods]
 *
 * Needs root, the package, and dist/ (npm run build); works in network namespaces of its own. All
 * contestants take turns in one run, so that what else the machine does slows all; ratios are what
 * to read. Say `turns` and `pods` to have it shorter than 30 turns and 500 pods.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { createScratchNetns } from '#pkg/netns/scratch.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { bundle } from '#hack/bundle.ts';
import { checkRun, programOf, runChain, type Contestant, type Pod } from './contestant.ts';
import {
  bridgeChain,
  goChain,
  goDir,
  goNode,
  podwireChain,
  residentNode,
  standaloneNode,
  writeLeases,
  type NodeContext,
} from './nodes.ts';
import { inNodeOf } from './in-node.ts';
import { openSpawner } from './spawn.ts';
import { median, ratioTable, type Row, type Sample } from './table.ts';

const stopping = new AbortController();
const stop = stopping.signal;
// Not once(): see cmd/podwire-node/main.ts.
for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => stopping.abort());
// Piped to `head`, for one.
process.stdout.on('error', () => stopping.abort());

const sys = await openSys();
const spawner = openSpawner();
const inNode = inNodeOf(sys);

async function main([turnsText, podsText]: readonly string[]): Promise<void> {
  const turns = Number(turnsText ?? 30);
  const podCount = Number(podsText ?? 500);
  if (!existsSync(join(goDir, 'bridge'))) {
    throw new Error(`Cannot compare: install containernetworking-plugins, expected ${goDir}`);
  }
  const dir = mkdtempSync(join(tmpdir(), 'podwire-bench-'));
  try {
    await using opened = new AsyncDisposableStack();
    const daemonProgram = join(dir, 'cni-daemon.mjs');
    await bundle('cmd/podwire-node/scratch/cni-daemon.ts', daemonProgram, '0.0.0-bench');
    const context: NodeContext = { dir, daemonProgram, opened };
    const pod = opened.use(await createScratchNetns('pw-bench-pod'));
    console.log(`load ${loadAverage()}; figures are ratios to the first row of each table`);
    await compareBridge(context, pod.path, turns);
    await compareChain(context, pod.path, Math.ceil(turns / 2));
    await compareLeases(context, pod.path, Math.ceil(turns / 2));
    await compareRates(context, podCount);
    console.log(`load ${loadAverage()}`);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

async function compareBridge(context: NodeContext, netns: string, turns: number): Promise<void> {
  const contestants = [
    await goNode(context, 'Go bridge + host-local', bridgeChain),
    await standaloneNode(context, 'podwire-cni as bridge', bridgeChain),
    await residentNode(context, 'launcher and podwire-node', bridgeChain),
  ];
  printTurns('one bridge', await takeTurns(contestants, netns, turns), {
    ADD: [undefined, 1, 0.33],
    DEL: [undefined, 1, 1],
  });
}

async function compareChain(context: NodeContext, netns: string, turns: number): Promise<void> {
  const contestants = [
    await goNode(context, 'Go bridge+portmap+bandwidth+firewall', goChain),
    await standaloneNode(context, 'podwire-cni, one run', podwireChain),
    await residentNode(context, 'launcher and podwire-node, one run', podwireChain),
  ];
  printTurns('host port, bandwidth, masquerade', await takeTurns(contestants, netns, turns), {
    ADD: [undefined, 0.2, 0.2],
    DEL: [undefined, 1, 1],
  });
}

async function compareLeases(context: NodeContext, netns: string, turns: number): Promise<void> {
  const contestants = [
    await goNode(context, 'Go bridge + host-local, 1000 leases', bridgeChain),
    await standaloneNode(context, 'podwire-cni as bridge, 1000 leases', bridgeChain),
    await residentNode(context, 'launcher and podwire-node, 1000 leases', bridgeChain),
  ];
  for (const contestant of contestants) if (contestant !== undefined) writeLeases(contestant, 1000);
  printTurns('one bridge, 1000 leases', await takeTurns(contestants, netns, turns), {
    ADD: [undefined, 1, 0.33],
    DEL: [undefined, 1, 1],
  });
}

interface Turns {
  readonly contestant: Contestant;
  readonly samples: Readonly<Record<'ADD' | 'DEL', readonly Sample[]>>;
}

/** Turns in which caches fill, JITs warm up and bridges are made. */
const warmUpTurns = 5;

async function takeTurns(
  contestants: readonly (Contestant | undefined)[],
  netns: string,
  turns: number,
): Promise<readonly Turns[]> {
  const all = contestants.flatMap((contestant) =>
    contestant === undefined
      ? []
      : [{ contestant, samples: { ADD: [] as Sample[], DEL: [] as Sample[] } }],
  );
  for (let turn = -warmUpTurns; turn < turns; turn++) {
    await refuseIfStopped();
    for (const { contestant, samples } of all) {
      for (const command of ['ADD', 'DEL'] as const) {
        const pod = { id: `pod${turn + warmUpTurns}`, netns };
        const cost = inNode(contestant, () => runChain(spawner, contestant, command, pod));
        if (turn >= 0) samples[command].push(cost);
      }
    }
  }
  return all;
}

function printTurns(
  title: string,
  turns: readonly Turns[],
  goals: Readonly<Record<'ADD' | 'DEL', readonly (number | undefined)[]>>,
): void {
  for (const command of ['ADD', 'DEL'] as const) {
    const rows = turns.map(({ contestant, samples }, i): Row => ({
      name: contestant.name,
      samples: samples[command],
      goal: goals[command][i],
    }));
    console.log(`\n${ratioTable(`${command}: ${title}`, rows)}`);
  }
}

/** As many calls at a time as a kubelet makes after a reboot, about. */
const workers = 8;

/** More interfaces a namespace, since making five hundred namespaces takes longer than the rest. */
const podsPerNetns = 10;

async function compareRates(context: NodeContext, count: number): Promise<void> {
  const contestants = [
    await goNode(context, 'Go bridge, many', bridgeChain),
    await standaloneNode(context, 'podwire-cni, many', bridgeChain),
    await residentNode(context, 'launcher and podwire-node, many', bridgeChain),
  ];
  const namespaces: string[] = [];
  for (let i = 0; i < count / podsPerNetns; i++) {
    namespaces.push(context.opened.use(await createScratchNetns('pw-bench-many')).path);
  }
  // All pods stay until all are there, so each contestant has interfaces of its own in a namespace.
  const podsOf = (contestant: number): readonly Pod[] =>
    Array.from({ length: count }, (_, i): Pod => ({
      id: `many${i}`,
      ifName: `c${contestant}i${i % podsPerNetns}`,
      netns: namespaces[Math.floor(i / podsPerNetns)] ?? '',
    }));
  const present = contestants.flatMap((contestant, i) =>
    contestant === undefined
      ? []
      : [{ contestant, pods: podsOf(i), rates: { ADD: [], DEL: [] } as Rates }],
  );
  for (const command of ['ADD', 'DEL'] as const) {
    for (let at = 0; at < count; at += podsPerRound) {
      await refuseIfStopped();
      for (const { contestant, pods, rates } of present) {
        rates[command].push(rateOf(contestant, command, pods.slice(at, at + podsPerRound)));
      }
    }
  }
  const head = `${count} pods, ${workers} at a time`;
  console.log(`\n${head.padEnd(44)}  ADD/s  times Go   DEL/s  times Go`);
  for (const { contestant, rates } of present) {
    const figures = (['ADD', 'DEL'] as const).map((command) => {
      const times = rates[command].map((rate, i) => rate / (present[0]?.rates[command][i] ?? 0));
      return `${median(rates[command]).toFixed(0).padStart(7)}${median(times).toFixed(2).padStart(10)}`;
    });
    console.log(`${contestant.name.padEnd(44)}${figures.join(' ')}`);
  }
}

/** Calls in a second, round by round. */
type Rates = Record<'ADD' | 'DEL', number[]>;

/** Contestants take turns in rounds of as many: the machine does not stay as it is for all. */
const podsPerRound = 100;

function rateOf(contestant: Contestant, command: 'ADD' | 'DEL', pods: readonly Pod[]): number {
  const programs = pods.flatMap((pod) =>
    contestant.plugins.map((plugin) => programOf(plugin, { command, pod })),
  );
  const startMs = performance.now();
  const runs = inNode(contestant, () => spawner.runAll(programs, workers));
  const seconds = (performance.now() - startMs) / 1000;
  for (const run of runs) checkRun(contestant, command, run);
  return pods.length / seconds;
}

/** Namespaces and daemons must go, so nobody ends this process but itself. */
async function refuseIfStopped(): Promise<void> {
  await setImmediate();
  if (stop.aborted) throw new Error('Stopped on request');
}

function loadAverage(): string {
  return readFileSync('/proc/loadavg', 'utf8').split(' ').slice(0, 3).join(' ');
}

await main(process.argv.slice(2));
