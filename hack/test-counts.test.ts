import { expect, it } from 'vitest';
import { closingLine, countsOfVitest, countsOfVm } from './test-counts.ts';

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
  expect(closingLine([here, { passed: 5, failed: 0, skipped: 1 }], there).trim()).toBe(
    'Tests  885 passed | 11 skipped (896), 49 of them in the virtual machine',
  );
});

it('says that nothing ran there, and counts a machine that never told as a failure', () => {
  expect(closingLine([here], undefined)).toContain('833 passed | 8 skipped (841), none of them in');
  expect(closingLine([here], countsOfVm('killed'))).toContain('1 failed | 833 passed');
});

it('counts by the last line that tells, not by what a test printed', () => {
  const output =
    '9 tests: 9 passed, 0 failed, 0 skipped\n  ok   a\n2 tests: 1 passed, 1 failed, 0 skipped\n';
  expect(countsOfVm(output)).toEqual({ passed: 1, failed: 1, skipped: 0 });
});
