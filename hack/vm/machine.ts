/** Runs a machine: a program whose open files are what it boots from and what it says. */
import { spawn, type ChildProcess } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import type { UnnamedFile } from '#hack/unnamed-file.ts';

export interface Machine {
  /** The program that is the machine: of qemu or of user-mode Linux. */
  readonly command: readonly [file: string, ...args: string[]];
  readonly initrd: UnnamedFile;
  /** The kernel's messages, and what the VM says about its end. */
  readonly console: UnnamedFile;
  readonly exitCode: UnnamedFile;
}

/**
 * The open files of a machine, by their numbers in its program. What tests print comes out of its
 * standard output.
 */
export const machineFiles = { initrd: 3, console: 4, exitCode: 5 } as const;

export type Ended = 'by itself' | 'timeout' | 'signal';

/** What a machine that was killed has left: its last words are under way, nothing else. */
const lastWordsMs = 500;
/** The kernel may keep a process that uses KVM. */
const unkillableMs = 5_000;

/** Runs the machine until it turns itself off, the time is over or the signal aborts. */
export async function runMachine(
  machine: Machine,
  of: {
    readonly timeoutSeconds: number;
    readonly signal: AbortSignal;
    readonly onOutput: (bytes: Uint8Array) => void;
  },
): Promise<Ended> {
  if (of.signal.aborted) return 'signal';
  // Its standard input stays open: at the end of it qemu takes the output port for unconnected, and
  // whoever writes in the VM waits for ever. It ends with this process, however that ends.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...machine.command], {
    // Not detached: in a session of its own the kernel may not let others go before it.
    stdio: ['pipe', 'pipe', 'pipe', machine.initrd.fd, machine.console.fd, machine.exitCode.fd],
  });
  const complaints: Buffer[] = [];
  child.stdout?.on('data', of.onOutput);
  child.stderr?.on('data', (bytes: Buffer) => complaints.push(bytes));
  const closed = Promise.withResolvers<void>();
  const exited = Promise.withResolvers<void>();
  child.once('error', closed.reject).once('close', () => closed.resolve());
  child.once('exit', () => exited.resolve());
  const forced = Promise.withResolvers<void>();
  let ended: Ended = 'by itself';
  const end = (why: Ended): void => {
    if (ended !== 'by itself' || hasEnded(child)) return;
    ended = why;
    // Its memory is all there is to lose.
    child.kill('SIGKILL');
    const left = exited.promise.then(() => delay(lastWordsMs, undefined, { ref: false }));
    void Promise.race([left, delay(unkillableMs, undefined, { ref: false })]).then(forced.resolve);
  };
  const timer = setTimeout(() => end('timeout'), of.timeoutSeconds * 1000);
  const onAbort = (): void => end('signal');
  of.signal.addEventListener('abort', onAbort, { once: true });
  try {
    await Promise.race([closed.promise, forced.promise]);
    if (ended === 'by itself' && child.exitCode !== 0) {
      const said = Buffer.concat(complaints).toString().trim();
      const why = child.signalCode === null ? said : `ended by ${child.signalCode} ${said}`.trim();
      throw new Error(`Cannot run ${machine.command[0]}: ${why}`);
    }
    return ended;
  } finally {
    clearTimeout(timer);
    of.signal.removeEventListener('abort', onAbort);
    for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.destroy();
    child.unref();
  }
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}
