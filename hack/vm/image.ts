/** What the VM has in memory: busybox, kernel modules, and the repository with its packages. */
import {
  closeSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
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
  readonly programs?: readonly { readonly path: string; readonly file: string }[];
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

/** Writes the image to a file, uncompressed: unpacking costs the VM more than reading. */
export function writeImage(path: string, content: ImageContent): void {
  const fd = openSync(path, 'w', 0o600);
  try {
    for (const bytes of cpioArchive(entries(content))) writeAll(fd, bytes);
  } finally {
    closeSync(fd);
  }
}

function* entries(content: ImageContent): Generator<ArchiveEntry> {
  const { busybox, init, modules, programs = [], repository, system = [] } = content;
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
  for (const { file, path } of programs) {
    yield fileEntry(`repository/${relative(repository, path)}`, readFileSync(file), 0o755);
  }
}

const applets = [
  'cat',
  'chroot',
  'cp',
  'echo',
  'ip',
  'ln',
  'mkdir',
  'modprobe',
  'mount',
  'poweroff',
  'sh',
  'timeout',
];

function* tree(from: string, to: string, without: ReadonlySet<string>): Generator<ArchiveEntry> {
  const walk = function* (folder: string): Generator<ArchiveEntry> {
    const inside = relative(from, folder);
    yield directoryEntry(inside === '' ? to : `${to}/${inside}`);
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      const name = relative(from, path);
      if (without.has(name)) continue;
      if (entry.isDirectory()) yield* walk(path);
      else if (entry.isSymbolicLink()) yield linkEntry(`${to}/${name}`, readlinkSync(path));
      else if (entry.isFile()) {
        yield fileEntry(`${to}/${name}`, readFileSync(path), statSync(path).mode);
      }
    }
  };
  yield* walk(from);
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
