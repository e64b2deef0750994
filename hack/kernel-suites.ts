/**
 * The tests that need a kernel, in four legs at one time: those with daemons on this machine, one file
 * after the other, since many of them expect something within seconds; the others here, which wait for
 * programs most of the time and let the first go before them; and those of two virtual machines, which
 * do so, too. Ends with how many there were of all.
 *
 *     node hack/kernel-suites.ts [arguments for vitest: fewer tests on this machine]
 *
 * Exit code: that of vitest, else that of the virtual machine. Where there can be no such machine its
 * tests are skipped, and the reason is said.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { machinesOf, selections } from './kernel-selections.ts';
import { runLegs, type EndedLeg, type Leg } from './legs.ts';
import { suitesOf } from './vm/suites.ts';
import { closingLine, countsOfVm, countsOfVitest, type Counts } from './test-counts.ts';

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
try {
  const exitCode = await main(process.argv.slice(2));
  if (!stop.signal.aborted) process.exitCode = exitCode;
} finally {
  rmSync(work, { recursive: true, force: true });
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
  const machines = machinesOf(suitesOf(root, []).map(({ file }) => file)).map((files): Leg => {
    const machine = [join(root, 'hack/vm/main.ts'), '--timeout', '1800', '--quick'];
    // Not less than the second leg: programs in there have limits, too.
    return { command: [...node, ...machine, ...files], niceness: 5 };
  });
  const ended = await runLegs([...vitest, ...machines], stop.signal);
  const here = ended.slice(0, vitest.length);
  const there = ended.slice(vitest.length);
  for (const { output } of here.slice(1)) print('Beside them', output);
  for (const { output } of there) print('In a virtual machine', output);
  summarize(reports, there);
  const codes = [
    ...here.map(({ exitCode }) => exitCode ?? 1),
    ...there.map(({ exitCode }) => (exitCode === noMachine ? 0 : (exitCode ?? 1))),
  ];
  return codes.find((code) => code !== 0) ?? 0;
}

function print(title: string, output: EndedLeg['output']): void {
  process.stdout.write(`\n${title}:\n`);
  for (const chunk of output.chunks()) process.stdout.write(chunk);
}

/** vitest that did not come to its end has said why, and has no report. */
function summarize(reports: readonly string[], there: readonly EndedLeg[]): void {
  const counts: Counts[] = reports
    .filter((report) => existsSync(report))
    .map((report) => countsOfVitest(readFileSync(report, 'utf8')));
  const ran = there.filter(({ exitCode }) => exitCode !== noMachine);
  if (ran.length < there.length) console.log('Tests of the virtual machine are skipped.');
  const inVm = ran.map(({ output }) => countsOfVm(output.read(1 << 16).toString()));
  console.log(closingLine(counts, inVm));
}
