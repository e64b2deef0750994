/** {@link Sys} on bun:ffi: the backend of the Bun-compiled CNI executable. */
import { dlopen, read } from 'bun:ffi';
import { sysFromLibc, type Libc } from './libc.ts';
import type { Sys } from './sys.ts';

/**
 * Binds glibc, which Bun's Linux executables need anyway.
 *
 * @throws {AgentError} FfiUnusable
 */
export function openBunSys(): Sys {
  const { symbols } = dlopen('libc.so.6', {
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
    __errno_location: { args: [], returns: 'pointer' },
  });
  const functions = symbols as unknown as Omit<Libc, 'errno'> & { __errno_location(): number };
  // One location a thread, and a Sys never leaves the thread that opened it.
  const errnoAt = functions.__errno_location();
  return sysFromLibc({ ...functions, errno: () => read.i32(errnoAt, 0) });
}
