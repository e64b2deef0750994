import { closeSync, openSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { LOCK_EX, LOCK_NB, LOCK_UN, POLLIN, SOCK_CLOEXEC, SOCK_RAW } from './constants.ts';
import { openListenSys } from './listen-sys.ts';
import { openSys } from './open-sys.ts';

const AF_NETLINK = 16;

const sys = await openSys();

/** An errno name as an error to match. */
function failing(code: string): unknown {
  return expect.objectContaining({ code });
}

it('sockets are opened, bound, asked for their address and closed', () => {
  const fd = sys.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
  const address = new Uint8Array(12);
  new Uint16Array(address.buffer)[0] = AF_NETLINK;
  sys.bind(fd, address);
  expect(sys.getsockname(fd, address)).toBe(12);
  const [, port] = new Uint32Array(address.buffer);
  expect(port).toBeGreaterThan(0);
  expect(sys.poll(fd, POLLIN, 1)).toBe(0);
  expect(() => sys.recv(fd, new Uint8Array(8), 0x40)).toThrow(failing('EAGAIN'));
  sys.close(fd);
  expect(() => sys.close(fd)).toThrow(failing('EBADF'));
});

it('part of a buffer is sent and received in its place', () => {
  const fd = sys.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
  // RTM_GETLINK of link 1 (loopback), after 100 bytes that are not to be sent.
  const whole = new Uint8Array(132);
  const view = new DataView(whole.buffer, 100);
  const little = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
  view.setUint32(0, 32, little);
  view.setUint16(4, 18, little);
  view.setUint16(6, 1, little);
  view.setInt32(20, 1, little);
  expect(sys.send(fd, whole.subarray(100), 0)).toBe(32);
  const answer = new Uint8Array(20_000);
  const length = sys.recv(fd, answer.subarray(1000), 0);
  expect(length).toBeGreaterThan(32);
  expect([...answer.subarray(990, 1000)]).toEqual(Array.from({ length: 10 }, () => 0));
  expect(new DataView(answer.buffer, 1000).getUint16(4, little)).toBe(16);
  sys.close(fd);
});

it('locks exclude each other until released', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'podwire-sys-'));
  const [one, two] = [0, 1].map(() => openSync(join(folder, 'lock'), 'w')) as [number, number];
  try {
    sys.flock(one, LOCK_EX);
    expect(() => sys.flock(two, LOCK_EX | LOCK_NB)).toThrow(failing('EAGAIN'));
    sys.flock(one, LOCK_UN);
    sys.flock(two, LOCK_EX | LOCK_NB);
  } finally {
    closeSync(one);
    closeSync(two);
    await rm(folder, { recursive: true });
  }
});

it('errno is that of the call, also under garbage collection', () => {
  const netns = openSync('/proc/self/ns/net', 'r');
  const fds = [
    { fd: -1, code: 'EBADF' },
    { fd: netns, code: 'EINVAL' },
  ];
  const wrong: unknown[] = [];
  let garbage: unknown[] = [];
  for (let i = 0; i < 10_000; i++) {
    for (const { fd, code } of fds) {
      try {
        // A network namespace is none of the kind CLONE_NEWNS asks for.
        sys.setns(fd, 0x20000);
        wrong.push('no error');
      } catch (error) {
        if ((error as { code: string }).code !== code) wrong.push(error);
      }
    }
    garbage.push(new Uint8Array(1000));
    if (garbage.length > 1000) garbage = [];
  }
  closeSync(netns);
  expect(wrong).toEqual([]);
});

it('libc is loaded once, however often it is asked for: its memory comes back late', async () => {
  expect(await openSys()).toBe(sys);
  expect(openListenSys()).toBe(openListenSys());
});
