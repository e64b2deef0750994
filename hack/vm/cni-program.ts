/**
 * The CNI executable for the VM: the same program, run by Node. What Bun compiles needs AVX2, which
 * an emulated processor has at the price of everything else, and is a hundred megabytes.
 */
import { join } from 'node:path';
import { build, type Plugin } from 'esbuild';

/** @param node the interpreter, as the VM has it */
export async function bundleCniProgram(root: string, node: string): Promise<Uint8Array> {
  const { outputFiles } = await build({
    entryPoints: [join(root, 'cmd/podwire-cni/main.ts')],
    write: false,
    bundle: true,
    platform: 'node',
    target: 'node26',
    format: 'esm',
    // The name it is called by, which for a script is not that of the process.
    define: { PODWIRE_VERSION: '"0.0.0-vm"', 'process.argv0': 'calledAs' },
    logLevel: 'error',
    plugins: [nodeBackend(join(root, 'pkg/sys'))],
    banner: {
      js: `#!${node} --disable-warning=ExperimentalWarning\nconst calledAs = process.argv[1];`,
    },
  });
  return outputFiles[0]?.contents ?? new Uint8Array();
}

/** Node's system calls in the place of Bun's, which no other runtime can load. */
function nodeBackend(folder: string): Plugin {
  const contents = `export { openNodeSys as openBunSys } from './node-ffi.ts';`;
  return {
    name: 'node-backend',
    setup: (context) => {
      context.onLoad({ filter: /\/bun-ffi\.ts$/ }, () => ({ contents, resolveDir: folder }));
    },
  };
}
