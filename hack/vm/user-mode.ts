/**
 * User-mode Linux: the kernel of Debian 12 as a program of this machine. What it runs is not emulated,
 * so that tests take half of the time or less; it lacks WireGuard, flowtables and nf_tables for IP.
 */
import { globSync } from 'node:fs';
import { basename, join } from 'node:path';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { unpackedPackage, type Packages } from './debian-package.ts';
import type { GuestMachine } from './guest-init.ts';
import { keepNetworking, type VmKernel } from './kernel.ts';
import { writeImage } from './image.ts';
import { machineFiles, runMachine, type Machine } from './machine.ts';
import { UnnamedFile } from '#hack/unnamed-file.ts';

/** As qemu's machines have. */
const memoryMegabytes = 3072;

/** @throws {AgentError} PackageMissing */
export async function findUserModeKernel(of: Packages): Promise<VmKernel> {
  const name = async (): Promise<string> => 'user-mode-linux';
  const prepare = async (folder: string): Promise<void> => {
    // It comes with its modules.dep.
    keepNetworking(join(userModeKernelIn(folder).modules, 'kernel'));
  };
  return userModeKernelIn(await unpackedPackage(of, name, /^user-mode-linux_/, prepare));
}

function userModeKernelIn(folder: string): VmKernel {
  const image = join(folder, 'usr/bin/linux.uml');
  const [modules] = globSync(join(folder, 'usr/lib/uml/modules/*'));
  if (modules === undefined) {
    throw new AgentError('PackageMissing', `Cannot use ${folder}: it holds no kernel`);
  }
  return { version: basename(modules), image, modules };
}

/** Its memory is a file that is executed, and it has a folder for its own affairs: both end with it. */
const memory = '/dev/shm';

/**
 * In a mount and a process namespace of its own: helpers it forked outlive it, and files stay when it is
 * killed. What it says of its own failure is on its console; the exit code is of no use.
 */
const script = `mount -t tmpfs -o size=4G podwire ${memory} && "$@" 2>&${machineFiles.console}; exit 0`;

/** Its command, without network devices and without disks; with panic=-1 it would begin anew. */
export function userModeCommand(image: string): Machine['command'] {
  const boot = `initrd=/dev/fd/${machineFiles.initrd} quiet oops=panic`;
  const lines = `con=null con0=null,fd:${machineFiles.console} ssl0=null,fd:1 ssl1=null,fd:${machineFiles.exitCode}`;
  const words = `mem=${memoryMegabytes}M ${boot} uml_dir=${memory}/ ${lines}`.split(' ');
  const start = ['--mount', '--pid', '--fork', '--kill-child=KILL', 'sh', '-c', script, 'sh'];
  return ['unshare', ...start, 'env', `TMPDIR=${memory}`, image, ...words];
}

const iptablesPrograms = ['iptables', 'ip6tables'].flatMap((name) =>
  ['', '-save', '-restore'].map((suffix) => [name, suffix] as const),
);

/** The guest sees the machine's root through hostfs, and writes to lines that lead into open files. */
export const userModeGuest: GuestMachine = {
  attach: [
    // IPv6 is a module there: nobody else loads it for a look at its sysctls.
    'for module in overlay ipv6; do modprobe $module || echo "podwire: no module $module"; done',
    'output=/dev/ttyS0; code=/dev/ttyS1',
    'for line in $output $code; do stty -F $line raw -echo; done',
    'mount -t hostfs -o ro,/ machine /machine',
  ],
  // Its nf_tables has neither IPv4 nor IPv6, which iptables-nft finds out when it writes.
  adapt: (root) =>
    iptablesPrograms.flatMap(([name, suffix]) => [
      `rm -f ${root}/usr/sbin/${name}-nft${suffix}`,
      `ln -sf /usr/sbin/${name}-legacy${suffix} ${root}/etc/alternatives/${name}${suffix}`,
    ]),
};

/** A machine that is busy with other tests needs a few of them. */
const probeSeconds = 60;

/**
 * Whether it starts here: it may be forbidden to trace its programs, or to make namespaces.
 *
 * @throws whatever aborted the signal
 */
export async function startsUserMode(of: {
  readonly image: string;
  readonly busybox: string;
  readonly signal: AbortSignal;
  readonly timeoutSeconds?: number;
}): Promise<boolean> {
  const { busybox, image, signal, timeoutSeconds = probeSeconds } = of;
  using initrd = new UnnamedFile();
  using console = new UnnamedFile();
  using exitCode = new UnnamedFile();
  const init = [
    '#!/bin/busybox sh',
    '/bin/busybox mount -t devtmpfs devtmpfs /dev',
    'echo 0 > /dev/ttyS1',
    '/bin/busybox poweroff -f',
  ];
  writeImage(initrd.fd, { busybox, init: `${init.join('\n')}\n` });
  const machine = { command: userModeCommand(image), initrd, console, exitCode };
  try {
    await runMachine(machine, { timeoutSeconds, signal, onOutput: () => undefined });
  } catch {
    return false;
  }
  signal.throwIfAborted();
  return exitCode.read().toString().trim() === '0';
}
