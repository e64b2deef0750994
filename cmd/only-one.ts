/**
 * One daemon of a kind for each network namespace: two would change each other's work for ever. The
 * lock is a listening unix socket with an abstract name, which belongs to a network namespace as what
 * the daemons write does, and ends with its process, however that ends.
 */
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import type { Clock } from '#pkg/clock/clock.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { AF_UNIX, SO_PEERCRED, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET } from '#pkg/sys/constants.ts';
import { openListenSys, type ListenSys } from '#pkg/sys/listen-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';

export interface OnlyOneOptions {
  readonly log: Pick<Logger, 'warn'>;
  readonly sys: Sys;
  readonly clock: Clock;
}

/** Held until it is disposed. */
export interface OnlyOne extends Disposable {
  /** Another one ran meanwhile: what was read before may have changed. */
  readonly hasWaited: boolean;
}

/** So soon after the other one's end this one goes on. */
const lookEachMs = 200;
/** A daemon that has the name listens at once: one who does not for so long is none. */
const silentForMs = 5_000;

/**
 * Resolves when no other process of this program runs in this network namespace; none will until it
 * is disposed. One that is about to end, as when a DaemonSet is updated, is waited for.
 */
export async function onlyOne(
  program: string,
  { log, sys, clock }: OnlyOneOptions,
  signal: AbortSignal,
): Promise<OnlyOne> {
  let isTold = false;
  let silentMs = 0;
  let calls: ListenSys | undefined;
  for (;;) {
    signal.throwIfAborted();
    const server = await tryListen(program);
    if (server !== undefined) {
      return { hasWaited: isTold, [Symbol.dispose]: () => void server.close() };
    }
    const holder = holderOf(sys, (calls ??= openListenSys()), program);
    silentMs = holder === 'silent' ? silentMs + lookEachMs : 0;
    if (silentMs > silentForMs) {
      log.warn({}, `Goes on without a lock: somebody has its name, ${program}, and never listens`);
      return { hasWaited: isTold, [Symbol.dispose]: () => undefined };
    }
    if (holder !== 'silent') {
      // The name is anybody's to take. Nobody without rights shall stop a node's network by it.
      if (!mayHold(holder.uid)) {
        log.warn(
          { uid: holder.uid },
          `Goes on without a lock: a process of a user without rights has its name, ${program}`,
        );
        return { hasWaited: isTold, [Symbol.dispose]: () => undefined };
      }
      const which = holder.pid === 0 ? {} : { pid: holder.pid };
      if (!isTold) log.warn(which, `Waits until another ${program} on this node has ended`);
      isTold = true;
    }
    await clock.sleep(lookEachMs, signal);
  }
}

/** Undefined when somebody has the name. */
async function tryListen(program: string): Promise<Server | undefined> {
  // Who connects wants to know who we are, which the kernel tells.
  const server = createServer((connection) => connection.destroy());
  server.listen({ path: `\0${program}`, exclusive: true });
  try {
    await once(server, 'listening');
  } catch (error) {
    if (isErrno(error, 'EADDRINUSE')) return undefined;
    throw error;
  }
  server.on('error', () => undefined);
  return server.unref();
}

interface Holder {
  /** As this process's namespaces see it: 0 for a process of another PID namespace. */
  readonly pid: number;
  readonly uid: number;
}

/** Silent is who has just ended, or has not begun to listen. */
function holderOf(sys: Sys, calls: ListenSys, program: string): Holder | 'silent' {
  const SOCK_NONBLOCK = 0o4000;
  const fd = sys.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  try {
    // struct sockaddr_un: an abstract name starts with a zero byte, and none ends it (unix(7)).
    const name = Buffer.from(`\0${program}`);
    const address = new Uint8Array(2 + name.byteLength);
    new Uint16Array(address.buffer, 0, 1)[0] = AF_UNIX;
    address.set(name, 2);
    sys.connect(fd, address);
    // struct ucred { pid_t pid; uid_t uid; gid_t gid; }: of who called listen(2)
    const credentials = new Uint32Array(3);
    const value = new Uint8Array(credentials.buffer);
    calls.getsockopt({ fd, level: SOL_SOCKET, name: SO_PEERCRED, value });
    return { pid: credentials[0] ?? 0, uid: credentials[1] ?? nobody };
  } catch (error) {
    if (isErrno(error, 'ECONNREFUSED')) return 'silent';
    // It answers nobody: more than enough are waiting for it already.
    if (isErrno(error, 'EAGAIN')) return { pid: 0, uid: nobody };
    throw error;
  } finally {
    sys.close(fd);
  }
}

const nobody = 65_534;

function mayHold(uid: number): boolean {
  return uid === 0 || uid === process.getuid?.();
}
