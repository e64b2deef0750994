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
import { runChain, type Contestant } from './contestant.ts';
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
import { compareRates, programCaller } from './rates.ts';
import { openSpawner } from './spawn.ts';
import { ratioTable, type Row, type Sample } from './table.ts';

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
    await compareMany(context, podCount);
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
    await setImmediate();
    refuseIfStopped();
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

async function compareMany(context: NodeContext, count: number): Promise<void> {
  const contestants = [
    await goNode(context, 'Go bridge, many', bridgeChain),
    await standaloneNode(context, 'podwire-cni, many', bridgeChain),
    await residentNode(context, 'launcher and podwire-node, many', bridgeChain),
  ];
  const callers = contestants.flatMap((contestant) =>
    contestant === undefined ? [] : [programCaller(spawner, inNode, contestant)],
  );
  const size = { count, turns: 3 };
  await compareRates(callers, size, { opened: context.opened, refuseIfStopped });
}

/** Namespaces and daemons must go, so nobody ends this process but itself. */
function refuseIfStopped(): void {
  if (stop.aborted) throw new Error('Stopped on request');
}

function loadAverage(): string {
  return readFileSync('/proc/loadavg', 'utf8').split(' ').slice(0, 3).join(' ');
}

await main(process.argv.slice(2));
