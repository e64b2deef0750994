/** Everything that needs no kernel: format, lint, types, import rules, unit tests. */
import { spawn } from 'node:child_process';

type Check = readonly [name: string, command: string, ...args: string[]];

/** At one time: none of them has work for all processors from its beginning to its end. */
const still: readonly Check[] = [
  ['format', 'oxfmt', '--check', '.'],
  ['lint', 'oxlint', '--type-aware', '--deny-warnings'],
  ['types', 'tsc'],
  ['imports', process.execPath, 'hack/verify-imports.ts'],
  ['scenario map', process.execPath, 'hack/scenario-map.ts', '--check'],
];
const unitTests: Check = ['unit tests', 'vitest', 'run', '--project', 'unit'];

const results = await Promise.all(still.map((check) => run(check, 'pipe')));
results.push(await run(unitTests, 'inherit'));
const failed = results.filter((name) => name !== undefined);
if (failed.length > 0) {
  console.error(`verify: ${failed.join(', ')} failed`);
  process.exitCode = 1;
}

/** The check's name when it fails. What it prints, if not as it comes, is printed at its end. */
async function run(check: Check, stdio: 'pipe' | 'inherit'): Promise<string | undefined> {
  const [name, command, ...args] = check;
  const startMs = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', stdio, stdio] });
  const said: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (bytes: Buffer) => said.push(bytes));
  }
  const code = await new Promise<number | null>((resolve) => {
    child.once('error', (error) => {
      console.error(`verify: cannot run ${command}: ${error.message}`);
      resolve(null);
    });
    child.once('close', resolve);
  });
  process.stdout.write(Buffer.concat(said));
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  console.error(`verify: ${name} ${code === 0 ? 'ok' : 'FAILED'} (${seconds} s)`);
  return code === 0 ? undefined : name;
}
