/** What became of tests, as their runners tell: how many passed, and which failed and why. */
import type { StrayError } from './vitest-report.ts';

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** From what vitest's JSON reporter writes. */
export function countsOfVitest(report: string): Counts {
  const { numFailedTests, numPassedTests, numTotalTests } = JSON.parse(report) as Record<
    'numFailedTests' | 'numPassedTests' | 'numTotalTests',
    number
  >;
  return {
    passed: numPassedTests,
    failed: numFailedTests,
    skipped: numTotalTests - numPassedTests - numFailedTests,
  };
}

/** From the last line of hack/vm/run-tests.ts; a machine that ended without it has one failure. */
export function countsOfVm(output: string): Counts {
  const all = output.matchAll(/^\d+ tests: (\d+) passed, (\d+) failed, (\d+) skipped$/gm);
  const found = [...all].at(-1);
  const [passed = 0, failed = 1, skipped = 0] = found?.slice(1).map(Number) ?? [];
  return { passed, failed, skipped };
}

/** What is true once each test that failed has passed. */
export function asPassed({ passed, failed, skipped }: Counts): Counts {
  return { passed: passed + failed, failed: 0, skipped };
}

/** As vitest ends, of all together. */
export function closingLine(here: readonly Counts[], there: readonly Counts[]): string {
  const all = [...here, ...there];
  const sum = (of: keyof Counts): number => total(all, of);
  const parts = (['failed', 'passed', 'skipped'] as const)
    .filter((of) => of === 'passed' || sum(of) > 0)
    .map((of) => `${sum(of)} ${of}`);
  const inVm = total(there, 'failed') + total(there, 'passed') + total(there, 'skipped');
  const ran = sum('failed') + sum('passed') + sum('skipped');
  const words = inVm === 0 ? 'none' : `${inVm}`;
  return `      Tests  ${parts.join(' | ')} (${ran}), ${words} of them in virtual machines`;
}

function total(all: readonly Counts[], of: keyof Counts): number {
  return all.reduce((sum, counts) => sum + counts[of], 0);
}

/** Enough to tell which condition of a test was not met. */
const maxMessage = 2_000;

interface VitestReport {
  readonly strayErrors?: readonly StrayError[];
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    /** Of a file that could not be loaded. */
    readonly message: string;
    readonly assertionResults: readonly {
      readonly fullName: string;
      readonly status: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

/**
 * Each failed test with its message, from what hack/vitest-report.ts writes; files without any, and errors
 * that are of no test, too.
 */
export function failuresOfVitest(report: string): string[] {
  const { strayErrors = [], testResults } = JSON.parse(report) as VitestReport;
  const failed = testResults
    .filter(({ status }) => status === 'failed')
    .flatMap(({ assertionResults, message, name }) => {
      const failed = assertionResults.filter(({ status }) => status === 'failed');
      if (failed.length === 0) return [`FAIL ${name}: ${message || 'a hook failed'}`];
      return failed.map(
        (test) => `FAIL ${name} > ${test.fullName}: ${shorten(test.failureMessages)}`,
      );
    });
  return [...failed, ...strayErrors.map(describeStray)];
}

function describeStray(error: StrayError): string {
  const { message, stack = '', type = 'Error' } = error;
  const { VITEST_TEST_NAME: test = 'no test', VITEST_TEST_PATH: file = 'no file' } = error;
  const words = stack.includes(message) ? stack : `${message}\n${stack}`;
  return `FAIL ${type} in ${file}, while ${test} ran: ${shorten([words])}`;
}

/** Files to run for a second look at all that failed; undefined when something failed outside of a file. */
export function filesThatFailed(report: string): string[] | undefined {
  const { strayErrors = [], testResults } = JSON.parse(report) as VitestReport;
  const files = testResults.filter(({ status }) => status === 'failed').map(({ name }) => name);
  for (const { VITEST_TEST_PATH: file } of strayErrors) {
    if (file === undefined) return undefined;
    files.push(file);
  }
  return [...new Set(files)];
}

function shorten(messages: readonly string[]): string {
  const text = messages.join('\n');
  return text.length > maxMessage ? `${text.slice(0, maxMessage)} …` : text;
}

/** The same from what hack/vm/run-tests.ts prints, where a message follows the line of its test. */
export function failuresOfVm(output: string): string[] {
  const failures: string[] = [];
  let lines: string[] | undefined;
  for (const line of output.split('\n')) {
    if (/^ {2}(?:ok {3}|FAIL |skip |[\d.]+ s$)/.test(line)) {
      lines = line.startsWith('  FAIL ') ? [line.trim()] : undefined;
      if (lines !== undefined) failures.push('');
    } else lines?.push(line);
    if (lines !== undefined) failures.splice(-1, 1, shorten([lines.join('\n')]));
  }
  return failures;
}

/** The same of a virtual machine; undefined when it ended before it told. */
export function filesThatFailedInVm(output: string): string[] | undefined {
  if (!/^\d+ tests: /m.test(output)) return undefined;
  const files = new Set<string>();
  let file = '';
  for (const line of output.split('\n')) {
    if (/^\S+\.test\.ts$/.test(line)) file = line;
    else if (line.startsWith('  FAIL ')) files.add(file);
  }
  return [...files];
}
