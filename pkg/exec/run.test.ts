import { expect, it } from 'vitest';
import { runCommand } from './run.ts';

const timeoutMs = 10_000;

it('returns what a program prints, and gives it the input', async () => {
  const output = await runCommand('sh', ['-c', 'cat; echo warned >&2'], {
    input: 'text',
    timeoutMs,
  });
  expect(output).toEqual({ stdout: 'text', stderr: 'warned' });
});

it('gives empty input when there is none to give', async () => {
  expect(await runCommand('cat', [], { timeoutMs })).toEqual({ stdout: '', stderr: '' });
});

it('passes arguments as they are, through no shell', async () => {
  const nasty = '$(id); `id` "x" \'y\' *';
  expect((await runCommand('printf', ['%s', nasty], { timeoutMs })).stdout).toBe(nasty);
});

it('reports the exit code and what stderr said', async () => {
  await expect(
    runCommand('sh', ['-c', 'echo no such set >&2; exit 3'], { timeoutMs }),
  ).rejects.toMatchObject({
    code: 'CommandFailed',
    message: 'Cannot run sh -c echo no such set >&2; exit 3: exit code 3: no such set',
    details: { exitCode: 3, stderr: 'no such set' },
  });
});

it('reports the signal that ended a program', async () => {
  await expect(runCommand('sh', ['-c', 'kill -KILL $$'], { timeoutMs })).rejects.toMatchObject({
    code: 'CommandFailed',
    message: expect.stringContaining('ended by SIGKILL'),
  });
});

it('says when there is no such program', async () => {
  await expect(runCommand('podwire-no-such-program', [], { timeoutMs })).rejects.toMatchObject({
    code: 'CommandMissing',
    message: 'Cannot run podwire-no-such-program: there is no such program',
  });
});

it('ends a program that takes too long', async () => {
  const script = 'echo much output; exec sleep 100';
  const error: unknown = await runCommand('sh', ['-c', script], { timeoutMs: 300 }).catch(
    (e: unknown) => e,
  );
  expect(error).toMatchObject({
    code: 'CommandTimedOut',
    message: `Cannot run sh -c ${script}: not finished after 300 ms`,
  });
  // It would repeat the output in every log line.
  expect(error).not.toHaveProperty('cause');
});

it('ends a program when told to, with the reason given', async () => {
  const stop = new AbortController();
  const run = runCommand('sleep', ['100'], { timeoutMs, signal: stop.signal });
  const reason = new Error('shutting down');
  stop.abort(reason);
  await expect(run).rejects.toBe(reason);
  await expect(runCommand('true', [], { timeoutMs, signal: stop.signal })).rejects.toBe(reason);
});
