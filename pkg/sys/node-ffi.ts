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
 * Resolves libc from the running process, so it needs no file name and works on glibc and musl.
 *
 * @throws {AgentError} FfiUnusable
 */
export function openNodeSys(): Sys {
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
