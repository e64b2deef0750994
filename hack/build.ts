/**
 * Builds `dist/`: one bundle for each daemon and the user's command, run by the pinned Node, and the
 * CNI executable. A bundle because starting from source costs a daemon a quarter of a second, and
 * because an image then holds a handful of files.
 */
import { chmod, copyFile, mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { build, type Plugin } from 'esbuild';
import { buildCni } from './build-cni.ts';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');
const programs = ['podwire-node', 'podwire-proxy', 'podwire'] as const;

/** node-netlink looks for its addon beside its package; in an image it lies beside the bundle. */
const addonBesideBundle: Plugin = {
  name: 'addon-beside-bundle',
  setup(builder) {
    builder.onResolve({ filter: /^node-gyp-build$/ }, () => ({
      path: 'node-gyp-build',
      namespace: 'addon',
    }));
    builder.onLoad({ filter: /.*/, namespace: 'addon' }, () => ({
      contents: `
        const { createRequire } = require('node:module');
        const { dirname, join } = require('node:path');
        const { realpathSync } = require('node:fs');
        module.exports = () => createRequire(__podwireBundle)(join(dirname(realpathSync(__podwireBundle)), 'netlink.node'));
      `,
    }));
  },
};

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
        'const __podwireBundle = import.meta.filename; const __filename = import.meta.filename; const __dirname = import.meta.dirname;',
      ].join('\n'),
    },
    // pkg/sys has a backend for the runtime of the CNI executable.
    external: ['./bun-ffi.ts'],
    plugins: [addonBesideBundle],
    logLevel: 'warning',
  });
  await chmod(outfile, 0o755);
}

/** The addon npm brought for this machine's architecture and C library. */
function netlinkAddon(): string {
  const require = createRequire(import.meta.url);
  const folder = dirname(require.resolve('netlink/package.json'));
  const find = createRequire(join(folder, 'package.json'))('node-gyp-build') as {
    path(dir: string): string;
  };
  return find.path(folder);
}

await mkdir(dist, { recursive: true });
const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
  version: string;
};
await Promise.all([
  ...programs.map((program) => bundle(program, version)),
  copyFile(netlinkAddon(), join(dist, 'netlink.node')),
  buildCni(join(dist, 'podwire-cni')),
]);
