/** Debian packages, unpacked into a cache: nothing is installed, the machine's own files stay. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { AgentError } from '#pkg/errors/agent-error.ts';

/** All worktrees of a machine share it; removing it costs a download. */
export const cacheFolder = '/var/cache/podwire/vm';

/**
 * The folder of an unpacked package.
 *
 * @param prepare what else is done to the folder, once
 * @throws {AgentError} PackageMissing, CommandFailed
 */
export function unpackedPackage(
  name: string,
  prepare: (folder: string) => void = () => undefined,
): string {
  return unpackOnce(`${name}_${candidateVersion(name)}`, prepare, (folder) => {
    call('apt-get', ['-q', '-o', 'APT::Sandbox::User=root', 'download', name], folder);
    const file = readdirSync(folder).find((entry) => entry.endsWith('.deb'));
    return join(folder, file ?? `${name}.deb`);
  });
}

/** As {@link unpackedPackage}, of a file that is here. */
export function unpackedFile(path: string, prepare: (folder: string) => void): string {
  return unpackOnce(basename(path, '.deb'), prepare, () => path);
}

/** Names of packages that apt knows, by their start. */
export function packageNames(start: string): string[] {
  return call('apt-cache', ['pkgnames', start], '/')
    .split('\n')
    .filter((name) => name !== '');
}

/** The package that another one depends on, by the start of its name. */
export function dependency(name: string, start: string): string | undefined {
  return call('apt-cache', ['depends', name], '/')
    .split('\n')
    .map((line) => /^\s*Depends: (\S+)/.exec(line)?.[1] ?? '')
    .find((found) => found.startsWith(start));
}

/** Runs a program to its end and returns what it printed. */
export function call(file: string, args: readonly string[], cwd: string): string {
  const { status, error, stdout, stderr } = spawnSync(file, args, {
    cwd,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    env: { ...process.env, LC_ALL: 'C' },
  });
  if (status === 0) return stdout;
  throw new AgentError(
    'CommandFailed',
    `Cannot run ${file} ${args.join(' ')}: ${error?.message ?? stderr.trim()}`,
  );
}

function candidateVersion(name: string): string {
  const policy = (): string | undefined =>
    /^ {2}Candidate: (?!\(none\))(\S+)/m.exec(call('apt-cache', ['policy', name], '/'))?.[1];
  const known = policy();
  if (known !== undefined) return known;
  call('apt-get', ['-q', '-o', 'DPkg::Lock::Timeout=120', 'update'], '/');
  const version = policy();
  if (version !== undefined) return version;
  throw new AgentError('PackageMissing', `Cannot download ${name}: apt knows no such package`);
}

/** Complete or not there: what was interrupted is done again. */
function unpackOnce(
  title: string,
  prepare: (folder: string) => void,
  obtain: (folder: string) => string,
): string {
  const home = join(cacheFolder, title.replaceAll(/[^\w.+-]/g, '_'));
  if (existsSync(home)) return home;
  mkdirSync(cacheFolder, { recursive: true });
  const work = mkdtempSync(join(cacheFolder, 'new-'));
  try {
    const tree = join(work, 'tree');
    call('dpkg', ['-x', obtain(work), tree], '/');
    prepare(tree);
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
