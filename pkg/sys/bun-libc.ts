/** libc as bun:ffi binds it, for the executable: bound once for all that calls it. */
import { dlopen, read } from 'bun:ffi';

/** Paths are zero-terminated bytes; -1 is failure, and {@link errno} right after it says why. */
const definitions = {
  getpid: { args: [], returns: 'int32_t' },
  socket: { args: ['int32_t', 'int32_t', 'int32_t'], returns: 'int32_t' },
  bind: { args: ['int32_t', 'pointer', 'uint32_t'], returns: 'int32_t' },
  connect: { args: ['int32_t', 'pointer', 'uint32_t'], returns: 'int32_t' },
  getsockname: { args: ['int32_t', 'pointer', 'pointer'], returns: 'int32_t' },
  setsockopt: {
    args: ['int32_t', 'int32_t', 'int32_t', 'pointer', 'uint32_t'],
    returns: 'int32_t',
  },
  send: { args: ['int32_t', 'pointer', 'uint64_t', 'int32_t'], returns: 'int64_t' },
  recv: { args: ['int32_t', 'pointer', 'uint64_t', 'int32_t'], returns: 'int64_t' },
  poll: { args: ['pointer', 'uint64_t', 'int32_t'], returns: 'int32_t' },
  setns: { args: ['int32_t', 'int32_t'], returns: 'int32_t' },
  flock: { args: ['int32_t', 'int32_t'], returns: 'int32_t' },
  close: { args: ['int32_t'], returns: 'int32_t' },
  open: { args: ['pointer', 'int32_t', 'uint32_t'], returns: 'int32_t' },
  read: { args: ['int32_t', 'pointer', 'uint64_t'], returns: 'int64_t' },
  write: { args: ['int32_t', 'pointer', 'uint64_t'], returns: 'int64_t' },
  pwrite: { args: ['int32_t', 'pointer', 'uint64_t', 'int64_t'], returns: 'int64_t' },
  ftruncate: { args: ['int32_t', 'int64_t'], returns: 'int32_t' },
  statx: { args: ['int32_t', 'pointer', 'int32_t', 'uint32_t', 'pointer'], returns: 'int32_t' },
  statfs: { args: ['pointer', 'pointer'], returns: 'int32_t' },
  access: { args: ['pointer', 'int32_t'], returns: 'int32_t' },
  mkdir: { args: ['pointer', 'uint32_t'], returns: 'int32_t' },
  unlink: { args: ['pointer'], returns: 'int32_t' },
  rename: { args: ['pointer', 'pointer'], returns: 'int32_t' },
  symlink: { args: ['pointer', 'pointer'], returns: 'int32_t' },
  readlink: { args: ['pointer', 'pointer', 'uint64_t'], returns: 'int64_t' },
  __errno_location: { args: [], returns: 'pointer' },
} as const;

type Function = (...args: readonly (number | bigint | Uint8Array)[]) => number | bigint;

/** glibc, which Bun's Linux executables need anyway; 2.28 or later has all of these. */
export const libc = dlopen('libc.so.6', definitions).symbols as unknown as Readonly<
  Record<keyof typeof definitions, Function>
>;

// One location a thread, and the executable has no other thread of ours.
const errnoAt = Number(libc.__errno_location());

/** Why the last call failed; valid until the next one. */
export function errno(): number {
  return read.i32(errnoAt, 0);
}
