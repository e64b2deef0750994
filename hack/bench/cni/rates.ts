/** How many calls in a second, eight at a time, until all pods are there; then until none is. */
import { setImmediate } from 'node:timers/promises';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { checkRun, programOf, type Contestant, type Pod } from './contestant.ts';
import type { InNode } from './in-node.ts';
import type { Spawner } from './spawn.ts';
import { median } from './table.ts';

/** As many calls at a time as a kubelet makes after a reboot, about. */
export const workers = 8;

/** More interfaces a namespace, since making five hundred namespaces takes longer than the rest. */
const podsPerNetns = 10;

/** Contestants take turns in rounds of as many: the machine does not stay as it is for all. */
const podsPerRound = 100;

/** Who adds and deletes many pods, `workers` at a time. */
export interface Caller {
  readonly name: string;
  /** Does all these calls. */
  run(command: 'ADD' | 'DEL', pods: readonly Pod[]): void | Promise<void>;
}

/** Starts a plugin's program for each call. */
export function programCaller(spawner: Spawner, inNode: InNode, contestant: Contestant): Caller {
  return {
    name: contestant.name,
    run(command, pods) {
      const programs = pods.flatMap((pod) =>
        contestant.plugins.map((plugin) => programOf(plugin, { command, pod })),
      );
      const runs = inNode(contestant, () => spawner.runAll(programs, workers));
      for (const run of runs) checkRun(contestant, command, run);
    },
  };
}

/** Calls in a second, round by round. */
type Rates = Record<'ADD' | 'DEL', number[]>;

/**
 * Prints the rates of all, next to those of the first.
 *
 * @param opened gets the pods' namespaces
 * @param refuseIfStopped throws when the user does not want to go on
 */
export async function compareRates(
  callers: readonly Caller[],
  count: number,
  { opened, refuseIfStopped }: { opened: AsyncDisposableStack; refuseIfStopped: () => void },
): Promise<void> {
  const namespaces: ScratchNetns[] = [];
  for (let i = 0; i < count / podsPerNetns; i++) {
    namespaces.push(opened.use(await createScratchNetns('pw-bench-many')));
  }
  // All pods stay until all are there, so each has interfaces of its own in a namespace.
  const podsOf = (caller: number): readonly Pod[] =>
    Array.from({ length: count }, (_, i): Pod => ({
      id: `many${i}`,
      ifName: `c${caller}i${i % podsPerNetns}`,
      netns: namespaces[Math.floor(i / podsPerNetns)]?.path ?? '',
    }));
  const all = callers.map((caller, i) => ({
    caller,
    pods: podsOf(i),
    rates: { ADD: [], DEL: [] } as Rates,
  }));
  for (const command of ['ADD', 'DEL'] as const) {
    for (let at = 0; at < count; at += podsPerRound) {
      for (const { caller, pods, rates } of all) {
        await setImmediate();
        refuseIfStopped();
        const round = pods.slice(at, at + podsPerRound);
        const startMs = performance.now();
        await caller.run(command, round);
        rates[command].push((round.length * 1000) / (performance.now() - startMs));
      }
    }
  }
  const head = `${count} pods, ${workers} at a time`;
  console.log(`\n${head.padEnd(44)}  ADD/s  times 1st   DEL/s  times 1st`);
  for (const { caller, rates } of all) {
    const figures = (['ADD', 'DEL'] as const).map((command) => {
      const times = rates[command].map((rate, i) => rate / (all[0]?.rates[command][i] ?? 0));
      return `${median(rates[command]).toFixed(0).padStart(7)}${median(times).toFixed(2).padStart(10)}`;
    });
    console.log(`${caller.name.padEnd(44)}${figures.join(' ')}`);
  }
}
