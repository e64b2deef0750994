import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { runCommand } from '#pkg/exec/run.ts';
import { createScratchNetns } from '#pkg/netns/scratch.ts';

const script = join(import.meta.dirname, 'testdata/core-check.ts');
const bun = join(
  dirname(createRequire(import.meta.url).resolve('bun/package.json')),
  'bin/bun.exe',
);
const timeoutMs = 50_000;

/** Runs a program on a fresh pair of namespaces. */
async function check(file: string, args: readonly string[]): Promise<unknown> {
  await using host = await createScratchNetns('pw-bun');
  await using pod = await createScratchNetns('pw-bun');
  const { stdout, stderr } = await runCommand(file, [...args, host.path, pod.path], { timeoutMs });
  expect(stderr).toBe('');
  return JSON.parse(stdout);
}

const expected = {
  host: { hairpin: true, up: true, mtuBytes: 1450, mac: '0a:58:00:00:00:01' },
  pod: { running: true, mac: '0a:58:0a:f4:01:05' },
  addresses: ['10.244.1.5/24', 'fd00:10::5/64'],
  routes: [1, 1],
  acceptRa: '0',
  refusal: 'Cannot create bridge cni0: file already exists (EEXIST)',
};

it('the core works under Node, without a warning when told so', async () => {
  const flag = '--disable-warning=ExperimentalWarning';
  expect(await check(process.execPath, [flag, script])).toEqual(expected);
});

it('the core works under Bun', async () => {
  expect(await check(bun, [script])).toEqual(expected);
});

it('the core works compiled by Bun', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'podwire-bun-'));
  try {
    const outfile = join(folder, 'core-check');
    await runCommand(bun, ['build', '--compile', script, '--outfile', outfile], { timeoutMs });
    expect(await check(outfile, [])).toEqual(expected);
  } finally {
    await rm(folder, { recursive: true });
  }
});
