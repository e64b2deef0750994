import { execa } from 'execa';
import { expect, onTestFinished, test } from 'vitest';
import { systemClock, type Clock } from '#pkg/clock/clock.ts';
import { AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM } from '#pkg/sys/constants.ts';
import { openListenSys } from '#pkg/sys/listen-sys.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { unixAddress } from '#pkg/sys/unix-address.ts';
import { onlyOne } from './only-one.ts';

const sys = await openSys();
const never = new AbortController().signal;

function lock(program: string, signal = never, clock = systemClock) {
  const logged: unknown[] = [];
  const log = { warn: (...words: readonly unknown[]) => void logged.push(words) };
  return { held: onlyOne(program, { log, sys, clock }, signal), logged };
}

/** A socket that has the name and does not listen. */
function bound(program: string): number {
  const fd = sys.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sys.bind(fd, unixAddress(`\0${program}`));
  return fd;
}

function name(of: string): string {
  return `podwire-test-${process.pid}-${of}`;
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

test('who has the name without listening, which tells nobody who it is, stops nobody', async () => {
  const program = name('deaf');
  const fd = bound(program);
  onTestFinished(() => sys.close(fd));
  const sleep: Clock['sleep'] = (_, signal) => systemClock.sleep(1, signal);
  const { held, logged } = lock(program, never, { ...systemClock, sleep });
  using _ = await held;
  expect(logged).toEqual([[{}, expect.stringMatching(/without a lock.*does not listen/)]]);
});

test('one that hangs is waited for, too, however many have asked it who it is', async () => {
  const program = name('hangs');
  const fd = bound(program);
  // The first who asks fills the queue.
  openListenSys().listen(fd, 0);
  let looks = 0;
  const sleep: Clock['sleep'] = (ms, signal) => {
    looks += 1;
    return systemClock.sleep(Math.min(ms, 5), signal);
  };
  const { held, logged } = lock(program, never, { ...systemClock, sleep });
  let isHeld = false;
  void held.then(() => (isHeld = true));
  await expect.poll(() => looks > 20 || isHeld).toBe(true);
  expect(isHeld).toBe(false);
  sys.close(fd);
  using _ = await held;
  expect(logged).toHaveLength(1);
});

test('nobody passes for the one that hangs by a name with a line of /proc/net/unix in it', async () => {
  const program = name('forged');
  const [fd, forger] = [bound(program), bound(`x\n0: 2 0 00010000 1 1 7 @${program}`)];
  openListenSys().listen(fd, 0);
  onTestFinished(() => [fd, forger].forEach((each) => sys.close(each)));
  const { held, logged } = lock(program);
  using _ = await held;
  expect(logged.at(-1)).toEqual([{}, expect.stringMatching(/without a lock.*answers nobody/)]);
});

test('one that has answered nobody yet stops nobody', async () => {
  const program = name('mute');
  const fd = bound(program);
  openListenSys().listen(fd, 0);
  const first = sys.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sys.connect(first, unixAddress(`\0${program}`));
  onTestFinished(() => [fd, first].forEach((each) => sys.close(each)));
  const { held, logged } = lock(program);
  using _ = await held;
  expect(logged).toEqual([[{}, expect.stringMatching(/without a lock.*answers nobody/)]]);
});
