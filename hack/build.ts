/**
 * Builds `dist/`: one bundle for each daemon and the user's command, run by the pinned Node, and the
 * CNI executable. A bundle because starting from source costs a daemon a quarter of a second, and
 * because an image then holds a handful of files.
 */
import { chmod, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { build, type BuildOptions } from 'esbuild';
import { buildCni } from './build-cni.ts';
import { buildLauncher } from './build-launcher.ts';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');
const programs = ['podwire-node', 'podwire-proxy', 'podwire'] as const;

const settings = {
  bundle: true,
  platform: 'node',
  target: 'node26',
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: 'none',
  // pkg/sys has a backend for the runtime of the CNI executable.
  external: ['./bun-ffi.ts'],
  logLevel: 'warning',
} satisfies BuildOptions;

async function bundle(program: string, define: Readonly<Record<string, string>>): Promise<void> {
  const outfile = join(dist, program);
  await build({
    ...settings,
    entryPoints: [join(root, 'cmd', program, 'main.ts')],
    outfile,
    format: 'esm',
    sourcemap: 'inline',
    sourcesContent: false,
    define,
    banner: {
      js: [
        "import { createRequire as __createRequire } from 'node:module';",
        'const require = __createRequire(import.meta.url);',
        'const __filename = import.meta.filename; const __dirname = import.meta.dirname;',
      ].join('\n'),
    },
  });
  await chmod(outfile, 0o755);
}

/** The program of podwire-node's CNI threads, as a text to put into podwire-node: it stays one file. */
async function bundleCniWorker(): Promise<string> {
  const { outputFiles } = await build({
    ...settings,
    entryPoints: [join(root, 'cmd/podwire-node/cni-worker.ts')],
    format: 'cjs',
    write: false,
    // Of a text there is no file; what asks only looks for built-in modules.
    define: { 'import.meta.url': '"file:///podwire-cni-worker.js"' },
  });
  const [file] = outputFiles;
  if (file === undefined) throw new Error('Cannot bundle the CNI threads: esbuild wrote nothing');
  return file.text;
}

await mkdir(dist, { recursive: true });
const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
  version: string;
};
const define = {
  PODWIRE_VERSION: JSON.stringify(version),
  PODWIRE_CNI_WORKER: JSON.stringify(await bundleCniWorker()),
};
await Promise.all([
  ...programs.map((program) => bundle(program, define)),
  buildCni(join(dist, 'podwire-cni')),
  buildLauncher(join(dist, 'podwire-cni-launcher')),
]);
