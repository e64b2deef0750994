/** `dist/`, built again when a source changed. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runStep } from './run.mjs';

const sources = [
  'cmd',
  'pkg',
  'plugins',
  'hack',
  'package.json',
  'package-lock.json',
  'tsconfig.json',
];
// Not the launcher: where there is no C compiler there is none.
const products = ['podwire', 'podwire-cni', 'podwire-node', 'podwire-proxy'];

/**
 * Builds unless `dist/` was built from these very sources.
 *
 * @throws {Refusal} When the build fails
 */
export function buildProducts({ root, node, env, say }) {
  const stamp = join(root, 'dist/.built-from');
  const hash = hashOf(root);
  if (products.every((name) => exists(join(root, 'dist', name))) && read(stamp) === hash) return;
  say('building dist/');
  // What an interrupted build leaves was built from no known sources.
  rmSync(stamp, { force: true });
  runStep('build dist/', [node, join(root, 'hack/build.ts')], { cwd: root, env });
  writeFileSync(stamp, hash);
}

function hashOf(root) {
  const hash = createHash('sha256');
  for (const path of sources.flatMap((source) => filesBelow(root, source))) {
    hash
      .update(`${path}\0`)
      .update(readFileSync(join(root, path)))
      .update('\0');
  }
  return hash.digest('hex');
}

/** Tests change often and are in no product. */
function filesBelow(root, path) {
  if (!statSync(join(root, path)).isDirectory()) return [path];
  return readdirSync(join(root, path), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.endsWith('.test.ts'))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(root.length + 1))
    .sort();
}

function exists(path) {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

function read(path) {
  return exists(path) ? readFileSync(path, 'utf8') : undefined;
}
