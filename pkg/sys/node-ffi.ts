/**
 * {@link Sys} on node:ffi (Node 26.3 and later, without a flag).
 *
 * node:ffi prints an ExperimentalWarning when it is loaded. Programs keep it off the user's stderr
 * with `--disable-warning=ExperimentalWarning` on the command line that starts them.
 */
import type * as NodeFfi from 'node:ffi';
import { createRequire } from 'node:module';
import { sysFromLibc } from './libc.ts';
import type { Sys } from './sys.ts';

/**
 * A thread's own, as a module is. What node:ffi loads takes some 30 KiB outside of the heap, which come
 * back with a garbage collection that does not know of them: by many loads a process grows to 400 MB.
 */
let opened: Sys | undefined;

/**
 * Resolves libc from the running process, so it needs no file name and works on glibc and musl. The
 * same one each time.
 *
 * @throws {AgentError} FfiUnusable
 */
export function openNodeSys(): Sys {
  return (opened ??= loadLibc());
}

function loadLibc(): Sys {
  // Not an import statement: a bundle for Bun would look for node:ffi when it starts, and end there.
  const load = createRequire(import.meta.url);
  const { dlopen, getInt32 } = load('node:ffi') as typeof NodeFfi;
  // Keys and type names exactly as Node 26.3 spells them: others are accepted and do nothing.
  const { functions } = dlopen(null, {
    getpid: { arguments: [], return: 'int32' },
    socket: { arguments: ['int32', 'int32', 'int32'], return: 'int32' },
    bind: { arguments: ['int32', 'buffer', 'uint32'], return: 'int32' },
    connect: { arguments: ['int32', 'buffer', 'uint32'], return: 'int32' },
    getsockname: { arguments: ['int32', 'buffer', 'buffer'], return: 'int32' },
    setsockopt: { arguments: ['int32', 'int32', 'int32', 'buffer', 'uint32'], return: 'int32' },
    send: { arguments: ['int32', 'buffer', 'uint64', 'int32'], return: 'int64' },
    recv: { arguments: ['int32', 'buffer', 'uint64', 'int32'], return: 'int64' },
    poll: { arguments: ['buffer', 'uint64', 'int32'], return: 'int32' },
    setns: { arguments: ['int32', 'int32'], return: 'int32' },
    flock: { arguments: ['int32', 'int32'], return: 'int32' },
    close: { arguments: ['int32'], return: 'int32' },
    __errno_location: { arguments: [], return: 'pointer' },
  });
  // One location a thread, and a Sys never leaves the thread that opened it. Asked for once:
  // the fewer calls between a failure and its errno, the fewer can overwrite it.
  const errnoAt = functions.__errno_location();
  return sysFromLibc({ ...functions, errno: () => getInt32(errnoAt) });
}
