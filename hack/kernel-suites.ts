/**
 * The tests that need a kernel, in three legs at one time: those with daemons on this machine, one file
 * after the other, since many of them expect something within seconds; the others here, which wait for
 * programs most of the time and let the first go before them; and those of the virtual machine, which
 * do so, too. Ends with how many there were of all.
 *
 *     node hack/kernel-suites.ts [arguments for vitest: fewer tests on this machine]
 *
 * Exit code: that of vitest, else that of the virtual machine. Where there can be no such machine its
 * tests are skipped, and the reason is said. What takes many minutes there, switches of the proxy's mode,
 * is left to `npm run test:vm`.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { selections } from './kernel-selections.ts';
import { runLegs, type EndedLeg, type Leg } from './legs.ts';
import { closingLine, countsOfVm, countsOfVitest, type Counts } from './test-counts.ts';
import { beginTestRun, removeRemains } from './test-run.ts';

const root = join(import.meta.dirname, '..');
const node = [process.execPath, '--disable-warning=ExperimentalWarning'] as const;
/** As hack/vm/main.ts has it: there can be no machine here. */
const noMachine = 2;

const stop = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => {
    process.exitCode = 128 + constants.signals[name];
    stop.abort();
  });
}
const work = mkdtempSync(join(tmpdir(), 'podwire-tests-'));
const run = beginTestRun();
try {
  const exitCode = await main(process.argv.slice(2));
  if (!stop.signal.aborted) process.exitCode = exitCode;
} finally {
  rmSync(work, { recursive: true, force: true });
  // Of legs that were stopped; those that came to their end have removed what is theirs.
  const remains = await removeRemains(run);
  if (remains.length > 0) console.log(['Removed what was left:', ...remains].join('\n  '));
}

async function main(given: readonly string[]): Promise<number> {
  const isWhole = given.length === 0;
  // One worker a leg, for the two processors that there are at least.
  const parts = isWhole ? selections.map((s) => [...s, '--no-file-parallelism']) : [given];
  const reports = parts.map((_, i) => join(work, `report-${i}.json`));
  const vitest = parts.map((selection, i): Leg => {
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${reports[i]}`];
    const program = join(root, 'node_modules/vitest/vitest.mjs');
    return {
      command: [...node, program, 'run', ...selection, ...reporters],
      niceness: i === 0 ? 0 : 5,
    };
  });
  const machine = [join(root, 'hack/vm/main.ts'), '--quick', '--timeout', '3600'];
  // Not less than the second leg: programs in there have limits, too.
  const vm: Leg = { command: [...node, ...machine], niceness: 5 };
  const ended = await runLegs([...vitest, vm], stop.signal);
  const there = ended.at(-1);
  const here = ended.slice(0, -1);
  for (const { output } of here.slice(1)) print('Beside them', output);
  if (there !== undefined) print('In the virtual machine', there.output);
  summarize(reports, there);
  const failed = here.find(({ exitCode }) => exitCode !== 0);
  if (failed !== undefined) return failed.exitCode ?? 1;
  return there?.exitCode === noMachine ? 0 : (there?.exitCode ?? 1);
}

function print(title: string, output: EndedLeg['output']): void {
  process.stdout.write(`\n${title}:\n`);
  for (const chunk of output.chunks()) process.stdout.write(chunk);
}

/** vitest that did not come to its end has said why, and has no report. */
function summarize(reports: readonly string[], there: EndedLeg | undefined): void {
  const counts: Counts[] = reports
    .filter((report) => existsSync(report))
    .map((report) => countsOfVitest(readFileSync(report, 'utf8')));
  const isSkipped = there?.exitCode === noMachine;
  if (isSkipped) console.log('The tests of the virtual machine are skipped.');
  const inVm = isSkipped ? undefined : countsOfVm(there?.output.read(1 << 16).toString() ?? '');
  console.log(closingLine(counts, inVm));
}
