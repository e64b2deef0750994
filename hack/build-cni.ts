/**
 * Builds the CNI executable with Bun: one file for a node that has neither Node nor Bun. A runtime
 * starts it for every pod, and an empty Node process alone takes twice as long as the whole of it.
 */
import { execFile } from 'node:child_process';
import { globSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { removeSwitches, setAllocatorOption } from './bun-executable.ts';

const root = join(import.meta.dirname, '..');

/**
 * Writes the executable; a plugin that runs meanwhile keeps its old file, since the new one takes
 * its place by rename.
 */
export async function buildCni(outfile: string): Promise<void> {
  // In the same directory, for the rename; Bun puts its own temporary files where it runs.
  const work = await mkdtemp(join(dirname(outfile), '.podwire-cni-'));
  try {
    const built = join(work, 'podwire-cni');
    await bundleCni(work);
    await promisify(execFile)(
      join(root, 'node_modules/.bin/bun'),
      [
        'build',
        '--compile',
        '--bytecode',
        '--minify',
        '--format=esm',
        // The chunks stay: see bundleCni().
        '--splitting',
        // A process that lives for milliseconds compiles nothing worth the time: an ADD takes 15 %
        // less processor time when functions must be ten times as hot, and 10 % less than that when
        // they must be a thousand times as hot.
        '--compile-jit-policy=1000',
        // A plugin runs in whatever directory its runtime does: no file there is its configuration.
        '--no-compile-autoload-dotenv',
        '--no-compile-autoload-bunfig',
        `--outfile=${built}`,
        join(work, 'main.js'),
      ],
      { cwd: work },
    );
    await tune(built);
    await chmod(built, 0o755);
    await rename(built, outfile);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/**
 * Bundles the program, with our own node:fs (pkg/sys/bun-fs.ts): a chunk for each plugin, and for
 * what some of them share, so that a call loads what it needs.
 */
async function bundleCni(outdir: string): Promise<void> {
  // Only here: the virtual machine of the tests asks whether the executable is stale, and has none.
  const { build } = await import('esbuild');
  await build({
    entryPoints: { main: join(root, 'cmd/podwire-cni/main.ts') },
    outdir,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'esnext',
    external: ['bun:ffi'],
    logLevel: 'warning',
    plugins: [
      {
        name: 'fs',
        setup(bundler) {
          const path = join(root, 'pkg/sys/bun-fs.ts');
          bundler.onResolve({ filter: /^node:fs$/ }, () => ({ path }));
        },
      },
    ],
  });
}

/** What Bun has no setting for. */
async function tune(file: string): Promise<void> {
  const executable = await readFile(file);
  removeSwitches(executable);
  // Its heap in huge pages: a process that lives for milliseconds spends a quarter of them on page
  // faults, a thousand of which become six. Where the kernel gives none, all is as before.
  setAllocatorOption(executable, 'allow_thp', { was: 0, value: 2 });
  // A thread that gives memory back, of a process that gives all of it back.
  setAllocatorOption(executable, 'scavenger', { was: 1, value: 0 });
  await writeFile(file, executable);
}

/** Whether the executable is missing, or older than a source file. */
async function isStale(outfile: string): Promise<boolean> {
  const built = await stat(outfile).catch(() => undefined);
  if (built === undefined) return true;
  const sources = globSync('{cmd/podwire-cni,plugins,pkg}/**/*.ts', { cwd: root });
  const times = await Promise.all(
    [...sources, 'hack/build-cni.ts', 'hack/bun-executable.ts', 'package-lock.json'].map((file) =>
      stat(join(root, file)),
    ),
  );
  return times.some(({ mtimeMs }) => mtimeMs > built.mtimeMs);
}

if (import.meta.main) {
  const outfile = join(root, 'dist/podwire-cni');
  await mkdir(dirname(outfile), { recursive: true });
  if (!process.argv.includes('--if-stale') || (await isStale(outfile))) await buildCni(outfile);
}
