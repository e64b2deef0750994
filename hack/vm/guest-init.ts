/** The first program in the VM, as text: mounts, runs the command, reports its exit code. */

/** What the guest has to do for its kind of machine: lines of a script for busybox's shell. */
export interface GuestMachine {
  /** Sets `output` and `code`, devices to write to, and mounts the machine's root on /machine. */
  readonly attach: readonly string[];
  /** What else it changes in its own view of that root. */
  readonly adapt: (root: string) => readonly string[];
}

export interface GuestCommand {
  readonly machine: GuestMachine;
  /** Folder of the repository on the machine; it has the same path in the VM. */
  readonly root: string;
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** The VM turns itself off then, should nobody be left to end it. */
  readonly timeoutSeconds: number;
}

/** What a machine offers its programs, in the order it is mounted. */
const mounts: readonly (readonly [type: string, path: string])[] = [
  ['proc', '/proc'],
  ['sysfs', '/sys'],
  ['cgroup2', '/sys/fs/cgroup'],
  ['devtmpfs', '/dev'],
  ['devpts', '/dev/pts'],
  ['tmpfs', '/dev/shm'],
  ['tmpfs', '/run'],
  ['tmpfs', '/tmp'],
];

/**
 * A script for busybox's shell. The machine's root is below an overlay in memory; the repository is in
 * memory as a whole, since each look at a file of the machine waits for it.
 */
export function guestInit({ machine, root, argv, env, timeoutSeconds }: GuestCommand): string {
  const newRoot = '/newroot';
  const variables = Object.entries(env).map(([name, value]) => quote(`${name}=${value}`));
  return `${[
    '#!/bin/busybox sh',
    'export PATH=/bin',
    'mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev',
    // The kernel's own loads look at this file system, also after the move below.
    'echo /bin/modprobe > /proc/sys/kernel/modprobe',
    ...machine.attach,
    'mount -t tmpfs memory /memory; mkdir /memory/upper /memory/work',
    `mount -t overlay -o lowerdir=/system:/machine,upperdir=/memory/upper,workdir=/memory/work overlay ${newRoot}`,
    `mkdir -p ${newRoot}/lib/modules`,
    `mount -o bind /lib/modules ${newRoot}/lib/modules`,
    // Programs look for it where the kernel does (above), or at its usual place.
    ...['/bin/modprobe', '/sbin/modprobe'].map(
      (path) => `[ -e ${newRoot}${path} ] || cp /bin/busybox ${newRoot}${path}`,
    ),
    ...machine.adapt(newRoot),
    ...mounts.map(
      ([type, path]) => `mkdir -p ${newRoot}${path}; mount -t ${type} ${type} ${newRoot}${path}`,
    ),
    // After those: a clone may lie below /tmp.
    `mkdir -p ${quote(newRoot + root)}; mount -o bind /repository ${quote(newRoot + root)}`,
    `ln -s /proc/self/fd ${newRoot}/dev/fd`,
    'ip link set lo up',
    // Not switch_root: it would empty this file system, which holds the repository.
    `cd ${newRoot}; mount -o move . /`,
    `timeout -s KILL ${timeoutSeconds} chroot . /usr/bin/env -i ${variables.join(' ')} \\`,
    `  /bin/sh -c ${quote(`cd ${quote(root)} && exec ${argv.map(quote).join(' ')}`)} \\`,
    '  > $output 2>&1 < /dev/null',
    'status=$?',
    'echo $status > $code',
    'poweroff -f',
  ].join('\n')}\n`;
}

function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
