import { expect, it } from 'vitest';
import {
  asPassed,
  closingLine,
  countsOfVitest,
  countsOfVm,
  failuresOfVitest,
  failuresOfVm,
  filesThatFailed,
  filesThatFailedInVm,
} from './test-results.ts';

const here = countsOfVitest(
  JSON.stringify({
    numTotalTests: 841,
    numPassedTests: 833,
    numFailedTests: 0,
    numPendingTests: 8,
  }),
);

it('adds what ran in the virtual machine', () => {
  const there = countsOfVm(
    '  ok   it works (3 ms)\n49 tests: 47 passed, 0 failed, 2 skipped\nended\n',
  );
  expect(closingLine([here, { passed: 5, failed: 0, skipped: 1 }], [there]).trim()).toBe(
    'Tests  885 passed | 11 skipped (896), 49 of them in virtual machines',
  );
});

it('says that nothing ran there, and counts a machine that never told as a failure', () => {
  expect(closingLine([here], [])).toContain('833 passed | 8 skipped (841), none of them in');
  expect(closingLine([here], [countsOfVm('killed')])).toContain('1 failed | 833 passed');
});

it('counts by the last line that tells, not by what a test printed', () => {
  const output =
    '9 tests: 9 passed, 0 failed, 0 skipped\n  ok   a\n2 tests: 1 passed, 1 failed, 0 skipped\n';
  expect(countsOfVm(output)).toEqual({ passed: 1, failed: 1, skipped: 0 });
});

it('names each test that failed, with its message', () => {
  const assertionResults = [
    { fullName: 'a b', status: 'failed', failureMessages: ['expected 1 to be 2\n    at x.ts:1:1'] },
    { fullName: 'a c', status: 'passed', failureMessages: [] },
    { fullName: 'a d', status: 'failed', failureMessages: ['x'.repeat(9_000)] },
  ];
  const testResults = [
    { name: '/x.test.ts', status: 'failed', message: '', assertionResults },
    { name: '/y.test.ts', status: 'passed', message: '', assertionResults: [] },
    { name: '/z.test.ts', status: 'failed', message: 'Cannot find module', assertionResults: [] },
    { name: '/h.test.ts', status: 'failed', message: '', assertionResults: [] },
  ];
  const lines = failuresOfVitest(JSON.stringify({ testResults }));
  expect(lines[0]).toBe('FAIL /x.test.ts > a b: expected 1 to be 2\n    at x.ts:1:1');
  expect(lines[1]).toMatch(/^FAIL \/x.test.ts > a d: x{2000} …$/);
  expect(lines.slice(2)).toEqual([
    'FAIL /z.test.ts: Cannot find module',
    'FAIL /h.test.ts: a hook failed',
  ]);
});

it('names those of a virtual machine, with what was printed about them', () => {
  const output = [
    'cmd/x.vm.test.ts',
    '  ok   first (3 ms)',
    '  FAIL second (9 ms)',
    'expected 1 to be 2',
    '    at x.ts:1:1',
    '  skip third',
    '  FAIL fourth (1 ms)',
    'no such thing',
    '  3.1 s',
    '',
    '4 tests: 1 passed, 2 failed, 1 skipped',
  ];
  expect(failuresOfVm(output.join('\n'))).toEqual([
    'FAIL second (9 ms)\nexpected 1 to be 2\n    at x.ts:1:1',
    'FAIL fourth (1 ms)\nno such thing',
  ]);
});

it('knows the files to run again: of failed tests, and of errors that came while one ran', () => {
  const testResults = [
    { name: '/a.test.ts', status: 'failed', message: '', assertionResults: [] },
    { name: '/b.test.ts', status: 'passed', message: '', assertionResults: [] },
    { name: '/c.test.ts', status: 'passed', message: '', assertionResults: [] },
  ];
  const stray = { message: 'write EPIPE', VITEST_TEST_PATH: '/c.test.ts' };
  const report = (strayErrors: readonly object[]): string =>
    JSON.stringify({ testResults, strayErrors });
  expect(filesThatFailed(report([stray, stray]))).toEqual(['/a.test.ts', '/c.test.ts']);
  expect(filesThatFailed(report([stray, { message: 'of nobody' }]))).toBeUndefined();
});

it('knows those of a virtual machine, if it came to its end', () => {
  const lines = [
    'cmd/x.vm.test.ts',
    '  FAIL second (9 ms)',
    'expected 1 to be 2',
    '  FAIL third (9 ms)',
    'pkg/y.kernel.test.ts',
    '  ok   first (3 ms)',
    'pkg/z.vm.test.ts',
    '  FAIL a hook',
  ];
  const output = lines.join('\n');
  expect(filesThatFailedInVm(output)).toBeUndefined();
  expect(filesThatFailedInVm(`${output}\n\n4 tests: 1 passed, 3 failed, 0 skipped`)).toEqual([
    'cmd/x.vm.test.ts',
    'pkg/z.vm.test.ts',
  ]);
});

it('counts what passed at the second look as passed', () => {
  expect(asPassed({ passed: 5, failed: 2, skipped: 1 })).toEqual({
    passed: 7,
    failed: 0,
    skipped: 1,
  });
});
