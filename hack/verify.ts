/** Everything that needs no kernel: format, lint, types, import rules, unit tests. */
import { spawnSync } from 'node:child_process';

const checks: readonly (readonly [name: string, command: string, ...args: string[]])[] = [
  ['format', 'oxfmt', '--check', '.'],
  ['lint', 'oxlint', '--type-aware', '--deny-warnings'],
  ['types', 'tsc'],
  ['imports', process.execPath, 'hack/verify-imports.ts'],
  ['scenario map', process.execPath, 'hack/scenario-map.ts', '--check'],
  ['unit tests', 'vitest', 'run', '--project', 'unit'],
];

const failed: string[] = [];
for (const [name, command, ...args] of checks) {
  const startMs = performance.now();
  const { status, error } = spawnSync(command, args, { stdio: 'inherit' });
  if (error !== undefined) console.error(`verify: cannot run ${command}: ${error.message}`);
  if (status !== 0) failed.push(name);
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  console.error(`verify: ${name} ${status === 0 ? 'ok' : 'FAILED'} (${seconds} s)`);
}
if (failed.length > 0) {
  console.error(`verify: ${failed.join(', ')} failed`);
  process.exitCode = 1;
}
