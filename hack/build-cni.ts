/**
 * Builds the CNI executable with Bun: one file for a node that has neither Node nor Bun. A runtime
 * starts it for every pod, and an empty Node process alone takes twice as long as the whole of it.
 */
import { execFile } from 'node:child_process';
import { globSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

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
    await writeFile(built, withoutSwitches(await readFile(built)));
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

/**
 * Environment variables by which every executable that Bun compiles can be turned into something
 * else: BUN_BE_BUN=1 makes it the `bun` command, BUN_OPTIONS adds its flags, and
 * BUN_BYTECODE_ORDER_OUT names a file that it then writes. A plugin gets its
 * runtime's environment, which is not ours to trust, and Bun has no setting against it; so the
 * names in the executable are made ones that no environment has.
 */
const switches = ['BUN_BE_BUN', 'BUN_OPTIONS', 'BUN_BYTECODE_ORDER_OUT'] as const;

function withoutSwitches(executable: Buffer): Buffer {
  for (const name of switches) {
    let found = 0;
    for (let at = executable.indexOf(name); at >= 0; at = executable.indexOf(name, at)) {
      // "=" ends a name: no variable can be called so.
      executable.write('='.repeat(name.length), at, 'latin1');
      found++;
    }
    if (found === 0) throw new Error(`Cannot find ${name} in the executable: has Bun renamed it?`);
  }
  return executable;
}

/** Whether the executable is missing, or older than a source file. */
async function isStale(outfile: string): Promise<boolean> {
  const built = await stat(outfile).catch(() => undefined);
  if (built === undefined) return true;
  const sources = globSync('{cmd/podwire-cni,plugins,pkg}/**/*.ts', { cwd: root });
  const times = await Promise.all(
    [...sources, 'hack/build-cni.ts', 'package-lock.json'].map((file) => stat(join(root, file))),
  );
  return times.some(({ mtimeMs }) => mtimeMs > built.mtimeMs);
}

if (import.meta.main) {
  const outfile = join(root, 'dist/podwire-cni');
  await mkdir(dirname(outfile), { recursive: true });
  if (!process.argv.includes('--if-stale') || (await isStale(outfile))) await buildCni(outfile);
}
