/**
 * Test files as one program for the VM. vitest itself, with its server and its worker processes, is
 * a hundred times slower to start under tcg than on this machine: minutes. Its tests, matchers and
 * runner are in the bundle; what reads files, transforms and reports stays behind.
 */
import { readFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build, type Plugin } from 'esbuild';

/** @param tests paths from the root of the repository */
export async function bundleTests(
  root: string,
  tests: readonly string[],
  outfile: string,
): Promise<void> {
  const files = tests.map((test) => {
    const path = JSON.stringify(join(root, test));
    return `[${JSON.stringify(test)}, () => import(${path})]`;
  });
  const runner = JSON.stringify(join(root, 'hack/vm/run-tests.ts'));
  await build({
    stdin: {
      contents: `import { runTests } from ${runner};\nprocess.exitCode = await runTests([${files.join(',')}]);`,
      resolveDir: root,
    },
    outfile,
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
