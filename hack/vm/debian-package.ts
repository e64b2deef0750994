/** Debian packages, unpacked into a cache: nothing is installed, the machine's own files stay. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, mkdtempSync, readdirSync } from 'node:fs';
import { renameSync, rmSync, statSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { AgentError, messageOf } from '#pkg/errors/agent-error.ts';

/** All worktrees of a machine share it; removing it costs a download. */
export const cacheFolder = '/var/cache/podwire/vm';

/** A download of a kernel by a slow line. */
const downloadMs = 15 * 60_000;
/** What an interrupted run left half unpacked; nobody unpacks for so long. */
const abandonedMs = 2 * downloadMs;

export interface Packages {
  readonly signal: AbortSignal;
  /** Told what is done in the place of what cannot be. */
  readonly say: (line: string) => void;
  /** Another place than the usual: for tests. */
  readonly cache?: string;
}

/**
 * The folder of an unpacked package: of the version that apt would install, else, where it cannot be
 * had, of the newest one that was unpacked before.
 *
 * @param nameOf asks apt for the package's name; again after `apt-get update`
 * @param known how names of such packages begin
 * @param prepare what else is done to the folder, once
 * @throws {AgentError} PackageMissing, CommandFailed; the signal's reason
 */
export async function unpackedPackage(
  of: Packages,
  nameOf: () => Promise<string>,
  known: RegExp,
  prepare: (folder: string) => Promise<void> = async () => undefined,
): Promise<string> {
  const obtain = async (): Promise<string> => {
    const name = await nameOf();
    const title = `${name}_${await candidateVersion(of, name)}`;
    return await unpackOnce(of, title, prepare, async (folder) => {
      const args = ['-q', '-o', 'APT::Sandbox::User=root', 'download', name];
      await call('apt-get', args, of.signal, folder);
      const file = readdirSync(folder).find((entry) => entry.endsWith('.deb'));
      return join(folder, file ?? `${name}.deb`);
    });
  };
  try {
    return await obtain();
  } catch {
    of.signal.throwIfAborted();
  }
  // Lists that are missing, or older than what the archive still has.
  try {
    await updateLists(of.signal);
    return await obtain();
  } catch (error) {
    of.signal.throwIfAborted();
    const former = newestOf(of.cache ?? cacheFolder, known);
    if (former === undefined) throw error;
    of.say(`${basename(former)} as it is here: ${firstLine(error)}`);
    return former;
  }
}

/** Waits for another apt-get that does the same, which apt-get itself does not. */
async function updateLists(signal: AbortSignal): Promise<void> {
  for (let seconds = 0; ; seconds++) {
    try {
      await call('apt-get', ['-q', 'update'], signal);
      return;
    } catch (error) {
      const isBusy = /Could not get lock \S*\/lists\/lock/.test(messageOf(error));
      if (!isBusy || seconds >= listsSeconds) throw error;
    }
    await delay(1000, undefined, { signal });
  }
}

const listsSeconds = 120;

/** As {@link unpackedPackage}, of a file that is here. */
export async function unpackedFile(
  of: Packages,
  file: string,
  prepare: (folder: string) => Promise<void>,
): Promise<string> {
  const path = resolve(file);
  if (!existsSync(path)) {
    throw new AgentError('PackageMissing', `Cannot unpack ${file}: there is no such file`);
  }
  // A kernel that was built again may have the name of the former one.
  const title = `${basename(path, '.deb')}_${(await digestOf(path)).slice(0, 16)}`;
  return await unpackOnce(of, title, prepare, async () => path);
}

/** Names of packages that apt knows, by their start. */
export async function packageNames(start: string, signal: AbortSignal): Promise<string[]> {
  const names = await call('apt-cache', ['pkgnames', start], signal);
  return names.split('\n').filter((name) => name !== '');
}

/** The package that another one depends on, by the start of its name. */
export async function dependency(
  name: string,
  start: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  return (await call('apt-cache', ['depends', name], signal))
    .split('\n')
    .map((line) => /^\s*Depends: (\S+)/.exec(line)?.[1] ?? '')
    .find((found) => found.startsWith(start));
}

/**
 * Runs a program to its end and returns what it printed.
 *
 * @throws {AgentError} CommandFailed; the signal's reason when it aborts
 */
export async function call(
  file: string,
  args: readonly string[],
  signal: AbortSignal,
  cwd = '/',
): Promise<string> {
  const env = { ...process.env, LC_ALL: 'C' };
  const limits = { timeout: downloadMs, maxBuffer: 64 * 1024 * 1024 };
  try {
    return (await promisify(execFile)(file, args, { cwd, env, signal, ...limits })).stdout;
  } catch (error) {
    signal.throwIfAborted();
    const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : '';
    const why = said === '' ? messageOf(error) : said;
    throw new AgentError('CommandFailed', `Cannot run ${file} ${args.join(' ')}: ${why}`);
  }
}

async function candidateVersion({ signal }: Packages, name: string): Promise<string> {
  const policy = await call('apt-cache', ['policy', name], signal);
  const version = /^ {2}Candidate: (?!\(none\))(\S+)/m.exec(policy)?.[1];
  if (version !== undefined) return version;
  throw new AgentError('PackageMissing', `Cannot download ${name}: apt knows no such package`);
}

/** Complete or not there: what was interrupted is done again. */
async function unpackOnce(
  { cache = cacheFolder, signal }: Packages,
  title: string,
  prepare: (folder: string) => Promise<void>,
  obtain: (folder: string) => Promise<string>,
): Promise<string> {
  const home = join(cache, title.replaceAll(/[^\w.+-]/g, '_'));
  if (existsSync(home)) return home;
  mkdirSync(cache, { recursive: true });
  removeAbandoned(cache);
  const work = mkdtempSync(join(cache, unfinished));
  try {
    const tree = join(work, 'tree');
    await call('dpkg', ['-x', await obtain(work), tree], signal);
    await prepare(tree);
    // A machine that is cut off now shall not have the name without the files.
    await call('sync', ['-f', tree], signal);
    try {
      renameSync(tree, home);
    } catch (error) {
      // Somebody else was faster.
      if (!existsSync(home)) throw error;
    }
    return home;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

const unfinished = 'new-';

/** What runs left that were killed. */
function removeAbandoned(cache: string): void {
  for (const name of readdirSync(cache)) {
    const path = join(cache, name);
    const changedMs = statSync(path, { throwIfNoEntry: false })?.mtimeMs;
    if (!name.startsWith(unfinished) || changedMs === undefined) continue;
    if (Date.now() - changedMs > abandonedMs) rmSync(path, { recursive: true, force: true });
  }
}

function newestOf(cache: string, known: RegExp): string | undefined {
  const names = existsSync(cache) ? readdirSync(cache) : [];
  const newest = names
    .filter((name) => known.test(name))
    .toSorted(byNumbers)
    .at(-1);
  return newest === undefined ? undefined : join(cache, newest);
}

/** Numbers in names compare as numbers: 6.1.0-9 is before 6.1.0-10. */
export function byNumbers(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array);
  return hash.digest('hex');
}

function firstLine(error: unknown): string {
  return messageOf(error).split('\n')[0] ?? '';
}
