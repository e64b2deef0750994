/** What is measured of one contestant on its node, by what its clients notice. */
import { spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ApiAccess } from '#pkg/embedded-api/access.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import {
  deleteService,
  passing,
  probed,
  putEndpoints,
  putService,
  type Target,
} from './cluster.ts';
import { IptablesPath, type Contestant } from './contestants.ts';
import { startDaemon, type BenchNode } from './node.ts';

/** Times in milliseconds unless named otherwise. */
export interface Figures {
  /** From the start of the process to the first answer of the last Service. */
  readonly startMs: number;
  /** From the write to the API to the first packet that goes the new way. */
  readonly changeMs: readonly number[];
  readonly addMs: readonly number[];
  readonly deleteMs: readonly number[];
  /** Processor time of a change, with the programs it ran. */
  readonly cpuMsPerChange: number;
  /** What iptables-restore reads for a change of endpoints, a new Service, and one that goes. */
  readonly input: Readonly<Record<'change' | 'add' | 'delete', RestoreInput>> | undefined;
  readonly memoryMB: { readonly now: number; readonly peak: number };
  /** Of new connections: through the last Service, and to the pod itself. */
  readonly serviceMicros: readonly number[];
  readonly podMicros: readonly number[];
}

export interface RestoreInput {
  readonly bytes: number;
  /** Lines that put or take a rule. */
  readonly rules: number;
}

/** Where a measurement takes place. */
export interface Place {
  readonly node: BenchNode;
  readonly objects: ApiAccess;
  /** For files of this contestant. */
  readonly dir: string;
  readonly changes: number;
  /** New connections to time. */
  readonly connections: number;
}

const pods = ['10.1.2.2', '10.1.3.2'] as const;
const names = ['one', 'two'] as const;
/** Longer than minSyncPeriod, so that each change comes to a proxy at rest. */
const restMs = 1_300;

export async function measure(contestant: Contestant, place: Place): Promise<Figures> {
  const { dir, node, objects } = place;
  const { client } = node.network;
  const programs = new IptablesPath(dir, contestant.backend);
  const path = contestant.backend === 'none' ? (process.env['PATH'] ?? '') : programs.dir;
  putEndpoints(objects, probed, [pods[0]]);
  const answered = await untilAnswer(client, probed, names[0]);
  const startedAt = process.hrtime.bigint();
  const daemon = startDaemon(contestant, { netns: node.network.node, dir, path });
  try {
    const startMs = await millisSince(startedAt, answered, () => daemon.log());
    await sleep(restMs);
    const [serviceMicros = [], podMicros = []] = await connectTimes(client, place.connections);

    let turn = 0;
    const change = async (): Promise<number> => {
      turn = 1 - turn;
      const [name, pod] =
        turn === 1 ? ([names[1], pods[1]] as const) : ([names[0], pods[0]] as const);
      return await timeOf(client, probed, name, () => putEndpoints(objects, probed, [pod]));
    };
    const add = (): Promise<number> =>
      timeOf(client, passing, names[0], () => {
        putEndpoints(objects, passing, [pods[0]]);
        putService(objects, passing);
      });
    const remove = (): Promise<number> =>
      timeOf(client, passing, '', () => deleteService(objects, passing));

    await sleep(restMs);
    const cpuBeforeMs = daemon.cpuMs();
    const changeMs = await times(place.changes, change);
    const cpuMsPerChange = (daemon.cpuMs() - cpuBeforeMs) / place.changes;
    const addMs: number[] = [];
    const deleteMs: number[] = [];
    for (let i = 0; i < Math.ceil(place.changes / 3); i++) {
      addMs.push(...(await times(1, add)));
      deleteMs.push(...(await times(1, remove)));
    }
    let input: Figures['input'];
    if (contestant.backend !== 'none') {
      const file = programs.keepInputs();
      input = {
        change: await inputOf(file, change),
        add: await inputOf(file, add),
        delete: await inputOf(file, remove),
      };
      programs.plain();
    }
    const memoryMB = daemon.memoryMB();
    const common = { startMs, changeMs, addMs, deleteMs, cpuMsPerChange };
    return { ...common, input, memoryMB, serviceMicros, podMicros };
  } finally {
    await daemon.stop();
  }
}

async function times(count: number, act: () => Promise<number>): Promise<number[]> {
  const all: number[] = [];
  for (let i = 0; i < count; i++) {
    all.push(await act());
    await sleep(restMs);
  }
  return all;
}

async function inputOf(file: string, act: () => Promise<number>): Promise<RestoreInput> {
  rmSync(file, { force: true });
  await act();
  await sleep(restMs);
  const text = readFileSync(file, 'utf8');
  return { bytes: text.length, rules: text.match(/^-[AID] /gm)?.length ?? 0 };
}

async function timeOf(
  client: ScratchNetns,
  target: Target,
  text: string,
  act: () => void,
): Promise<number> {
  const answered = await untilAnswer(client, target, text);
  const startedAt = process.hrtime.bigint();
  act();
  return await millisSince(startedAt, answered, () => `no answer "${text}" of ${target.name}`);
}

const inNetns = ['netns', 'exec'] as const;
const prober = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  join(import.meta.dirname, 'prober.ts'),
];

/** Resolves when the prober looks; what it resolves to, when the answer came. */
async function untilAnswer(
  client: ScratchNetns,
  target: Target,
  text: string,
): Promise<{ readonly at: Promise<bigint | undefined> }> {
  const words = ['until', target.ip, String(target.port), text];
  const child = spawn('ip', [...inNetns, client.name, ...prober, ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 600_000,
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  await lines.next();
  return {
    at: lines.next().then(({ value }) => (typeof value === 'string' ? BigInt(value) : undefined)),
  };
}

async function millisSince(
  startedAt: bigint,
  answered: { readonly at: Promise<bigint | undefined> },
  why: () => string,
): Promise<number> {
  const at = await answered.at;
  if (at === undefined) throw new Error(`Cannot measure: no answer within ten minutes: ${why()}`);
  return Number(at - startedAt) / 1e6;
}

async function connectTimes(client: ScratchNetns, count: number): Promise<number[][]> {
  // Another pod than the Service's: their connections would be each other's in connection tracking.
  const targets = [`${probed.ip}:${probed.port}`, `${pods[1]}:8080`];
  const [program = '', ...args] = [...prober, 'latency', String(count), ...targets];
  const { stdout } = await client.exec(program, args, { timeoutMs: 300_000 });
  return JSON.parse(stdout) as number[][];
}
