/** Looks at a directory of CNI plugins. */
import { lstat, open, readdir, readFile, readlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { executableName, ownType, type PluginDirectory, type Present } from './plan.ts';
import {
  launcherMark,
  maxLauncherBytes,
  nameOfKept,
  temporaryPrefix,
  type PluginSource,
} from './plugin-files.ts';

/** What is there; a directory that is not there holds nothing. */
export async function observePlugins(
  directory: string,
  source: PluginSource,
): Promise<PluginDirectory> {
  const entries = await list(directory);
  const files = new Map<string, Present>();
  for (const name of [executableName, ...source.names]) {
    if (entries.includes(name)) files.set(name, await present(join(directory, name), name, source));
  }
  return {
    files,
    kept: new Set(entries.flatMap((entry) => nameOfKept(entry) ?? [])),
    leftovers: entries.filter((entry) => entry.startsWith(temporaryPrefix)),
  };
}

async function list(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

async function present(path: string, name: string, source: PluginSource): Promise<Present> {
  const { launcher, executable } = source;
  const stats = await lstat(path);
  const isExecutable = stats.isFile() && (stats.mode & 0o777) === 0o755;
  if (name === executableName) {
    return isExecutable && (await sameContent(path, executable)) ? 'current' : 'outdated';
  }
  if (stats.isSymbolicLink() && (await readlink(path)) === executableName) {
    return launcher === undefined ? 'current' : 'outdated';
  }
  if (launcher !== undefined && isExecutable && (await sameContent(path, launcher))) {
    return 'current';
  }
  if (name === ownType) return 'outdated';
  const isLauncher =
    stats.isFile() &&
    stats.size <= maxLauncherBytes &&
    (await readFile(path)).includes(launcherMark);
  return isLauncher ? 'outdated' : 'foreign';
}

const chunkBytes = 1 << 20;

async function sameContent(one: string, two: string): Promise<boolean> {
  await using a = await open(one);
  await using b = await open(two);
  if ((await a.stat()).size !== (await b.stat()).size) return false;
  for (;;) {
    const [left, right] = [await readChunk(a), await readChunk(b)];
    if (!left.equals(right)) return false;
    if (left.byteLength === 0) return true;
  }
}

async function readChunk(file: FileHandle): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(chunkBytes);
  let length = 0;
  while (length < chunkBytes) {
    const { bytesRead } = await file.read(buffer, length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return buffer.subarray(0, length);
}
