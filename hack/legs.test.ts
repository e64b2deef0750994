import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { runLegs, type Ended, type Leg } from './legs.ts';

let dir: string;
const open = new DisposableStack();
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'podwire-legs-'))));
afterEach(() => rmSync(dir, { recursive: true }));

const sh = (...scripts: string[]): Leg => ({
  commands: scripts.map((script) => ['sh', '-c', script] as const),
  niceness: 0,
});
const run = async (legs: readonly Leg[], signal = new AbortController().signal): Promise<Ended[]> =>
  (await runLegs(legs, signal)).flat().map((ended) => open.use(ended));
const note = (name: string): string => join(dir, name);
const isThere = (name: string): boolean => existsSync(note(name));

it('runs all at one time and says how each ended', async () => {
  const meet = (own: string, other: string): string =>
    `echo > ${note(own)}; until [ -e ${note(other)} ]; do sleep 0.01; done`;
  const [first, second] = await run([
    sh(meet('a', 'b')),
    sh(`${meet('b', 'a')}; echo words; echo complaint >&2; exit 7`),
  ]);
  expect([first?.exitCode, second?.exitCode]).toEqual([0, 7]);
  expect(second?.output.read().toString()).toBe('words\ncomplaint\n');
});

it('keeps any amount of output, and has its end at hand', async () => {
  const [, second] = await run([sh(''), sh('head -c 150000000 /dev/zero; echo end')]);
  expect(second?.exitCode).toBe(0);
  expect(second?.output.read(4).toString()).toBe('end\n');
  let length = 0;
  for (const chunk of second?.output.chunks() ?? []) length += chunk.length;
  expect(length).toBe(150_000_004);
});

it('runs the commands of a leg one after the other, also when one has failed', async () => {
  const ended = await run([
    sh(''),
    sh(`echo > ${note('a')}; exit 3`, `ls ${note('a')}; mv ${note('a')} ${note('b')}`, 'exit 4'),
  ]);
  expect(ended.map(({ exitCode }) => exitCode)).toEqual([0, 3, 0, 4]);
  expect(ended[2]?.output.read().toString()).toBe(`${note('a')}\n`);
  expect([isThere('a'), isThere('b')]).toEqual([false, true]);
});

it('gives each its niceness', async () => {
  const [, second] = await run([sh(''), { ...sh('nice'), niceness: 7 }]);
  expect(second?.output.read().toString()).toBe('7\n');
});

it('has all end in order when the signal aborts', async () => {
  const wait = (name: string): string =>
    `trap 'echo > ${note(`${name}-over`)}; exit 9' TERM; echo > ${note(name)}; while :; do sleep 0.01; done`;
  const stop = new AbortController();
  const over = run([sh(wait('a')), sh(wait('b'), `echo > ${note('c')}`)], stop.signal);
  await expect.poll(() => isThere('a') && isThere('b')).toBe(true);
  stop.abort();
  expect((await over).map(({ exitCode }) => exitCode)).toEqual([9, 9]);
  expect(['a-over', 'b-over', 'c'].map(isThere)).toEqual([true, true, false]);
});

it('has them end that begin after the signal aborted', async () => {
  const [leg] = await run([sh('exec sleep 1000')], AbortSignal.abort());
  expect(leg?.exitCode).toBeUndefined();
});

it('has them end when it is killed itself', async () => {
  const wait = `trap 'echo > ${note('over')}; exit 9' TERM; echo $$ > ${note('pid')}; while :; do sleep 0.01; done`;
  const program = `
    import { runLegs } from ${JSON.stringify(join(import.meta.dirname, 'legs.ts'))};
    const leg = (script) => ({ commands: [['sh', '-c', script]], niceness: 0 });
    await runLegs([leg('echo ready'), leg(${JSON.stringify(wait)})], new AbortController().signal);`;
  const runner = spawn(process.execPath, ['--input-type=module', '-e', program], {
    cwd: import.meta.dirname,
  });
  await once(runner.stdout, 'data');
  await expect.poll(() => isThere('pid') && readFileSync(note('pid'), 'utf8')).toMatch(/\d/);
  runner.kill('SIGKILL');
  await expect.poll(() => isThere('over')).toBe(true);
});
