/**
 * Network namespaces: opening, telling apart, and running code inside one.
 *
 * A namespace belongs to a thread. What runs inside must be synchronous: after an `await` unrelated
 * code would run there. Node's thread pool threads inherit the namespace of the moment they are
 * started and keep it for life, and they start with the first asynchronous fs, dns or crypto call.
 * A daemon therefore makes one such call ({@link warmUpThreadPool}) before it enters any namespace.
 */
import { closeSync, constants, fstatSync, openSync, statfsSync, statSync } from 'node:fs';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { CLONE_NEWNET } from '#pkg/sys/constants.ts';
import type { Sys } from '#pkg/sys/sys.ts';

/** An open network namespace; it lives at least until this is disposed. */
export interface Netns extends Disposable {
  readonly fd: number;
  /** As it was opened. */
  readonly path: string;
  /** Equal for two handles exactly when they are of one namespace. */
  readonly identity: string;
}

/** include/uapi/linux/magic.h */
const NSFS_MAGIC = 0x6e736673;
const PROC_SUPER_MAGIC = 0x9fa0;

/** Not /proc/self: that is the main thread, whichever thread asks. */
const ownPath = '/proc/thread-self/ns/net';

/**
 * Opens a namespace by path ("/run/netns/blue", "/proc/1234/ns/net").
 *
 * @throws {AgentError} NetnsMissing when there is nothing at the path, NetnsInvalid when what is
 *   there is no namespace: after a reboot, the empty file one was mounted on
 */
export function openNetns(path: string): Netns {
  const fd = openNamespaceFile(path);
  return {
    fd,
    path,
    identity: netnsIdentity(fd),
    [Symbol.dispose]: () => closeSync(fd),
  };
}

/** Opens the calling thread's namespace. */
export function openOwnNetns(): Netns {
  return openNetns(ownPath);
}

/**
 * Runs `fn` inside a namespace and returns to the thread's own. Sockets that `fn` opens stay in the
 * namespace; files under /proc/sys/net are the namespace's; /sys/class/net is not.
 *
 * @param target a path, or an open descriptor of a network namespace
 * @param die told when the thread cannot return; must end the process, as all that runs later would
 *   act on the wrong namespace
 * @throws {AgentError} as {@link openNetns}; EPERM without CAP_SYS_ADMIN; what `fn` throws
 */
export function withNetns<T>(
  sys: Sys,
  target: string | number,
  fn: () => T extends PromiseLike<unknown> ? never : T,
  die: (error: AgentError) => never,
): T {
  const home = openSync(ownPath, constants.O_RDONLY);
  try {
    using opened = typeof target === 'string' ? openNetns(target) : undefined;
    enter(sys, opened?.fd ?? (target as number), target);
    try {
      return fn();
    } finally {
      goHome(sys, home, die);
    }
  } finally {
    closeSync(home);
  }
}

function enter(sys: Sys, fd: number, target: string | number): void {
  try {
    sys.setns(fd, CLONE_NEWNET);
  } catch (cause) {
    // A namespace of another kind (mnt, pid).
    if (isErrno(cause, 'EINVAL')) throw invalid(target, cause);
    throw cause;
  }
}

function goHome(sys: Sys, home: number, die: (error: AgentError) => never): void {
  try {
    sys.setns(home, CLONE_NEWNET);
  } catch (cause) {
    die(
      new AgentError(
        'NetnsLost',
        'Cannot return to the network namespace of this process: it must end here',
        { cause },
      ),
    );
  }
}

/** A namespace's identity, from a path or an open descriptor: device and inode of its nsfs file. */
export function netnsIdentity(target: string | number): string {
  const { dev, ino } = typeof target === 'number' ? fstatSync(target) : statSync(target);
  return `${dev}:${ino}`;
}

/** Whether the path is the calling thread's own namespace; false also when there is nothing there. */
export function isOwnNetns(path: string): boolean {
  try {
    return netnsIdentity(path) === netnsIdentity(ownPath);
  } catch {
    // Opening it will say what is wrong.
    return false;
  }
}

/**
 * Makes Node start its pool threads now, in the namespace the process was started in. One call
 * starts all of them (libuv, src/threadpool.c, init_once).
 */
export async function warmUpThreadPool(): Promise<void> {
  const { stat } = await import('node:fs/promises');
  await stat('/');
}

function openNamespaceFile(path: string): number {
  try {
    const { type } = statfsSync(path);
    if (type !== NSFS_MAGIC && type !== PROC_SUPER_MAGIC) throw invalid(path);
    return openSync(path, constants.O_RDONLY);
  } catch (error) {
    if (error instanceof AgentError) throw error;
    // ENOTDIR: a file where the path needs a directory; ESRCH: /proc of a process that has ended.
    if (['ENOENT', 'ENOTDIR', 'ESRCH'].some((code) => isErrno(error, code))) {
      throw new AgentError('NetnsMissing', `Cannot open network namespace ${path}: no such file`, {
        cause: error,
      });
    }
    throw new AgentError('NetnsInvalid', `Cannot open network namespace ${path}`, { cause: error });
  }
}

function invalid(target: string | number, cause?: unknown): AgentError {
  return new AgentError(
    'NetnsInvalid',
    `Cannot open network namespace ${target}: the file is not a network namespace`,
    { cause },
  );
}
