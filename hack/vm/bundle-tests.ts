/**
 * Test files as one program for the VM. vitest itself, with its server and its worker processes, is
 * a hundred times slower to start under tcg than on this machine: minutes. Its tests, matchers and
 * runner are in the bundle; what reads files, transforms and reports stays behind.
 */
import { readFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build, type Plugin } from 'esbuild';
import type { Suite } from './suites.ts';

export async function bundleTests(root: string, suites: readonly Suite[]): Promise<Uint8Array> {
  const files = suites.map(({ file, only }) => {
    const path = JSON.stringify(join(root, file));
    return `[${JSON.stringify(file)}, () => import(${path}), ${only ?? undefined}]`;
  });
  const runner = JSON.stringify(join(root, 'hack/vm/run-tests.ts'));
  const contents = `import { runTests } from ${runner};\nprocess.exitCode = await runTests([${files.join(',')}]);`;
  return await bundle(root, contents);
}

/** A program of the repository that acts when it is loaded, with the packages it needs. */
export async function bundleScript(root: string, file: string): Promise<Uint8Array> {
  return await bundle(root, `import ${JSON.stringify(join(root, file))};`);
}

async function bundle(root: string, contents: string): Promise<Uint8Array> {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: root },
    write: false,
    bundle: true,
    platform: 'node',
    target: 'node26',
    format: 'esm',
    minifySyntax: true,
    keepNames: true,
    external: ['./bun-ffi.ts', 'esbuild'],
    logLevel: 'error',
    plugins: [ownPaths(root)],
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
  });
  return outputFiles[0]?.contents ?? new Uint8Array();
}

/** In a bundle `import.meta` is the bundle's: files of ours get their own. */
function ownPaths(root: string): Plugin {
  return {
    name: 'own-paths',
    setup: (context) => {
      context.onLoad({ filter: /\.ts$/ }, async ({ path }) => {
        if (relative(root, path).startsWith('node_modules')) return undefined;
        const contents = (await readFile(path, 'utf8'))
          .replaceAll('import.meta.dirname', JSON.stringify(dirname(path)))
          .replaceAll('import.meta.filename', JSON.stringify(path))
          .replaceAll('import.meta.url', JSON.stringify(pathToFileURL(path).href))
          .replaceAll('import.meta.main', 'false');
        return { contents, loader: 'ts' };
      });
    },
  };
}
