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

/** Calls in a second, turn by turn. */
type Rates = Record<'ADD' | 'DEL', number[]>;

/**
 * Prints the rates of all, next to those of the first. Each adds all pods and deletes them before it is
 * another's turn: pods send for some seconds after they came, to every port of their bridge, and
 * what that costs belongs to who added them.
 *
 * @param opened gets the pods' namespaces
 * @param refuseIfStopped throws when the user does not want to go on
 */
export async function compareRates(
  callers: readonly Caller[],
  { count, turns }: { readonly count: number; readonly turns: number },
  { opened, refuseIfStopped }: { opened: AsyncDisposableStack; refuseIfStopped: () => void },
): Promise<void> {
  const namespaces: ScratchNetns[] = [];
  for (let i = 0; i < count / podsPerNetns; i++) {
    namespaces.push(opened.use(await createScratchNetns('pw-bench-many')));
  }
  const pods = Array.from({ length: count }, (_, i): Pod => ({
    id: `many${i}`,
    ifName: `eth${i % podsPerNetns}`,
    netns: namespaces[Math.floor(i / podsPerNetns)]?.path ?? '',
  }));
  const all = callers.map((caller) => ({ caller, rates: { ADD: [], DEL: [] } as Rates }));
  for (let turn = 0; turn < turns; turn++) {
    for (const { caller, rates } of all) {
      for (const command of ['ADD', 'DEL'] as const) {
        await setImmediate();
        refuseIfStopped();
        const startMs = performance.now();
        await caller.run(command, pods);
        rates[command].push((count * 1000) / (performance.now() - startMs));
      }
    }
  }
  const head = `${count} pods, ${workers} at a time`;
  console.log(`\n${head.padEnd(44)}  ADD/s  times 1st   DEL/s  times 1st`);
  for (const { caller, rates } of all) {
    const figures = (['ADD', 'DEL'] as const).map((command) => {
      const times = rates[command].map((rate, i) => rate / (all[0]?.rates[command][i] ?? 0));
      return `${median(rates[command]).toFixed(0).padStart(7)}${median(times).toFixed(2).padStart(11)}`;
    });
    console.log(`${caller.name.padEnd(44)}${figures.join(' ')}`);
  }
}
