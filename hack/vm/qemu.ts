/** qemu's command line, and running it. */
import { spawn, type ChildProcess } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { exitCodePort, outputPort } from './guest-init.ts';
import type { UnnamedFile } from '#hack/unnamed-file.ts';

export const qemu = 'qemu-system-x86_64';

export type Accelerator = 'kvm' | 'tcg';

export interface MachineKind {
  readonly accelerator: Accelerator;
  readonly kernelImage: string;
  /**
   * Under tcg: four nanoseconds of its time are an instruction, and idle time passes at once (qemu's
   * "icount"), so that durations are counts.
   */
  readonly countsInstructions?: boolean;
  /** Share the machine's root, read-only. */
  readonly shareRoot: boolean;
}

export interface Machine extends MachineKind {
  readonly initrd: UnnamedFile;
  /** What qemu writes: the kernel's messages, and what the VM says about its end. */
  readonly console: UnnamedFile;
  readonly exitCode: UnnamedFile;
}

/** The open files of a machine, under the numbers qemu has them by. */
const files = { initrd: '/dev/fd/3', console: '/dev/fd/4', exitCode: '/dev/fd/5' } as const;

/**
 * Arguments for a machine without network devices and without disks. Under tcg a plain processor: it
 * runs Node three times as fast as one with AVX, whose instructions are emulated one by one. And a
 * single one: kernels patch code that another one may be running, which qemu's threads take amiss (6.12:
 * "Oops: int3"); two of them wait for each other, which costs a third more.
 */
export function qemuArguments(machine: MachineKind): string[] {
  const tcg = machine.accelerator === 'tcg';
  const counts = tcg && machine.countsInstructions === true;
  return [
    '-nodefaults -no-user-config -no-reboot -display none -nic none',
    `-accel ${tcg ? `tcg,thread=${counts ? 'single' : 'multi'},tb-size=1024` : 'kvm'}`,
    ...(counts ? ['-icount shift=2,sleep=off'] : []),
    `-cpu ${tcg ? 'qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16' : 'host'}`,
    `-smp ${tcg ? 1 : 2} -m ${machine.shareRoot ? '3G' : '256M'}`,
    '-device virtio-serial-pci',
    '-chardev stdio,id=output,signal=off',
    `-device virtserialport,chardev=output,name=${outputPort}`,
    `-device virtserialport,chardev=code,name=${exitCodePort}`,
    ...(machine.shareRoot ? [`-virtfs ${sharedRoot}`] : []),
  ]
    .flatMap((words) => words.split(' '))
    .concat('-chardev', `file,id=code,path=${files.exitCode}`)
    .concat('-serial', `file:${files.console}`)
    .concat('-kernel', machine.kernelImage, '-initrd', files.initrd)
    .concat('-append', kernelArguments);
}

/**
 * no_timer_check: on a busy machine the emulated timer's first interrupts come too late for the
 * kernel's test of it, which then panics. tsc=reliable: else the kernel reads its time from an
 * emulated device, and each look at the clock waits for qemu. oops=panic: a kernel that has failed
 * once is no judge of tests.
 */
const kernelArguments =
  'console=ttyS0 panic=-1 mitigations=off loglevel=4 no_timer_check tsc=reliable oops=panic';

const sharedRoot = 'local,path=/,mount_tag=machine,security_model=none,multidevs=remap,readonly=on';

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
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', qemu, ...qemuArguments(machine)], {
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
      throw new Error(`Cannot run ${qemu}: ${why}`);
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
