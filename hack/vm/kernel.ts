/** The kernel of the VM: Debian's own, with the modules that networking needs. */
import { existsSync, globSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { AgentError } from '#pkg/errors/agent-error.ts';
import {
  byNumbers,
  call,
  dependency,
  packageNames,
  unpackedFile,
  unpackedPackage,
  type Packages,
} from './debian-package.ts';

export interface VmKernel {
  /** "6.1.0-55-amd64" */
  readonly version: string;
  /** The kernel itself: for qemu's -kernel, or a program. */
  readonly image: string;
  /** Holds modules.dep and kernel/. */
  readonly modules: string;
}

/**
 * @param wanted a version's start ("6.1"), the path of a linux-image package, or undefined for what
 *   the release installs
 * @param busybox for its depmod
 * @throws {AgentError} PackageMissing when apt has no such kernel
 */
export async function findKernel(
  of: Packages,
  wanted: string | undefined,
  busybox: string,
): Promise<VmKernel> {
  const prepare = (folder: string): Promise<void> => prepareKernel(folder, busybox, of.signal);
  const isFile = wanted?.endsWith('.deb') === true;
  // What Debian 12 installs, when nobody can be asked.
  const known = kernelNames(wanted ?? '6.1');
  const folder = isFile
    ? await unpackedFile(of, wanted, prepare)
    : await unpackedPackage(of, () => kernelPackage(wanted, of.signal), known, prepare);
  return kernelIn(folder);
}

/** The flavour for all machines: that for clouds has no 9p. 6.1 is no start of 6.12. */
function kernelNames(version: string): RegExp {
  return new RegExp(
    String.raw`^linux-image-${RegExp.escape(version)}(?!\d)(?!.*-(?:cloud|rt)-)[\w.+~-]*-amd64(?:_|$)`,
  );
}

async function kernelPackage(wanted: string | undefined, signal: AbortSignal): Promise<string> {
  if (wanted === undefined) {
    const name = await dependency('linux-image-amd64', 'linux-image-', signal);
    if (name !== undefined) return name;
    throw new AgentError('PackageMissing', 'Cannot find a kernel: linux-image-amd64 names none');
  }
  const all = await packageNames('linux-image-', signal);
  const newest = all
    .filter((name) => kernelNames(wanted).test(name))
    .toSorted(byNumbers)
    .at(-1);
  if (newest !== undefined) return newest;
  const there = all.map((name) => /^linux-image-(\d+\.\d+).*\d-amd64$/.exec(name)?.[1]);
  const versions = [...new Set(there.filter((version) => version !== undefined))];
  throw new AgentError(
    'PackageMissing',
    `Cannot find a kernel ${wanted}: apt has ${versions.toSorted(byNumbers).join(', ') || 'none'}`,
  );
}

function kernelIn(folder: string): VmKernel {
  const [image] = globSync(join(folder, 'boot/vmlinuz-*'));
  const parents = ['lib/modules', 'usr/lib/modules'].map((path) => join(folder, path));
  const parent = parents.find((path) => existsSync(path));
  const version = parent === undefined ? undefined : readdirSync(parent)[0];
  if (image === undefined || parent === undefined || version === undefined) {
    throw new AgentError('PackageMissing', `Cannot use ${folder}: it holds no kernel`);
  }
  return { version, image, modules: join(parent, version) };
}

/** Folders of modules.../kernel that the VM needs; a third of what Debian ships is graphics. */
const kept = new Set(['arch', 'crypto', 'drivers', 'fs', 'lib', 'net']);
const keptDrivers = new Set(['char', 'net', 'virtio']);
const keptFileSystems = new Set(['9p', 'fscache', 'netfs', 'overlayfs']);
/** Kinds of network devices; the rest of drivers/net is hardware. */
const keptDevices = new Set(['bonding', 'ipvlan', 'vxlan', 'wireguard']);

async function prepareKernel(folder: string, busybox: string, signal: AbortSignal): Promise<void> {
  const { version, modules } = kernelIn(folder);
  const kernel = join(modules, 'kernel');
  keepNetworking(kernel);
  const packed = globSync(join(kernel, '**/*.ko.xz'));
  if (packed.length > 0) await call('xz', ['-d', '-T0', ...packed], signal);
  // Newer packages are merged into /usr, where depmod does not look.
  const base = join(modules, '../../..');
  await call(busybox, ['depmod', '-b', base, version], signal);
  const misplaced = join(base, 'modules.dep');
  if (existsSync(misplaced)) renameSync(misplaced, join(modules, 'modules.dep'));
}

/** Removes the modules that the VM does not need. @param kernel the folder kernel/ of them */
export function keepNetworking(kernel: string): void {
  keepOnly(kernel, kept);
  keepOnly(join(kernel, 'drivers'), keptDrivers);
  keepOnly(join(kernel, 'fs'), keptFileSystems);
  for (const entry of readdirSync(join(kernel, 'drivers/net'), { withFileTypes: true })) {
    if (entry.isDirectory() && !keptDevices.has(entry.name)) {
      rmSync(join(kernel, 'drivers/net', entry.name), { recursive: true });
    }
  }
}

function keepOnly(folder: string, names: ReadonlySet<string>): void {
  for (const name of readdirSync(folder)) {
    if (!names.has(name)) rmSync(join(folder, name), { recursive: true });
  }
}
