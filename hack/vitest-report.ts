/** vitest's JSON report with what vitest itself prints only: errors that are of no test. */
import { JsonReporter, type TestModule } from 'vitest/node';

export default class ReportWithErrors extends JsonReporter {
  #errors: readonly StrayError[] = [];

  override async onTestRunEnd(
    modules: readonly TestModule[],
    errors: readonly StrayError[] = [],
  ): Promise<void> {
    this.#errors = errors.map(
      ({ message, stack = '', type = 'Error', VITEST_TEST_NAME, VITEST_TEST_PATH }) => ({
        message,
        stack,
        type,
        ...(VITEST_TEST_NAME === undefined ? {} : { VITEST_TEST_NAME }),
        ...(VITEST_TEST_PATH === undefined ? {} : { VITEST_TEST_PATH }),
      }),
    );
    await super.onTestRunEnd(modules);
  }

  override async writeReport(report: string): Promise<void> {
    const results = JSON.parse(report) as object;
    await super.writeReport(JSON.stringify({ ...results, strayErrors: this.#errors }));
  }
}

/** A rejection or an exception that nobody caught; vitest fails for it, though all tests passed. */
export interface StrayError {
  readonly message: string;
  readonly stack?: string;
  /** "Unhandled Rejection", "Uncaught Exception". */
  readonly type?: string;
  /** The test that ran when it came, which need not be the one it came from. */
  readonly VITEST_TEST_NAME?: string;
  readonly VITEST_TEST_PATH?: string;
}
