import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { selections } from './kernel-selections.ts';

const root = join(import.meta.dirname, '..');

/** Projects and files, as vitest finds them: "[kernel-parts] pkg/…". */
async function filesOf(selection: readonly string[]): Promise<string[]> {
  const vitest = join(root, 'node_modules/vitest/vitest.mjs');
  const args = [vitest, 'list', '--filesOnly', ...selection];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root });
  return stdout.split('\n').filter((line) => line !== '');
}

it('every kernel test runs once', async () => {
  const all = await filesOf(['--project=kernel-*', '--project=e2e-*']);
  const parts = await Promise.all(selections.map(filesOf));
  expect(parts.flat().toSorted()).toEqual(all.toSorted());
  // Daemons run one file at a time: all of them in one part.
  const withDaemons = parts.map((files) =>
    files.some((line) => line.startsWith('[kernel-programs]')),
  );
  expect(withDaemons).toEqual([true, false]);
}, 120_000);
