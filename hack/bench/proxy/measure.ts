/** What is measured of one contestant on its node, by what its clients notice. */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ApiAccess } from '#pkg/embedded-api/access.ts';
import { deleteService, disturb, putEndpoints, putService, type Addressing } from './cluster.ts';
import { IptablesPath, type Contestant } from './contestants.ts';
import { startDaemon, type BenchNode, type Daemon } from './node.ts';
import { connectRates, connectTimes, follow, healthTimes, place, type Follower } from './probes.ts';

/** Times in milliseconds unless named otherwise. */
export interface Figures {
  /** From the start of the process to the first answer of the last Service. */
  readonly startMs: number;
  /** Answers of /healthz while everything is loaded, in microseconds. */
  readonly healthMicros: readonly number[];
  /** From the write to the API to the first packet that goes the new way. */
  readonly changeMs: readonly number[];
  /** The same while other Services change 20 times a second. */
  readonly busyMs: readonly number[];
  readonly addMs: readonly number[];
  readonly deleteMs: readonly number[];
  /** Processor time of a change, with the programs it ran. */
  readonly cpuMsPerChange: number;
  /** What is sent to change endpoints; in mode iptables also to add a Service, and to delete it. */
  readonly inputs: readonly KernelInput[];
  /** What the kernel needs for it; where the daemon tells. */
  readonly kernelMs: readonly number[];
  readonly memoryMB: { readonly now: number; readonly peak: number };
  /** Of new connections: through the last Service, and to the pod itself. */
  readonly serviceMicros: readonly number[];
  readonly podMicros: readonly number[];
  /** New connections a second, one after the other. */
  readonly serviceRate: number;
  readonly podRate: number;
}

export interface KernelInput {
  readonly bytes: number;
  /** Lines that put or take a rule, or netlink messages. */
  readonly parts: number;
}

/** Where a measurement takes place. */
export interface Place {
  readonly node: BenchNode;
  readonly objects: ApiAccess;
  readonly addresses: Addressing;
  /** For files of this contestant. */
  readonly dir: string;
  readonly services: number;
  readonly changes: number;
  /** New connections to time. */
  readonly connections: number;
}

const names = ['one', 'two'] as const;
const healthPort = 10256;
const rateMs = 500;

/** So far, of all contestants: what the last one did again would be no change. */
let disturbances = 0;

export async function measure(contestant: Contestant, where: Place): Promise<Figures> {
  const { addresses, connections, dir, node, objects, services } = where;
  const { client } = node.network;
  const { passing, pods, probed } = addresses;
  const programs = new IptablesPath(dir, contestant.backend);
  const path = contestant.backend === 'none' ? (process.env['PATH'] ?? '') : programs.dir;
  putEndpoints(objects, probed, [pods[0]]);
  await using follower = await follow(client, place(probed.ip, probed.port));
  const startedAt = process.hrtime.bigint();
  const daemon = startDaemon(contestant, { netns: node.network.node, dir, path });
  try {
    const loadMs = 1_500 + services / 4;
    const health = healthTimes(node.network.node, place('127.0.0.1', healthPort), loadMs);
    const started = since(startedAt, follower, names[0], daemon);
    const [startMs, healthMicros] = await Promise.all([started, health]);
    const rest = (): Promise<void> => sleep(contestant.restMs);

    let turn = 0;
    const change = async (): Promise<number> => {
      turn = 1 - turn;
      const at = process.hrtime.bigint();
      putEndpoints(objects, probed, [pods[turn === 1 ? 1 : 0]]);
      return await since(at, follower, names[turn === 1 ? 1 : 0], daemon);
    };
    const add = async (passer: Follower): Promise<number> => {
      const at = process.hrtime.bigint();
      putEndpoints(objects, passing, [pods[0]]);
      putService(objects, passing);
      return await since(at, passer, names[0], daemon);
    };
    const remove = async (passer: Follower): Promise<number> => {
      const at = process.hrtime.bigint();
      deleteService(objects, passing);
      return await since(at, passer, '', daemon);
    };
    const repeat = async (count: number): Promise<number[]> => {
      const all: number[] = [];
      for (let i = 0; i < count; i++) {
        await rest();
        all.push(await change());
      }
      return all;
    };

    // What the first changes and the time after a start cost is none of a change's.
    await repeat(Math.min(5, where.changes));
    daemon.forget();
    const cpuBeforeMs = daemon.cpuMs();
    const changeMs = await repeat(where.changes);
    const cpuMsPerChange = (daemon.cpuMs() - cpuBeforeMs) / where.changes;
    await rest();
    const told = transactionsIn(daemon.log());

    const disturbing = setInterval(() => disturb(objects, addresses, disturbances++, services), 50);
    const busyMs = await repeat(where.changes);
    clearInterval(disturbing);
    await rest();

    const addMs: number[] = [];
    const deleteMs: number[] = [];
    await using passer = await follow(client, place(passing.ip, passing.port));
    await passer.answered('', 0n);
    for (let i = 0; i < Math.min(5, where.changes); i++) {
      await rest();
      addMs.push(await add(passer));
      await rest();
      deleteMs.push(await remove(passer));
    }
    const inputs: KernelInput[] = told.input === undefined ? [] : [told.input];
    if (contestant.backend !== 'none') {
      const file = programs.keepInputs();
      for (const act of [change, () => add(passer), () => remove(passer)]) {
        await rest();
        rmSync(file, { force: true });
        await act();
        // With many Services the effect of an earlier write can be seen before this one's begins.
        for (let waited = 0; !existsSync(file) && waited < 300; waited++) await rest();
        await rest();
        inputs.push(inputOf(file));
      }
      programs.plain();
    }
    const memoryMB = daemon.memoryMB();
    await passer[Symbol.asyncDispose]();
    await follower[Symbol.asyncDispose]();

    // Another pod than the Service's: their connections would be each other's in connection tracking.
    const other = pods[turn === 1 ? 0 : 1];
    const targets = [place(probed.ip, probed.port), place(other, 8080)];
    const [serviceMicros = [], podMicros = []] = await connectTimes(client, connections, targets);
    const [serviceRate = 0, podRate = 0] = await connectRates(client, rateMs, targets);
    return {
      startMs,
      healthMicros,
      changeMs,
      busyMs,
      addMs,
      deleteMs,
      cpuMsPerChange,
      inputs,
      kernelMs: told.kernelMs,
      memoryMB,
      serviceMicros,
      podMicros,
      serviceRate,
      podRate,
    };
  } finally {
    await daemon.stop();
  }
}

async function since(
  startedAt: bigint,
  follower: Follower,
  who: string,
  daemon: Daemon,
): Promise<number> {
  const late = AbortSignal.timeout(600_000);
  const at = await Promise.race([
    daemon.died,
    follower.answered(who, startedAt),
    new Promise<never>((_, reject) => {
      late.addEventListener('abort', () =>
        reject(new Error(`Cannot measure: ${who} does not answer:\n${daemon.log()}`)),
      );
    }),
  ]);
  return Number(at - startedAt) / 1e6;
}

function inputOf(file: string): KernelInput {
  const text = readFileSync(file, 'utf8');
  return { bytes: text.length, parts: text.match(/^-[AID] /gm)?.length ?? 0 };
}

/** What the nftables mode tells of its transactions at verbosity 2. */
function transactionsIn(log: string): {
  readonly input: KernelInput | undefined;
  readonly kernelMs: number[];
} {
  const lines = log.split('\n').filter((line) => line.includes('"Elements written"'));
  const told = lines.flatMap((line) => {
    try {
      return [JSON.parse(line) as { bytes: number; messages: number; kernelMs: number }];
    } catch {
      // The first of what is kept may be half a line.
      return [];
    }
  });
  const mean = (what: 'bytes' | 'messages'): number =>
    told.reduce((sum, one) => sum + one[what], 0) / told.length;
  return {
    input: told.length === 0 ? undefined : { bytes: mean('bytes'), parts: mean('messages') },
    kernelMs: told.map((one) => one.kernelMs),
  };
}
