/** The prober's processes in the namespaces of a node. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';

const program = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  join(import.meta.dirname, 'prober.ts'),
];

/** "10.1.2.2,8080" */
export function place(ip: string, port: number): string {
  return `${ip},${port}`;
}

/** Asks who answers at one address, all the time. */
export interface Follower extends AsyncDisposable {
  /**
   * When `who` answered first since the last call, but not before `since`, both on CLOCK_MONOTONIC;
   * '' = nobody, which on a busy machine a slow answer looks like.
   */
  answered(who: string, since?: bigint): Promise<bigint>;
}

export async function follow(from: ScratchNetns, to: string): Promise<Follower> {
  const child = start(from, ['follow', to]);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const exited = once(child, 'exit');
  return {
    answered: async (who, since = 0n) => {
      for (;;) {
        const { value, done } = await lines.next();
        if (done === true) throw new Error('Cannot measure: the prober is gone');
        const [at = '', said = ''] = String(value).split(' ');
        if (said === who && BigInt(at) >= since) return BigInt(at);
      }
    },
    [Symbol.asyncDispose]: async () => {
      child.kill();
      await exited;
    },
  };
}

/** Microseconds of new connections to each of these, in turn. */
export function connectTimes(
  from: ScratchNetns,
  count: number,
  to: readonly string[],
): Promise<number[][]> {
  return run(from, ['latency', String(count), ...to]) as Promise<number[][]>;
}

/** New connections a second, one after the other, to each of these. */
export function connectRates(
  from: ScratchNetns,
  ms: number,
  to: readonly string[],
): Promise<number[]> {
  return run(from, ['rate', String(ms), ...to]) as Promise<number[]>;
}

/** Microseconds of a byte there and back on one established connection to each of these, in turn. */
export function exchangeTimes(
  from: ScratchNetns,
  count: number,
  to: readonly string[],
): Promise<number[][]> {
  return run(from, ['exchange', String(count), ...to]) as Promise<number[][]>;
}

/** Sends back what comes to a port, until disposed. */
export async function startEcho(on: ScratchNetns, port: number): Promise<AsyncDisposable> {
  const child = start(on, ['echo', String(port)]);
  const exited = once(child, 'exit');
  await once(child.stdout, 'data');
  return {
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** How long /healthz took, in microseconds, asked for so long since it answered first. */
export function healthTimes(from: ScratchNetns, to: string, ms: number): Promise<number[]> {
  return run(from, ['health', to, String(ms)]) as Promise<number[]>;
}

async function run(from: ScratchNetns, args: readonly string[]): Promise<unknown> {
  const child = start(from, args);
  let text = '';
  child.stdout.on('data', (bytes: Buffer) => (text += bytes.toString()));
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  if (code === 0) return JSON.parse(text);
  throw new Error(`Cannot measure: prober ${args.join(' ')} ended with ${code ?? signal}`);
}

function start(from: ScratchNetns, args: readonly string[]) {
  return spawn('ip', ['netns', 'exec', from.name, ...program, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 600_000,
  });
}
