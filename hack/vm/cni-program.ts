/**
 * The CNI executable for the VM: the same program, run by Node. What Bun compiles needs AVX2, which
 * an emulated processor has at the price of everything else, and is a hundred megabytes.
 */
import { join } from 'node:path';
import { build } from 'esbuild';

/** @param node the interpreter, as the VM has it */
export async function bundleCniProgram(root: string, node: string, outfile: string): Promise<void> {
  await build({
    entryPoints: [join(root, 'cmd/podwire-cni/main.ts')],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node26',
    format: 'esm',
    external: ['./bun-ffi.ts'],
    // The name it is called by, which for a script is not that of the process.
    define: { PODWIRE_VERSION: '"0.0.0-vm"', 'process.argv0': 'calledAs' },
    logLevel: 'error',
    banner: {
      js: `#!${node} --disable-warning=ExperimentalWarning\nconst calledAs = process.argv[1];`,
    },
  });
}
