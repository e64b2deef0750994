/** Runs bundled tests in the VM and prints what became of each: the guest's half of vitest. */
import { startTests } from 'vitest/internal/browser';
import { patience } from './patience.ts';

type TestFile = readonly [path: string, load: () => Promise<unknown>, only?: RegExp];
type VitestRunner = Parameters<typeof startTests>[1];
type File = Awaited<ReturnType<typeof startTests>>[number];
type Task = File['tasks'][number];

/** Of a test that says nothing else; twice what kernel tests have, unless main.ts says otherwise. */
const timeoutMs = 1000 * Number(process.env['PODWIRE_TEST_SECONDS'] ?? 120);

const config: VitestRunner['config'] = {
  root: '/',
  setupFiles: [],
  name: 'vm',
  passWithNoTests: false,
  testNamePattern: undefined,
  allowOnly: false,
  sequence: { seed: 0, hooks: 'stack', setupFiles: 'list' },
  chaiConfig: undefined,
  maxConcurrency: 1,
  testTimeout: timeoutMs,
  hookTimeout: timeoutMs,
  retry: 0,
  includeTaskLocation: false,
  tags: [],
  tagsFilter: undefined,
  strictTags: false,
};

/** Runs the files one after the other; 0 when every test passed or was skipped, else 1. */
export async function runTests(files: readonly TestFile[]): Promise<0 | 1> {
  // What vitest's own worker process sets; its matchers look for their configuration there.
  Object.assign(globalThis, {
    __vitest_worker__: {
      config: {
        expect: { poll: { timeout: patience(60_000) } },
        snapshotOptions: { expand: false },
        chaiConfig: {},
      },
      providedContext: {},
      onCleanup: () => undefined,
    },
  });
  // As in vitest: a test that ends its process has not passed.
  process.exit = (code) => {
    throw new Error(`process.exit unexpectedly called with "${code}"`);
  };
  const sums = { pass: 0, fail: 0, skip: 0 };
  for (const [path, load, only] of files) {
    const startedMs = performance.now();
    console.log(path);
    const [file] = await startTests([path], {
      config: { ...config, testNamePattern: only },
      importFile: async (_, source) => {
        if (source === 'collect') await load();
      },
      onAfterRunTask: (test) => reportTest(test, sums),
    });
    if (file !== undefined) reportSuites(file, sums, only);
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    console.log(`  ${seconds} s`);
  }
  const ran = sums.pass + sums.fail + sums.skip;
  // On a line of its own, whatever a test has printed.
  console.log(`\n${ran} tests: ${sums.pass} passed, ${sums.fail} failed, ${sums.skip} skipped`);
  return sums.fail > 0 || sums.pass === 0 ? 1 : 0;
}

interface Sums {
  pass: number;
  fail: number;
  skip: number;
}

/** What became of a test, as soon as it is known. */
function reportTest(task: Task, sums: Sums): void {
  const { errors = [], state = 'skip', duration = 0 } = task.result ?? {};
  const title = titleOf(task);
  const ms = duration.toFixed(0);
  if (state === 'pass') {
    sums.pass += 1;
    console.log(`  ok   ${title} (${ms} ms)`);
  } else if (state === 'fail') {
    sums.fail += 1;
    console.log(`  FAIL ${title} (${ms} ms)`);
    for (const { message, stack, diff } of errors) {
      // A test that took too long has its place in the stack, and why in the message alone.
      const frames = stack?.match(/^ +at .*$/gm)?.join('\n') ?? '';
      console.log([message, diff, frames].filter(Boolean).join('\n'));
    }
  } else reportSkipped(task, sums);
}

/** Tests that never began, and errors of hooks and of files: a file that fails has no tests. */
function reportSuites(
  suite: File | Extract<Task, { type: 'suite' }>,
  sums: Sums,
  only: RegExp | undefined,
): void {
  for (const error of suite.result?.errors ?? []) {
    sums.fail += 1;
    console.log(`  FAIL ${titleOf(suite)}: ${error.stack ?? error.message}`);
  }
  for (const task of suite.tasks) {
    if (task.type === 'suite') reportSuites(task, sums, only);
    // Those that nobody asked for are not skipped: they run elsewhere.
    else if (task.result === undefined && isAsked(task, only)) reportSkipped(task, sums);
  }
}

function reportSkipped(task: Task, sums: Sums): void {
  sums.skip += 1;
  const { result } = task;
  const note = result !== undefined && 'note' in result ? result.note : undefined;
  console.log(`  skip ${titleOf(task)}${typeof note === 'string' ? `: ${note}` : ''}`);
}

/** By the full name, as vitest itself asks. */
function isAsked(task: Task, only: RegExp | undefined): boolean {
  return only === undefined || only.test(titleOf(task, ' '));
}

/** The names of the suites around a task, and its own. */
function titleOf(task: Task, between = ' > '): string {
  const above = task.suite === undefined ? '' : titleOf(task.suite, between);
  return above === '' ? task.name : `${above}${between}${task.name}`;
}
