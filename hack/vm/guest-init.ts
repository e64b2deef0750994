/** The first program in the VM, as text: mounts, runs the command, reports its exit code. */

export interface GuestCommand {
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

/** Since the kernel's start, on a machine that is busy with other things. */
const portSeconds = 120;

/** Serial ports to the machine: what is printed, and the exit code. */
export const outputPort = 'podwire.output';
export const exitCodePort = 'podwire.exit-code';

/**
 * A script for busybox's shell. The machine's root, seen through 9p, is below an overlay in memory;
 * the repository is in memory as a whole, since each look at a file through 9p waits for the machine.
 */
export function guestInit({ root, argv, env, timeoutSeconds }: GuestCommand): string {
  const newRoot = '/newroot';
  const variables = Object.entries(env).map(([name, value]) => quote(`${name}=${value}`));
  return `${[
    '#!/bin/busybox sh',
    'export PATH=/bin',
    'mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev',
    // The kernel's own loads look at this file system, also after the move below.
    'echo /bin/modprobe > /proc/sys/kernel/modprobe',
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
    'mount -t tmpfs memory /memory; mkdir /memory/upper /memory/work',
    `mount -t overlay -o lowerdir=/system:/machine,upperdir=/memory/upper,workdir=/memory/work overlay ${newRoot}`,
    `mkdir -p ${newRoot}/lib/modules`,
    `mount -o bind /lib/modules ${newRoot}/lib/modules`,
    `[ -e ${newRoot}/sbin/modprobe ] || cp /bin/busybox ${newRoot}/sbin/modprobe`,
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
