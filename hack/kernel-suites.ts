/**
 * The tests that need a kernel, in three legs at one time: those with daemons on this machine, one file
 * after the other, since many of them expect something within seconds; the others here, which wait for
 * programs most of the time and let the first go before them; and those of the virtual machines, which
 * do so, too. Ends with which tests failed, and how many there were of all.
 *
 *     node hack/kernel-suites.ts [arguments for vitest: fewer tests on this machine]
 *
 * Exit code: that of vitest, else that of a virtual machine. Where there can be no such machine its
 * tests are skipped, and the reason is said.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { selections } from './kernel-selections.ts';
import { runLegs, type Command, type Ended, type Leg } from './legs.ts';
import {
  closingLine,
  countsOfVm,
  countsOfVitest,
  failuresOfVitest,
  failuresOfVm,
} from './test-results.ts';
import { beginTestRun, removeRemains } from './test-run.ts';
import { suitesByMachine } from './vm/suites.ts';

const root = join(import.meta.dirname, '..');
const node = [process.execPath, '--disable-warning=ExperimentalWarning'] as const;
/** As hack/vm/main.ts has it: there can be no machine here. */
const noMachine = 2;
/** What tests in a machine print of themselves at their end, failures included. */
const vmOutputBytes = 1 << 24;

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
  const here = parts.map((selection, i): Leg => {
    const report = join(root, 'hack/vitest-report.ts');
    const reporters = ['--reporter=default', `--reporter=${report}`];
    const program = join(root, 'node_modules/vitest/vitest.mjs');
    return {
      commands: [
        [...node, program, 'run', ...selection, ...reporters, `--outputFile.json=${reports[i]}`],
      ],
      niceness: i === 0 ? 0 : 5,
    };
  });
  // Not less nice than the second leg: programs in there have limits, too.
  const there: Leg = { commands: machines(), niceness: 5 };
  const ended = await runLegs([...here, there], stop.signal);
  const inMachines = ended.at(-1) ?? [];
  const onThis = ended.slice(0, -1).flat();
  for (const { output } of onThis.slice(1)) print('Beside them', output);
  for (const { output } of inMachines) print('In a virtual machine', output);
  const ran = [...onThis, ...inMachines.filter(({ exitCode }) => exitCode !== noMachine)];
  for (const { command, exitCode } of ran.filter(hasFailed)) {
    console.log(`Ended with ${exitCode ?? 'a signal'}: ${command.slice(2).join(' ')}`);
  }
  summarize(reports, inMachines);
  return ran.find(hasFailed)?.exitCode ?? (ran.some(hasFailed) ? 1 : 0);
}

function hasFailed({ exitCode }: Ended): boolean {
  return exitCode !== 0;
}

/** Each suite in the machine that is the faster one for it. */
function machines(): Command[] {
  const program = [...node, join(root, 'hack/vm/main.ts'), '--quick', '--timeout', '3600'] as const;
  const { emulated, userMode } = suitesByMachine(root);
  return [
    [...program, '--user-mode', ...userMode],
    [...program, ...emulated],
  ];
}

function print(title: string, output: Ended['output']): void {
  process.stdout.write(`\n${title}:\n`);
  for (const chunk of output.chunks()) process.stdout.write(chunk);
}

/** vitest that did not come to its end has said why, and has no report. */
function summarize(reports: readonly string[], inMachines: readonly Ended[]): void {
  const here = reports.filter((file) => existsSync(file)).map((file) => readFileSync(file, 'utf8'));
  const ran = inMachines.filter(({ exitCode }) => exitCode !== noMachine);
  if (ran.length < inMachines.length) console.log('Tests of a virtual machine are skipped.');
  const there = ran.map(({ output }) => output.read(vmOutputBytes).toString());
  for (const line of [...here.flatMap(failuresOfVitest), ...there.flatMap(failuresOfVm)]) {
    console.log(line);
  }
  console.log(closingLine(here.map(countsOfVitest), there.map(countsOfVm)));
}
