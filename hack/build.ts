/**
 * Builds `dist/`: one bundle for each daemon and the user's command, run by the pinned Node, and the
 * CNI executable. A bundle because starting from source costs a daemon a quarter of a second, and
 * because an image then holds a handful of files.
 */
import { chmod, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from 'esbuild';
import { buildCni } from './build-cni.ts';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');
const programs = ['podwire-node', 'podwire-proxy', 'podwire'] as const;

async function bundle(program: string, version: string): Promise<void> {
  const outfile = join(dist, program);
  await build({
    entryPoints: [join(root, 'cmd', program, 'main.ts')],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node26',
    sourcemap: 'inline',
    sourcesContent: false,
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    define: { PODWIRE_VERSION: JSON.stringify(version) },
    banner: {
      js: [
        "import { createRequire as __createRequire } from 'node:module';",
        'const require = __createRequire(import.meta.url);',
        'const __filename = import.meta.filename; const __dirname = import.meta.dirname;',
      ].join('\n'),
    },
    // pkg/sys has a backend for the runtime of the CNI executable.
    external: ['./bun-ffi.ts'],
    logLevel: 'warning',
  });
  await chmod(outfile, 0o755);
}

await mkdir(dist, { recursive: true });
const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
  version: string;
};
await Promise.all([
  ...programs.map((program) => bundle(program, version)),
  buildCni(join(dist, 'podwire-cni')),
]);
