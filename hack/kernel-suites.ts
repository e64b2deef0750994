/**
 * The tests that need a kernel: this machine's, and meanwhile those of the virtual machine, which
 * take what the others leave of the processor. Ends with how many there were of both.
 *
 *     node hack/kernel-suites.ts [arguments for vitest: fewer tests on this machine]
 *
 * Exit code: that of vitest, else that of the virtual machine. Where there can be no such machine its
 * tests are skipped, and the reason is said. Those that take minutes there are left to `npm run
 * test:vm`.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { closingLine, countsOfVm, countsOfVitest, type Counts } from './test-counts.ts';

const root = join(import.meta.dirname, '..');
const node = ['--disable-warning=ExperimentalWarning'];
/** As hack/vm/main.ts has it: there can be no machine here. */
const noMachine = 2;

const suites =
  process.argv.length > 2 ? process.argv.slice(2) : ['--project', 'kernel-*', '--project', 'e2e-*'];
const reports = (file: string): string[] => [
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${file}`,
];

const work = mkdtempSync(join(tmpdir(), 'podwire-tests-'));
try {
  process.exitCode = await main(join(work, 'report.json'));
} finally {
  rmSync(work, { recursive: true, force: true });
}

async function main(report: string): Promise<number> {
  const machine = [join(root, 'hack/vm/main.ts'), '--quick', '--timeout', '1800'];
  const vm = execa('nice', ['-n', '10', process.execPath, ...node, ...machine], {
    reject: false,
    stdin: 'ignore',
    all: true,
  });
  const here = await execa(
    process.execPath,
    [...node, join(root, 'node_modules/vitest/vitest.mjs'), 'run', ...suites, ...reports(report)],
    { reject: false, stdio: 'inherit' },
  );
  const there = await vm;
  console.log(`\nIn the virtual machine:\n${there.all}`);
  const counts: Counts[] = [];
  if (there.exitCode === noMachine) console.log('The tests of the virtual machine are skipped.');
  else counts.push(countsOfVm(there.all));
  // vitest that did not come to its end has said why.
  if (existsSync(report)) {
    console.log(closingLine(countsOfVitest(readFileSync(report, 'utf8')), counts[0]));
  }
  if (here.exitCode !== 0) return here.exitCode ?? 1;
  return there.exitCode === noMachine ? 0 : (there.exitCode ?? 1);
}
