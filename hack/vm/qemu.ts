/** qemu's command line, and running it. */
import { spawn } from 'node:child_process';
import { exitCodePort, outputPort } from './guest-init.ts';

export const qemu = 'qemu-system-x86_64';

export type Accelerator = 'kvm' | 'tcg';

export interface Machine {
  readonly accelerator: Accelerator;
  readonly kernelImage: string;
  readonly initrd: string;
  /** Files that qemu writes: the kernel's messages, and what the VM says about its end. */
  readonly consoleLog: string;
  readonly exitCodeFile: string;
  /** Share the machine's root, read-only. */
  readonly shareRoot: boolean;
}

/**
 * Arguments for a machine without network devices and without disks. Under tcg a plain processor: it
 * runs Node three times as fast as one with AVX, whose instructions are emulated one by one.
 */
export function qemuArguments(machine: Machine): string[] {
  const tcg = machine.accelerator === 'tcg';
  return [
    '-nodefaults -no-user-config -no-reboot -display none -nic none',
    `-accel ${tcg ? 'tcg,thread=multi,tb-size=1024' : 'kvm'}`,
    `-cpu ${tcg ? 'qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16' : 'host'}`,
    `-smp 2 -m ${machine.shareRoot ? '3G' : '256M'}`,
    '-device virtio-serial-pci',
    '-chardev stdio,id=output,signal=off',
    `-device virtserialport,chardev=output,name=${outputPort}`,
    `-device virtserialport,chardev=code,name=${exitCodePort}`,
    ...(machine.shareRoot ? [`-virtfs ${sharedRoot}`] : []),
  ]
    .flatMap((words) => words.split(' '))
    .concat('-chardev', `file,id=code,path=${machine.exitCodeFile}`)
    .concat('-serial', `file:${machine.consoleLog}`)
    .concat('-kernel', machine.kernelImage, '-initrd', machine.initrd)
    .concat('-append', kernelArguments);
}

/**
 * no_timer_check: on a busy machine the emulated timer's first interrupts come too late for the
 * kernel's test of it, which then panics. tsc=reliable: else the kernel reads its time from an
 * emulated device, and each look at the clock waits for qemu.
 */
const kernelArguments =
  'console=ttyS0 panic=-1 mitigations=off loglevel=4 no_timer_check tsc=reliable';

const sharedRoot = 'local,path=/,mount_tag=machine,security_model=none,multidevs=remap,readonly=on';

export type Ended = 'by itself' | 'timeout' | 'signal';

/** Runs the machine until it turns itself off, the time is over or the signal aborts. */
export async function runMachine(
  machine: Machine,
  of: {
    readonly timeoutSeconds: number;
    readonly signal: AbortSignal;
    readonly onOutput: (bytes: Uint8Array) => void;
  },
): Promise<Ended> {
  // Its standard input stays open: at the end of it qemu takes the output port for unconnected, and
  // whoever writes in the VM waits for ever.
  const child = spawn(qemu, qemuArguments(machine), { stdio: ['pipe', 'pipe', 'pipe'] });
  const complaints: Buffer[] = [];
  child.stdout.on('data', of.onOutput);
  child.stderr.on('data', (bytes: Buffer) => complaints.push(bytes));
  let ended: Ended = 'by itself';
  const end = (why: Ended): void => {
    ended = why;
    // Its memory is all there is to lose.
    child.kill('SIGKILL');
  };
  const timer = setTimeout(() => end('timeout'), of.timeoutSeconds * 1000);
  const onAbort = (): void => end('signal');
  of.signal.addEventListener('abort', onAbort, { once: true });
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    if (ended === 'by itself' && code !== 0) {
      throw new Error(`Cannot run ${qemu}: ${Buffer.concat(complaints).toString().trim()}`);
    }
    return ended;
  } finally {
    clearTimeout(timer);
    of.signal.removeEventListener('abort', onAbort);
  }
}
