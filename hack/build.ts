/**
 * Builds `dist/`: one bundle for each daemon and the user's command, run by the pinned Node, and the
 * CNI executable. A bundle because starting from source costs a daemon a quarter of a second, and
 * because an image then holds a handful of files.
 */
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buildCni } from './build-cni.ts';
import { buildLauncher } from './build-launcher.ts';
import { bundle } from './bundle.ts';

const root = join(import.meta.dirname, '..');
const dist = join(root, 'dist');
const programs = ['podwire-node', 'podwire-proxy', 'podwire'] as const;

await mkdir(dist, { recursive: true });
const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
  version: string;
};
await Promise.all([
  ...programs.map((name) => bundle(`cmd/${name}/main.ts`, join(dist, name), version)),
  buildCni(join(dist, 'podwire-cni')),
  buildLauncher(join(dist, 'podwire-cni-launcher')),
]);
