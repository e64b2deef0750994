/** Runs bundled tests in the VM and prints what became of each: the guest's half of vitest. */
import { startTests } from 'vitest/internal/browser';

type TestFile = readonly [path: string, load: () => Promise<unknown>];
type VitestRunner = Parameters<typeof startTests>[1];
type File = Awaited<ReturnType<typeof startTests>>[number];
type Task = File['tasks'][number];

/** As the kernel tests have it, and twice that: the machine is slow. */
const timeoutMs = 120_000;

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
      config: { expect: {}, snapshotOptions: { expand: false }, chaiConfig: {} },
      providedContext: {},
      onCleanup: () => undefined,
    },
  });
  const sums = { pass: 0, fail: 0, skip: 0 };
  for (const [path, load] of files) {
    const startedMs = performance.now();
    const runner: VitestRunner = {
      config,
      importFile: async (_, source) => {
        if (source === 'collect') await load();
      },
    };
    const [file] = await startTests([path], runner);
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    console.log(`\n${path} (${seconds} s)`);
    if (file === undefined) continue;
    // A file that cannot be loaded has no tests that could fail.
    for (const error of file.result?.errors ?? []) {
      sums.fail += 1;
      console.log(`  FAIL ${error.stack ?? error.message}`);
    }
    report(file.tasks, '', sums);
  }
  const ran = sums.pass + sums.fail + sums.skip;
  console.log(`\n${ran} tests: ${sums.pass} passed, ${sums.fail} failed, ${sums.skip} skipped`);
  return sums.fail > 0 || sums.pass === 0 ? 1 : 0;
}

function report(
  tasks: readonly Task[],
  above: string,
  sums: { pass: number; fail: number; skip: number },
): void {
  for (const task of tasks) {
    const name = above === '' ? task.name : `${above} > ${task.name}`;
    if (task.type === 'suite') {
      for (const error of task.result?.errors ?? []) {
        sums.fail += 1;
        console.log(`  FAIL ${name}: ${error.stack ?? error.message}`);
      }
      report(task.tasks, name, sums);
      continue;
    }
    const { errors = [], state = 'skip', duration = 0 } = task.result ?? {};
    const note = task.result !== undefined && 'note' in task.result ? task.result.note : undefined;
    const ms = duration.toFixed(0);
    if (state === 'pass') {
      sums.pass += 1;
      console.log(`  ok   ${name} (${ms} ms)`);
    } else if (state === 'fail') {
      sums.fail += 1;
      console.log(`  FAIL ${name} (${ms} ms)`);
      for (const { message, stack, diff } of errors) {
        console.log(`${stack ?? message}${diff === undefined ? '' : `\n${diff}`}`);
      }
    } else {
      sums.skip += 1;
      console.log(`  skip ${name}${typeof note === 'string' ? `: ${note}` : ''}`);
    }
  }
}
