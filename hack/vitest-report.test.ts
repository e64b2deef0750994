import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { countsOfVitest, failuresOfVitest } from './test-results.ts';

const root = join(import.meta.dirname, '..');

/** Runs vitest on one file with this content; its exit code, and the report. */
async function reportOf(content: string): Promise<{ code: number; report: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'podwire-report-'));
  try {
    writeFileSync(join(directory, 'stray.test.ts'), content);
    const report = join(directory, 'report.json');
    const args = [
      join(root, 'node_modules/vitest/vitest.mjs'),
      'run',
      `--root=${directory}`,
      '--globals',
      `--reporter=${join(root, 'hack/vitest-report.ts')}`,
      `--outputFile.json=${report}`,
    ];
    const code = await promisify(execFile)(process.execPath, args).then(
      () => 0,
      (error: { code: number }) => error.code,
    );
    return { code, report: readFileSync(report, 'utf8') };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

it('tells of an error that nobody caught, though all tests passed', async () => {
  const { code, report } = await reportOf(`
    it('passes', async () => {
      setTimeout(() => { throw new Error('nobody waits'); });
      await new Promise((resolve) => setTimeout(resolve, 20));
    });
  `);
  expect(code).toBe(1);
  expect(countsOfVitest(report)).toEqual({ passed: 1, failed: 0, skipped: 0 });
  expect(failuresOfVitest(report)).toEqual([
    expect.stringMatching(
      /^FAIL Uncaught Exception in .*stray\.test\.ts, while passes ran: .*nobody waits\n.*stray\.test\.ts:3/s,
    ),
  ]);
});

it('has no such thing where there was none', async () => {
  const { code, report } = await reportOf(`it('passes', () => undefined);`);
  expect({ code, failures: failuresOfVitest(report) }).toEqual({ code: 0, failures: [] });
});
