import { expect, it } from 'vitest';
import { errnoName, errnoText } from './errno.ts';
import { sysFromLibc, type Libc } from './libc.ts';

const EINTR = 4;
const EBADF = 9;
const EAGAIN = 11;
const EISCONN = 106;

/** A libc whose calls fail with the given errnos, one after another, and then succeed with 5. */
function libc(errnos: readonly number[]): { readonly libc: Libc; readonly calls: () => number } {
  const queue = [...errnos];
  let errno = EBADF;
  let calls = 0;
  const call = (): number => {
    calls += 1;
    const next = queue.shift();
    if (next === undefined) return 5;
    errno = next;
    return -1;
  };
  const long = (): bigint => BigInt(call());
  return {
    calls: () => calls,
    libc: {
      getpid: () => 1,
      socket: call,
      bind: call,
      connect: call,
      getsockname: call,
      setsockopt: call,
      send: long,
      recv: long,
      poll: call,
      setns: call,
      flock: call,
      close: (fd) => (fd === -1 ? -1 : call()),
      errno: () => errno,
    },
  };
}

it.each<[string, (sys: ReturnType<typeof sysFromLibc>) => unknown]>([
  ['recv', (sys) => sys.recv(3, new Uint8Array(8), 0)],
  ['send', (sys) => sys.send(3, new Uint8Array(8), 0)],
  ['poll', (sys) => sys.poll(3, 1, 0)],
  ['flock', (sys) => sys.flock(3, 2)],
])('%s() is made again when a signal interrupts it', (_, run) => {
  const fake = libc([EINTR, EINTR]);
  run(sysFromLibc(fake.libc));
  expect(fake.calls()).toBe(3);
});

it('connect() that a signal interrupts may be done when it is made again', () => {
  const address = new Uint8Array(16);
  const fake = libc([EINTR, EISCONN]);
  sysFromLibc(fake.libc).connect(3, address);
  expect(fake.calls()).toBe(2);
  const connected = sysFromLibc(libc([EISCONN]).libc);
  expect(() => connected.connect(3, address)).toThrow('EISCONN');
});

it('close() is not made again: the number may be another file’s by then', () => {
  const fake = libc([EINTR]);
  sysFromLibc(fake.libc).close(3);
  expect(fake.calls()).toBe(1);
});

it('failures carry the errno name', () => {
  const sys = sysFromLibc(libc([EAGAIN]).libc);
  expect(() => sys.flock(3, 6)).toThrow(
    expect.objectContaining({
      code: 'EAGAIN',
      message: 'Cannot lock a file: resource temporarily unavailable (EAGAIN)',
    }),
  );
});

it.each<[string, Partial<Libc>]>([
  ['return nothing', { getpid: (): never => undefined as never }],
  ['do nothing', { close: () => 0 }],
  ['lose errno', { errno: () => 0 }],
])('a foreign function interface whose calls %s is refused at once', (_, wrong) => {
  expect(() => sysFromLibc({ ...libc([]).libc, ...wrong })).toThrow(
    expect.objectContaining({ code: 'FfiUnusable' }),
  );
});

it('errno numbers have names and texts', () => {
  expect([1, 11, 17, 95, 105, 524, 4000].map(errnoName)).toEqual([
    'EPERM',
    'EAGAIN',
    'EEXIST',
    'EOPNOTSUPP',
    'ENOBUFS',
    'ENOTSUPP',
    'errno 4000',
  ]);
  expect([17, 524, 4000].map(errnoText)).toEqual([
    'file already exists',
    'operation is not supported',
    'errno 4000',
  ]);
});
