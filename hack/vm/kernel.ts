/** The kernel of the VM: Debian's own, with the modules that networking needs. */
import { existsSync, globSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { call, dependency, packageNames, unpackedFile, unpackedPackage } from './debian-package.ts';

export interface VmKernel {
  /** "6.1.0-55-amd64" */
  readonly version: string;
  /** The kernel itself, for qemu's -kernel. */
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
export function findKernel(wanted: string | undefined, busybox: string): VmKernel {
  const prepare = (folder: string): void => prepareKernel(folder, busybox);
  const folder =
    wanted?.endsWith('.deb') === true
      ? unpackedFile(wanted, prepare)
      : unpackedPackage(kernelPackage(wanted), prepare);
  return kernelIn(folder);
}

function kernelPackage(wanted: string | undefined): string {
  if (wanted === undefined) {
    // Not the cloud flavour: it has no 9p.
    const name = dependency('linux-image-amd64', 'linux-image-');
    if (name !== undefined) return name;
  } else {
    const names = packageNames(`linux-image-${wanted}`).filter(
      (name) => /^linux-image-\d[\w.+~-]*-amd64$/.test(name) && !/-(?:cloud|rt)-amd64$/.test(name),
    );
    const newest = names.toSorted(byVersion).at(-1);
    if (newest !== undefined) return newest;
  }
  throw new AgentError(
    'PackageMissing',
    `Cannot find a kernel ${wanted ?? 'of this release'}: apt knows no package linux-image-${wanted ?? ''}…-amd64`,
  );
}

/** Numbers in names compare as numbers: 6.1.0-9 is before 6.1.0-10. */
function byVersion(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
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

function prepareKernel(folder: string, busybox: string): void {
  const { version, modules } = kernelIn(folder);
  const kernel = join(modules, 'kernel');
  keepOnly(kernel, kept);
  keepOnly(join(kernel, 'drivers'), keptDrivers);
  keepOnly(join(kernel, 'fs'), keptFileSystems);
  for (const entry of readdirSync(join(kernel, 'drivers/net'), { withFileTypes: true })) {
    if (entry.isDirectory() && !keptDevices.has(entry.name)) {
      rmSync(join(kernel, 'drivers/net', entry.name), { recursive: true });
    }
  }
  const packed = globSync(join(kernel, '**/*.ko.xz'));
  if (packed.length > 0) call('xz', ['-d', '-T0', ...packed], '/');
  // Newer packages are merged into /usr, where depmod does not look.
  const base = join(modules, '../../..');
  call(busybox, ['depmod', '-b', base, version], '/');
  const misplaced = join(base, 'modules.dep');
  if (existsSync(misplaced)) renameSync(misplaced, join(modules, 'modules.dep'));
}

function keepOnly(folder: string, names: ReadonlySet<string>): void {
  for (const name of readdirSync(folder)) {
    if (!names.has(name)) rmSync(join(folder, name), { recursive: true });
  }
}
