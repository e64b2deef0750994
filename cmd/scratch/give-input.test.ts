import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, it } from 'vitest';
import { giveInput } from './give-input.ts';

/** More than a pipe takes at once: the program has ended before all is written. */
const text = 'x'.repeat(3_000_000);

it('gives a program all of it', async () => {
  const child = spawn('wc', ['-c'], { stdio: ['pipe', 'pipe', 'inherit'] });
  giveInput(child.stdin, text);
  const [counted] = (await once(child.stdout, 'data')) as [Buffer];
  expect(counted.toString().trim()).toBe(`${text.length}`);
});

it('is content with one that reads nothing: an error would be of no test, and fail the run', async () => {
  const child = spawn('true', { stdio: ['pipe', 'ignore', 'inherit'] });
  giveInput(child.stdin, text);
  expect(await once(child, 'close')).toEqual([0, null]);
});
