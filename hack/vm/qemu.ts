/** A machine of qemu's: its command line, and what the guest does to use it. */
import type { GuestMachine } from './guest-init.ts';
import { machineFiles, type Machine } from './machine.ts';

export const qemu = 'qemu-system-x86_64';

export type Accelerator = 'kvm' | 'tcg';

export interface QemuMachine {
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

/** Serial ports to the machine: what is printed, and the exit code. */
const outputPort = 'podwire.output';
const exitCodePort = 'podwire.exit-code';

/** The open files of a machine, as qemu names them. */
const files = {
  initrd: `/dev/fd/${machineFiles.initrd}`,
  console: `/dev/fd/${machineFiles.console}`,
  exitCode: `/dev/fd/${machineFiles.exitCode}`,
} as const;

/** The command of a machine of qemu's. */
export function qemuCommand(kind: QemuMachine): Machine['command'] {
  return [qemu, ...qemuArguments(kind)];
}

/**
 * Arguments for a machine without network devices and without disks. Under tcg a plain processor: it
 * runs Node three times as fast as one with AVX, whose instructions are emulated one by one. And a
 * single one: kernels patch code that another one may be running, which qemu's threads take amiss (6.12:
 * "Oops: int3"); two of them wait for each other, which costs a third more.
 */
export function qemuArguments(machine: QemuMachine): string[] {
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

/** Since the kernel's start, on a machine that is busy with other things. */
const portSeconds = 120;

/** The guest sees the machine's root through 9p, and writes to serial ports. */
export const qemuGuest: GuestMachine = {
  attach: [
    'for module in virtio_pci 9pnet_virtio 9p overlay virtio_console; do',
    '  modprobe $module || echo "podwire: no module $module"',
    'done',
    // A port gets its name some time after it appeared; a kernel without such ports is no use.
    'until [ -n "$output" ] && [ -n "$code" ]; do',
    `  [ $(cut -d. -f1 /proc/uptime) -lt ${portSeconds} ] || { echo "podwire: no ports"; poweroff -f; }`,
    '  for port in /sys/class/virtio-ports/*; do',
    '    case $(cat $port/name 2>/dev/null) in',
    `      ${outputPort}) output=/dev/\${port##*/};;`,
    `      ${exitCodePort}) code=/dev/\${port##*/};;`,
    '    esac',
    '  done',
    'done',
    `mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=1048576,cache=loose machine /machine`,
  ],
  adapt: () => [],
};
