/**
 * The libc calls that a server of blocking threads needs beyond {@link Sys}. Node only, and apart
 * from Sys: every function costs the CNI executable a little at each start.
 */
import type * as NodeFfi from 'node:ffi';
import { createRequire } from 'node:module';
import { SOCK_CLOEXEC } from './constants.ts';
import { callerOf } from './libc.ts';

/** Errors as those of Sys. */
export interface ListenSys {
  /** listen(2). */
  listen(fd: number, backlog: number): void;
  /** accept4(2) with SOCK_CLOEXEC: waits; EINVAL once somebody has shut the socket down. */
  accept(fd: number): number;
  /** getsockopt(2) into `value`; returns how many bytes the kernel's value has. */
  getsockopt(option: {
    readonly fd: number;
    readonly level: number;
    readonly name: number;
    readonly value: Uint8Array;
  }): number;
  /** shutdown(2): who waits in accept(), in whatever thread, gets EINVAL. */
  shutdown(fd: number, how: number): void;
  /** unshare(2), of the calling thread. */
  unshare(flags: number): void;
  /** _exit(2): ends the process and all its threads, whatever they wait for. */
  exitNow(code: number): void;
}

/**
 * A thread's own, as a module is. What node:ffi loads takes some 30 KiB outside of the heap, which come
 * back with a garbage collection that does not know of them: by many loads a process grows to 400 MB.
 */
let opened: ListenSys | undefined;

/** Loads libc through node:ffi, once. */
export function openListenSys(): ListenSys {
  return (opened ??= loadLibc());
}

function loadLibc(): ListenSys {
  const load = createRequire(import.meta.url);
  const { dlopen, getInt32 } = load('node:ffi') as typeof NodeFfi;
  const { functions: libc } = dlopen(null, {
    listen: { arguments: ['int32', 'int32'], return: 'int32' },
    accept4: { arguments: ['int32', 'uint64', 'uint64', 'int32'], return: 'int32' },
    getsockopt: {
      arguments: ['int32', 'int32', 'int32', 'buffer', 'buffer'],
      return: 'int32',
    },
    shutdown: { arguments: ['int32', 'int32'], return: 'int32' },
    unshare: { arguments: ['int32'], return: 'int32' },
    _exit: { arguments: ['int32'], return: 'void' },
    __errno_location: { arguments: [], return: 'pointer' },
  });
  const errnoAt = libc.__errno_location();
  const call = callerOf(() => getInt32(errnoAt));
  return {
    listen: (fd, backlog) => void call('listen on a socket', () => libc.listen(fd, backlog)),
    accept: (fd) => call('accept a connection', () => libc.accept4(fd, 0n, 0n, SOCK_CLOEXEC)),
    getsockopt({ fd, level, name, value }) {
      const length = new Uint32Array([value.byteLength]);
      const bytes = new Uint8Array(length.buffer);
      call(`read socket option ${level}/${name}`, () =>
        libc.getsockopt(fd, level, name, value, bytes),
      );
      return length[0] ?? 0;
    },
    shutdown: (fd, how) => void call('shut down a socket', () => libc.shutdown(fd, how)),
    exitNow: (code) => libc._exit(code),
    unshare: (flags) => void call('unshare', () => libc.unshare(flags)),
  };
}
