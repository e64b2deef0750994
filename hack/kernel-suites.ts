/**
 * The tests that need a kernel, in three legs at one time: those with daemons on this machine, one file
 * after the other, since many of them expect something within seconds; the others here, which wait for
 * programs most of the time and let the first go before them; and those of the virtual machines, which
 * do so, too. A few files that failed are run again with nothing beside them: what passes then is named
 * as unsteady, to be mended, and fails nothing. Ends with which tests failed, and how many there were.
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
import { runLegs, type Command, type Ended } from './legs.ts';
import { secondLook, type Failed } from './second-look.ts';
import {
  asPassed,
  closingLine,
  countsOfVm,
  countsOfVitest,
  failuresOfVitest,
  failuresOfVm,
  filesThatFailed,
  filesThatFailedInVm,
  type Counts,
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
  const selected = given.length === 0 ? selections : [given];
  const parts: readonly (readonly Part[])[] = [
    ...selected.map((selection, i) => [partHere(selection, i)]),
    // Not less nice than the second leg: programs in there have limits, too.
    partsInMachines(),
  ];
  const legs = parts.map((leg, i) => ({
    commands: leg.map(({ whole }) => whole),
    niceness: i === 0 ? 0 : 5,
  }));
  const ended = await runLegs(legs, stop.signal);
  const results = parts.flatMap((leg, i) =>
    (ended[i] ?? []).map((of, k) => ({ part: leg[k] as Part, ended: of })),
  );
  for (const { part, ended: of } of results.slice(1)) {
    print(part.inMachine ? 'In a virtual machine' : 'Beside them', of.output);
  }
  const ran = results.filter(({ ended: { exitCode } }) => exitCode !== noMachine);
  if (ran.length < results.length) console.log('Tests of a virtual machine are skipped.');
  return summarize(ran);
}

/** What one command of a leg is for. */
interface Part {
  readonly whole: Command;
  /** Runs the files that are appended. */
  readonly some: Command;
  readonly inMachine: boolean;
  /** Undefined when it told nothing before its end, which it has explained then. */
  readonly outcome: (ended: Ended) => Outcome | undefined;
}

interface Outcome {
  readonly counts: Counts;
  readonly failures: readonly string[];
  readonly failedFiles: readonly string[] | undefined;
}

interface Result {
  readonly part: Part;
  readonly ended: Ended;
}

function partHere(selection: readonly string[], number: number): Part {
  const vitest = join(root, 'node_modules/vitest/vitest.mjs');
  // One worker a leg, for the two processors that there are at least.
  const some = [...node, vitest, 'run', '--no-file-parallelism'] as const;
  const file = join(work, `report-${number}.json`);
  const reporters = ['--reporter=default', `--reporter=${join(root, 'hack/vitest-report.ts')}`];
  return {
    whole: [...some, ...selection, ...reporters, `--outputFile.json=${file}`],
    some,
    inMachine: false,
    outcome() {
      if (!existsSync(file)) return undefined;
      const report = readFileSync(file, 'utf8');
      return {
        counts: countsOfVitest(report),
        failures: failuresOfVitest(report),
        failedFiles: filesThatFailed(report),
      };
    },
  };
}

/** Each suite in the machine that is the faster one for it. */
function partsInMachines(): Part[] {
  const main = [...node, join(root, 'hack/vm/main.ts'), '--quick', '--timeout', '3600'] as const;
  const { emulated, userMode } = suitesByMachine(root);
  const part = (some: Command, files: readonly string[]): Part => ({
    whole: [...some, ...files],
    some,
    inMachine: true,
    outcome(ended) {
      const output = ended.output.read(vmOutputBytes).toString();
      return {
        counts: countsOfVm(output),
        failures: failuresOfVm(output),
        failedFiles: filesThatFailedInVm(output),
      };
    },
  });
  return [part([...main, '--user-mode'], userMode), part(main, emulated)];
}

function print(title: string, output: Ended['output']): void {
  process.stdout.write(`\n${title}:\n`);
  for (const chunk of output.chunks()) process.stdout.write(chunk);
}

/** Prints what failed and how many there were; returns the exit code. */
async function summarize(results: readonly Result[]): Promise<number> {
  const known = results.map(({ part, ended }) => ({ part, ended, ...part.outcome(ended) }));
  const failed = known.filter(({ ended }) => ended.exitCode !== 0);
  const unsteady = await passesAlone(
    failed.map(({ part, failedFiles }) => ({ command: part.some, files: failedFiles })),
  );
  for (const { failures = [], ended } of failed) {
    const { command, exitCode } = ended;
    if (failures.length === 0) {
      console.log(`FAIL ${command.slice(2, 5).join(' ')}: ended with ${exitCode ?? 'a signal'}`);
    }
    for (const line of failures) console.log(unsteady ? line.replace(/^FAIL/, 'UNSTEADY') : line);
  }
  const counts = (inMachine: boolean): Counts[] =>
    known
      .filter(({ part }) => part.inMachine === inMachine)
      .flatMap(({ counts: of }) => (of === undefined ? [] : unsteady ? asPassed(of) : of));
  console.log(closingLine(counts(false), counts(true)));
  if (failed.length === 0 || unsteady) return 0;
  return failed[0]?.ended.exitCode ?? 1;
}

/** Whether all that failed passes when nothing else runs. */
async function passesAlone(failed: readonly Failed[]): Promise<boolean> {
  const commands = secondLook(failed);
  if (commands === undefined || stop.signal.aborted) return false;
  console.log('\nA second look at the files that failed, with nothing beside them:');
  const ended = (await runLegs([{ commands, niceness: 0 }], stop.signal)).flat();
  return ended.length === commands.length && ended.every(({ exitCode }) => exitCode === 0);
}
