/** A scratch node whose runtime finds the launcher, and a daemon that it finds. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildLauncher } from '#hack/build-launcher.ts';
import { bundle } from '#hack/bundle.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';

const root = join(import.meta.dirname, '../../..');

export interface LauncherDir extends Disposable {
  readonly path: string;
  /** Where the daemon must listen. */
  readonly runDir: string;
  /** The launcher under a plugin's name. */
  program(name: string): string;
  /** Puts the standalone executable beside the launcher: until then there is no way but the daemon. */
  addStandalone(): void;
}

/**
 * Undefined where no launcher can be compiled.
 *
 * @param patienceSeconds so long that a machine under load is not taken for a daemon that hangs
 */
export async function createLauncherDir(
  names: readonly string[],
  patienceSeconds = 20,
): Promise<LauncherDir | undefined> {
  const path = mkdtempSync(join(tmpdir(), 'podwire-launcher-'));
  const runDir = join(path, 'run');
  mkdirSync(runDir);
  // For the test with a user that is not root.
  for (const directory of [path, runDir]) chmodSync(directory, 0o755);
  const remove = (): void => rmSync(path, { recursive: true });
  if (!(await buildLauncher(join(path, 'launcher'), { runDir, patienceSeconds }))) {
    remove();
    return undefined;
  }
  for (const name of names) copyFileSync(join(path, 'launcher'), join(path, name));
  return {
    path,
    runDir,
    program: (name) => join(path, name),
    addStandalone: () => symlinkSync(join(root, 'dist/podwire-cni'), join(path, 'podwire-cni')),
    [Symbol.dispose]: remove,
  };
}

export interface CniDaemon extends AsyncDisposable {
  readonly process: ChildProcess;
  /** All it has written so far. */
  log(): string;
  /** Ends it at once, as the kernel does when memory runs out. */
  kill(): Promise<void>;
}

const bundledDaemon = join(root, 'dist/scratch/cni-daemon.mjs');

let built: Promise<void> | undefined;

/** Once a test file: as one file it starts sooner. */
async function buildDaemon(): Promise<string> {
  await (built ??= bundle('cmd/podwire-node/scratch/cni-daemon.ts', bundledDaemon, '0.0.0-test'));
  return bundledDaemon;
}

/** Starts the daemon in the node's namespace; resolves when it listens. */
export async function startCniDaemon(
  node: ScratchNetns,
  runDir: string,
  bundled?: string,
): Promise<CniDaemon> {
  const program = bundled ?? (await buildDaemon());
  const child = spawn(
    'nsenter',
    [
      `--net=${node.path}`,
      process.execPath,
      '--disable-warning=ExperimentalWarning',
      program,
      runDir,
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let log = '';
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const hear = (chunk: Buffer): void => {
    log += chunk.toString();
    if (log.includes('ready\n')) resolve();
  };
  child.stdout.on('data', hear);
  child.stderr.on('data', hear);
  child.once('exit', () => reject(new Error(`The daemon ended: ${log}`)));
  await promise;
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGCONT');
    child.kill(signal);
    await ended;
  };
  return {
    process: child,
    log: () => log,
    kill: () => end('SIGKILL'),
    [Symbol.asyncDispose]: () => end('SIGTERM'),
  };
}
