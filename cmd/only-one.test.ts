import { setImmediate } from 'node:timers/promises';
import { execa } from 'execa';
import { expect, onTestFinished, test } from 'vitest';
import { systemClock, type Clock } from '#pkg/clock/clock.ts';
import { AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM } from '#pkg/sys/constants.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { onlyOne } from './only-one.ts';

const sys = await openSys();
const never = new AbortController().signal;

function lock(program: string, signal = never, clock: Clock = systemClock) {
  const logged: unknown[] = [];
  const log = { warn: (...words: readonly unknown[]) => void logged.push(words) };
  return { held: onlyOne(program, { log, sys, clock }, signal), logged };
}

function name(of: string): string {
  return `podwire-test-${process.pid}-${of}`;
}

/** A clock whose sleepers get a turn at once. */
function hurried() {
  let sleptMs = 0;
  const sleep = async (ms: number): Promise<void> => {
    sleptMs += ms;
    await setImmediate();
  };
  return { clock: { ...systemClock, sleep }, slept: () => sleptMs };
}

/** Another process that listens at the name, as this or as another user. */
async function holder(program: string, user: { readonly uid?: number } = {}) {
  const script = `require('node:net').createServer().listen('\\0' + process.argv[1], () => console.log('held'))`;
  const child = execa(process.execPath, ['-e', script, program], { ...user, reject: false });
  onTestFinished(() => void child.kill('SIGKILL'));
  await new Promise((resolve) => child.stdout.once('data', resolve));
  // Not itself: it is a promise of its end.
  return { pid: child.pid, kill: () => child.kill('SIGKILL') };
}

test('the second waits, saying for whom, and goes on when the first is done', async () => {
  const program = name('two');
  const first = await lock(program).held;
  const second = lock(program);
  await expect.poll(() => second.logged.length).toBe(1);
  expect(await Promise.race([second.held, systemClock.sleep(500).then(() => 'waits')])).toBe(
    'waits',
  );
  first[Symbol.dispose]();
  using held = await second.held;
  expect([first.hasWaited, held.hasWaited]).toEqual([false, true]);
  const { pid } = process;
  expect(second.logged).toEqual([
    [{ pid }, `Waits until another ${program} on this node has ended`],
  ]);
});

test('the lock of a process that was killed is free', async () => {
  const program = name('killed');
  const other = await holder(program);
  const waiting = lock(program);
  await expect
    .poll(() => waiting.logged[0])
    .toMatchObject([{ pid: other.pid }, expect.any(String)]);
  other.kill();
  using _ = await waiting.held;
});

test('programs of different names do not wait for each other', async () => {
  using _ = await lock(name('one')).held;
  using other = await lock(name('other')).held;
  expect(other).toBeDefined();
});

test('who is told to stop while waiting does', async () => {
  const program = name('stop');
  using _ = await lock(program).held;
  const stop = new AbortController();
  const { held, logged } = lock(program, stop.signal);
  await expect.poll(() => logged.length).toBeGreaterThan(0);
  stop.abort(new Error('told to'));
  await expect(held).rejects.toThrow('told to');
});

test('one who listens is waited for as long as it takes', async () => {
  const program = name('long');
  const first = await lock(program).held;
  const { clock, slept } = hurried();
  const { held, logged } = lock(program, never, clock);
  await expect.poll(slept).toBeGreaterThan(20_000);
  first[Symbol.dispose]();
  using _ = await held;
  expect(logged).toHaveLength(1);
});

test('a name that is taken by one who never listens stops nobody', async () => {
  const program = name('deaf');
  const fd = sys.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  onTestFinished(() => sys.close(fd));
  const address = Buffer.from(`\0\0\0${program}`);
  address[0] = AF_UNIX;
  sys.bind(fd, address);
  const { clock, slept } = hurried();
  const { held, logged } = lock(program, never, clock);
  using _ = await held;
  expect(slept()).toBe(5_000);
  expect(logged).toEqual([[{}, expect.stringContaining('without a lock')]]);
});

test.skipIf(process.getuid?.() !== 0)(
  'a process without rights stops nobody by taking the name',
  async () => {
    const program = name('squatter');
    await holder(program, { uid: 65_533 });
    const { held, logged } = lock(program);
    using _ = await held;
    expect(logged).toEqual([[{ uid: 65_533 }, expect.stringContaining('without a lock')]]);
  },
);
