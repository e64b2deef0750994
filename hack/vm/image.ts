/** What the VM has in memory: busybox, kernel modules, and the repository with its packages. */
import { readFileSync, readdirSync, readlinkSync, statSync, writeSync, type Dirent } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { cpioArchive, directoryEntry, fileEntry, linkEntry, type ArchiveEntry } from './cpio.ts';

export interface ImageContent {
  /** A static busybox. */
  readonly busybox: string;
  /** The script that the kernel starts first. */
  readonly init: string;
  /** Folder with modules.dep; undefined = none. */
  readonly modules?: { readonly version: string; readonly folder: string };
  /** Folder of the repository; undefined = none. */
  readonly repository?: string;
  /** Files of the machine that are much used, by absolute path. */
  readonly system?: readonly string[];
  /** Programs to put into the repository, under their paths on the machine. */
  readonly programs?: readonly Program[];
}

export interface Program {
  readonly path: string;
  readonly content: Uint8Array;
}

/** What no test in the VM runs. */
const leftOut = new Set([
  '.git',
  // In its place comes what cni-program.ts makes.
  'dist/podwire-cni',
  'node_modules',
]);

/** Packages that programs started by tests need, and the pinned Node: one of the two it comes with. */
const packages = [
  'node_modules/.bin',
  'node_modules/node/bin',
  ...['commander', 'execa', 'pino', 'prom-client', 'yaml', 'zod'].map((n) => `node_modules/${n}`),
];

/** Folders the script mounts on, and busybox under every name that scripts call it by. */
const folders = ['bin', 'dev', 'lib', 'lib/modules', 'machine', 'memory', 'newroot', 'proc', 'sys'];

/** Writes the image to an open file, uncompressed: unpacking costs the VM more than reading. */
export function writeImage(fd: number, content: ImageContent): void {
  for (const bytes of cpioArchive(entries(content))) writeAll(fd, bytes);
}

function* entries(of: ImageContent): Generator<ArchiveEntry> {
  const { busybox, init, modules, programs = [], repository, system = [] } = of;
  yield* folders.map(directoryEntry);
  yield fileEntry('bin/busybox', readFileSync(busybox), 0o755);
  for (const applet of applets) yield linkEntry(`bin/${applet}`, 'busybox');
  yield fileEntry('init', new TextEncoder().encode(init), 0o755);
  if (modules !== undefined) {
    yield* tree(modules.folder, `lib/modules/${modules.version}`, new Set());
  }
  yield* systemFiles(system);
  if (repository === undefined) return;
  yield* tree(repository, 'repository', leftOut);
  yield directoryEntry('repository/node_modules');
  yield directoryEntry('repository/node_modules/node');
  for (const path of packages) {
    yield* tree(join(repository, path), `repository/${path}`, new Set());
  }
  for (const { content, path } of programs) {
    yield fileEntry(`repository/${relative(repository, path)}`, content, 0o755);
  }
}

const applets = [
  'cat',
  'chroot',
  'cp',
  'cut',
  'echo',
  'ip',
  'ln',
  'mkdir',
  'modprobe',
  'mount',
  'poweroff',
  'rm',
  'sh',
  'stty',
  'timeout',
];

/** All below a folder; what goes while it is read, as tests elsewhere have files, is left out. */
function* tree(from: string, to: string, without: ReadonlySet<string>): Generator<ArchiveEntry> {
  const walk = function* (folder: string): Generator<ArchiveEntry> {
    const inside = relative(from, folder);
    const listed = unlessGone(() => readdirSync(folder, { withFileTypes: true }));
    if (listed === undefined) return;
    yield directoryEntry(inside === '' ? to : `${to}/${inside}`);
    for (const entry of listed) {
      const path = join(folder, entry.name);
      const name = relative(from, path);
      if (without.has(name)) continue;
      if (entry.isDirectory()) yield* walk(path);
      else {
        const found = unlessGone(() => entryOf(entry, path, `${to}/${name}`));
        if (found !== undefined) yield found;
      }
    }
  };
  yield* walk(from);
}

/** Undefined for sockets and the like. */
function entryOf(entry: Dirent, path: string, to: string): ArchiveEntry | undefined {
  if (entry.isSymbolicLink()) return linkEntry(to, readlinkSync(path));
  return entry.isFile() ? fileEntry(to, readFileSync(path), statSync(path).mode) : undefined;
}

function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** Under `system/`, with the folders above them. */
function* systemFiles(paths: readonly string[]): Generator<ArchiveEntry> {
  const made = new Set<string>();
  const parents = function* (path: string): Generator<ArchiveEntry> {
    if (made.has(path) || path === '/') return;
    yield* parents(dirname(path));
    made.add(path);
    yield directoryEntry(`system${path}`);
  };
  yield directoryEntry('system');
  for (const path of paths) {
    yield* parents(dirname(path));
    yield fileEntry(`system${path}`, readFileSync(path), statSync(path).mode);
  }
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.byteLength;) at += writeSync(fd, bytes, at);
}
