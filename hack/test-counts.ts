/** How many tests passed, failed and were skipped, as their runners tell. */

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

/** As vitest ends, of all together. */
export function closingLine(here: readonly Counts[], there: Counts | undefined): string {
  const all = there === undefined ? here : [...here, there];
  const sum = (of: keyof Counts): number => all.reduce((total, counts) => total + counts[of], 0);
  const parts = (['failed', 'passed', 'skipped'] as const)
    .filter((of) => of === 'passed' || sum(of) > 0)
    .map((of) => `${sum(of)} ${of}`);
  const total = sum('failed') + sum('passed') + sum('skipped');
  const inVm = there === undefined ? 'none' : `${there.failed + there.passed + there.skipped}`;
  return `      Tests  ${parts.join(' | ')} (${total}), ${inVm} of them in the virtual machine`;
}
