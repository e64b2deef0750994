/** What a person is told whose command line or configuration is wrong. */
import { execa } from 'execa';
import { expect, test } from 'vitest';

const program = new URL('main.ts', import.meta.url).pathname;

test.each([
  [['--surprise'], "Cannot understand the command line: unknown option '--surprise'"],
  [['--config', '/nonexistent'], 'Cannot read configuration /nonexistent: ENOENT'],
  [[], 'Cannot tell which Node this is: give --node-name'],
])('%j ends with 2 and one line, without where in the program that was', async (argv, reason) => {
  const args = ['--disable-warning=ExperimentalWarning', program, ...argv];
  const { exitCode, stderr, stdout } = await execa(process.execPath, args, {
    reject: false,
    extendEnv: false,
    env: { PATH: '' },
  });
  expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' });
  expect(stderr.split('\n')).toHaveLength(1);
  const line = JSON.parse(stderr) as { readonly msg: string; readonly reason: string };
  expect(line.msg).toBe('Cannot start');
  expect(line.reason).toContain(reason);
  expect(stderr).not.toContain('stack');
});
