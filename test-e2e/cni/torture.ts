/**
 * A container runtime without mercy: adds and deletes pods in random order, several at once, kills
 * plugins at random moments, and at times loses a pod without a word. It knows which pods a plugin
 * said are connected, and nothing else.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { giveInput } from '#cmd/scratch/give-input.ts';
import type { CniDocument, ScratchNode } from '#cmd/podwire-cni/scratch-node.ts';
import type { Random } from './random.ts';

export interface TortureOptions {
  readonly node: ScratchNode;
  readonly slots: readonly Slot[];
  /** One plugin's network, called by its type; what the runtime adds comes from here. */
  readonly network: { readonly type: string };
  /** Differs from pod to pod. */
  readonly runtimeConfig: (podNumber: number) => object;
  readonly workers: number;
  readonly random: Random;
}

/** Where a pod can be. */
export interface Slot {
  readonly netns: string;
  /** Makes the namespace anew, as if the machine had taken the old one with its pod. */
  renew(): void;
}

export interface Torture {
  /** Makes so many calls of ADD and DEL, and some of CHECK between; returns everything that must not be. */
  run(calls: number): Promise<readonly string[]>;
  /** GC of all but the pods that are connected; returns what it printed when it fails. */
  collectGarbage(): Promise<string>;
  /** The pods that are connected. */
  live(): readonly LivePod[];
  /** Deletes them all. */
  deleteAll(): Promise<readonly string[]>;
  readonly counts: Readonly<Counts>;
}

export interface LivePod {
  readonly containerId: string;
  readonly addresses: readonly string[];
  readonly hostLink: string;
  readonly result: object;
}

interface Counts {
  ADD: number;
  DEL: number;
  CHECK: number;
  /** Calls that SIGKILL ended. */
  killed: number;
  /** Pods of which the runtime forgot all: what they left is for GC. */
  lost: number;
}

/** What the runtime knows of a slot. */
interface SlotState {
  readonly slot: Slot;
  busy: boolean;
  /** From the start of ADD to the end of a DEL that succeeded. */
  podNumber: number | undefined;
  /** Once ADD said so. */
  pod: LivePod | undefined;
}

interface Run extends TortureOptions {
  readonly states: readonly SlotState[];
  /** Who has an address. */
  readonly holders: Map<string, string>;
  readonly counts: Counts;
  problems: string[];
  nextNumber: number;
  /** How long calls take, smoothed: kills are spread over it. */
  typicalMs: number;
}

export function createTorture(options: TortureOptions): Torture {
  const run: Run = {
    ...options,
    states: options.slots.map((slot) => ({
      slot,
      busy: false,
      podNumber: undefined,
      pod: undefined,
    })),
    holders: new Map(),
    counts: { ADD: 0, DEL: 0, CHECK: 0, killed: 0, lost: 0 },
    problems: [],
    nextNumber: 0,
    typicalMs: 50,
  };
  const inParallel = async (work: (state: SlotState) => Promise<void>): Promise<void> => {
    const waiting = [...run.states];
    const worker = async (): Promise<void> => {
      for (let state = waiting.pop(); state !== undefined; state = waiting.pop()) await work(state);
    };
    await Promise.all(Array.from({ length: options.workers }, worker));
  };
  const live = (): readonly LivePod[] => run.states.flatMap(({ pod }) => pod ?? []);
  return {
    counts: run.counts,
    live,
    async run(calls) {
      run.problems = [];
      const end = callsOf(run.counts) + calls;
      await Promise.all(Array.from({ length: options.workers }, () => work(run, end)));
      return run.problems;
    },
    async collectGarbage() {
      const attachments = live().map(({ containerId }) => ({
        containerID: containerId,
        ifname: 'eth0',
      }));
      const config = { ...options.network, 'cni.dev/valid-attachments': attachments };
      const outcome = await runPlugin(run, { env: { CNI_COMMAND: 'GC' }, config });
      return outcome === 'killed' || outcome.exitCode !== 0 ? JSON.stringify(outcome) : '';
    },
    async deleteAll() {
      run.problems = [];
      await inParallel(async (state) => {
        while (state.podNumber !== undefined) await deletePod(run, state);
      });
      return run.problems;
    },
  };
}

function callsOf({ ADD, DEL }: Counts): number {
  return ADD + DEL;
}

async function work(run: Run, end: number): Promise<void> {
  const { random } = run;
  while (callsOf(run.counts) < end) {
    const state = random.pick(run.states.filter(({ busy }) => !busy));
    state.busy = true;
    if (state.podNumber === undefined) await addPod(run, state);
    else if (random.chance(0.1)) losePod(run, state);
    else if (state.pod !== undefined && random.chance(0.15)) await checkPod(run, state, state.pod);
    else await deletePod(run, state);
    state.busy = false;
  }
}

async function addPod(run: Run, state: SlotState): Promise<void> {
  const podNumber = run.nextNumber++;
  state.podNumber = podNumber;
  const outcome = await call(run, 'ADD', state);
  if (outcome === 'killed') return;
  const containerId = `pod-${podNumber}`;
  if (outcome.exitCode !== 0) {
    run.problems.push(`ADD ${containerId}: ${outcome.stdout}${outcome.stderr}`);
    return;
  }
  const result = JSON.parse(outcome.stdout) as CniDocument;
  const addresses = result.ips.map(({ address }) => address.replace(/\/.*/, ''));
  for (const address of addresses) {
    const other = run.holders.get(address);
    if (other !== undefined) run.problems.push(`${other} and ${containerId} both have ${address}`);
    run.holders.set(address, containerId);
  }
  const hostLink = result.interfaces.find(({ name }) => name.startsWith('veth'))?.name ?? '';
  state.pod = { containerId, addresses, hostLink, result };
}

/** As runtimes do: until it succeeds, at times once more. */
async function deletePod(run: Run, state: SlotState): Promise<void> {
  const again = run.random.chance(0.3);
  const outcome = await call(run, 'DEL', state);
  if (outcome === 'killed') return;
  if (outcome.exitCode !== 0) {
    run.problems.push(`DEL pod-${state.podNumber}: ${outcome.stdout}${outcome.stderr}`);
  } else if (again) await call(run, 'DEL', state);
  state.podNumber = undefined;
}

/** The namespace goes, and nobody ever calls DEL. */
function losePod(run: Run, state: SlotState): void {
  forget(run, state);
  run.counts.lost++;
  state.podNumber = undefined;
  state.slot.renew();
}

async function checkPod(run: Run, state: SlotState, { containerId }: LivePod): Promise<void> {
  const outcome = await call(run, 'CHECK', state);
  if (outcome === 'killed' || outcome.exitCode === 0) return;
  run.problems.push(`CHECK ${containerId}: ${outcome.stdout}${outcome.stderr}`);
}

/** From here on its addresses may be anybody's. */
function forget(run: Run, state: SlotState): void {
  for (const address of state.pod?.addresses ?? []) run.holders.delete(address);
  state.pod = undefined;
}

async function call(
  run: Run,
  command: 'ADD' | 'DEL' | 'CHECK',
  state: SlotState,
): Promise<Outcome | 'killed'> {
  const { random, counts } = run;
  const { podNumber = 0, pod, slot } = state;
  counts[command]++;
  const known = command === 'CHECK' || (command === 'DEL' && random.chance(0.5));
  if (command === 'DEL') forget(run, state);
  const startMs = performance.now();
  const outcome = await runPlugin(run, {
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: `pod-${podNumber}`,
      CNI_NETNS: command === 'DEL' && random.chance(0.3) ? '' : slot.netns,
      CNI_IFNAME: 'eth0',
    },
    config: {
      ...run.network,
      runtimeConfig: run.runtimeConfig(podNumber),
      ...(known && pod !== undefined ? { prevResult: pod.result } : {}),
    },
    // Beyond the end of most calls too: what has ended is not killed.
    killAfterMs: random.chance(0.3) ? random.next() * 1.3 * run.typicalMs : undefined,
  });
  if (outcome === 'killed') counts.killed++;
  else run.typicalMs += (performance.now() - startMs - run.typicalMs) / 20;
  return outcome;
}

interface Outcome {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function runPlugin(
  { node, network }: Run,
  {
    env,
    config,
    killAfterMs,
  }: {
    readonly env: Readonly<Record<string, string>>;
    readonly config: object;
    readonly killAfterMs?: number | undefined;
  },
): Promise<Outcome | 'killed'> {
  const { promise, resolve, reject } = Promise.withResolvers<Outcome | 'killed'>();
  // nsenter becomes the plugin: the signal is for the plugin.
  const child = spawn('nsenter', [`--net=${node.netns.path}`, join(node.binDir, network.type)], {
    env: { PATH: process.env['PATH'], CNI_PATH: node.binDir, ...env },
  });
  const kill = (): void => void child.kill('SIGKILL');
  const timer = killAfterMs === undefined ? undefined : setTimeout(kill, killAfterMs);
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => (output.stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (output.stderr += chunk.toString()));
  child.on('error', reject);
  // Programs that a killed plugin had started are waited for, as runtimes do.
  child.on('close', (exitCode, signal) => {
    clearTimeout(timer);
    resolve(signal === 'SIGKILL' ? 'killed' : { exitCode, ...output });
  });
  giveInput(child.stdin, JSON.stringify(config));
  return promise;
}
