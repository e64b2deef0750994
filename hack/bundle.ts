/** Bundles a Node program into one file, and what it starts into that. */
import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { build, type BuildOptions } from 'esbuild';

const root = join(import.meta.dirname, '..');

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

/**
 * Writes the bundle of a program, executable.
 *
 * @param entry its main file, from the root of the repository
 */
export async function bundle(entry: string, outfile: string, version: string): Promise<void> {
  const define = {
    PODWIRE_VERSION: JSON.stringify(version),
    PODWIRE_CNI_WORKER: JSON.stringify(await bundleThread('cni-worker')),
    PODWIRE_UDP_WORKER: JSON.stringify(await bundleThread('udp-worker')),
  };
  await build({
    ...settings,
    entryPoints: [join(root, entry)],
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

/** The program of threads of podwire-node, as a text to put into podwire-node: it stays one file. */
async function bundleThread(name: string): Promise<string> {
  const { outputFiles } = await build({
    ...settings,
    entryPoints: [join(root, `cmd/podwire-node/${name}.ts`)],
    format: 'cjs',
    write: false,
    // Of a text there is no file; what asks only looks for built-in modules.
    define: { 'import.meta.url': JSON.stringify(`file:///podwire-${name}.js`) },
  });
  const [file] = outputFiles;
  if (file === undefined) throw new Error(`Cannot bundle ${name}: esbuild wrote nothing`);
  return file.text;
}
