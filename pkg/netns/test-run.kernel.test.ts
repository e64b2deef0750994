import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { beginTestRun, removeRemains } from '#hack/test-run.ts';
import { createScratchNetns, createScratchNetnses, testRunVariable } from './scratch.ts';

let outer: string | undefined;
const runs: string[] = [];
beforeEach(() => {
  outer = process.env[testRunVariable];
});
afterEach(async () => {
  for (const run of runs.splice(0)) await removeRemains(run);
  if (outer === undefined) delete process.env[testRunVariable];
  else process.env[testRunVariable] = outer;
});

function begin(): string {
  const run = beginTestRun();
  runs.push(run);
  return run;
}

/** A shell that hears no signal but the one that nobody can miss. */
async function deaf(command = 'sh', ...args: string[]): Promise<ChildProcess> {
  const script = 'trap "" TERM INT HUP; echo; while :; do sleep 1000; done';
  const child = spawn(command, [...args, '-c', script], { stdio: ['ignore', 'pipe', 'ignore'] });
  await once(child.stdout, 'data');
  return child;
}

test('what is left of a run goes, processes and namespaces, and nothing of another', async () => {
  const run = begin();
  const [one, [two]] = [await createScratchNetns('pw-run'), await createScratchNetnses(['pw-run'])];
  const children = [await deaf(), await deaf('ip', 'netns', 'exec', one.name, 'sh')];
  const ended = children.map((child) => once(child, 'exit'));
  const other = begin();
  const three = await createScratchNetns('pw-run');
  const stranger = await deaf();

  const remains = await removeRemains(run);
  expect((await Promise.all(ended)).map(([, signal]) => signal as unknown)).toEqual([
    'SIGKILL',
    'SIGKILL',
  ]);
  expect([one, two].map(({ path }) => existsSync(path))).toEqual([false, false]);
  for (const { pid } of children) {
    expect(remains).toContainEqual(expect.stringContaining(`process ${pid} sh -c trap`));
  }
  for (const { name } of [one, two]) expect(remains).toContain(`network namespace ${name}`);

  expect(existsSync(three.path)).toBe(true);
  expect([stranger.exitCode, stranger.signalCode]).toEqual([null, null]);
  expect(await removeRemains(run)).toEqual([]);
  const end = once(stranger, 'exit');
  expect(await removeRemains(other)).toContainEqual(
    expect.stringContaining(`process ${stranger.pid} sh -c trap`),
  );
  await end;
  expect(await removeRemains(other)).toEqual([]);
});

test('a process that only speaks of the run goes on', async () => {
  const run = begin();
  delete process.env[testRunVariable];
  process.env['NOTE'] = `of ${testRunVariable}=${run} I know`;
  try {
    const stranger = await deaf('sh');
    expect(await removeRemains(run)).toEqual([]);
    expect([stranger.exitCode, stranger.signalCode]).toEqual([null, null]);
    const end = once(stranger, 'exit');
    stranger.kill('SIGKILL');
    await end;
  } finally {
    delete process.env['NOTE'];
  }
});
