import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { runCommand } from '#pkg/exec/run.ts';

const script = join(import.meta.dirname, 'testdata/fs-check.ts');
const bun = join(
  dirname(createRequire(import.meta.url).resolve('bun/package.json')),
  'bin/bun.exe',
);

it('returns and throws what node:fs does', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'podwire-fs-'));
  try {
    const { stdout, stderr } = await runCommand(bun, [script, dir], { timeoutMs: 20_000 });
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toEqual({ compared: 55, differences: [] });
  } finally {
    rmSync(dir, { recursive: true });
  }
});
