/**
 * One daemon of a kind for each network namespace: two would change each other's work for ever. The
 * lock is a listening unix socket with an abstract name, which belongs to a network namespace as what
 * the daemons write does, and ends with its process, however that ends.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import type { Clock } from '#pkg/clock/clock.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { AF_UNIX, SO_PEERCRED, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET } from '#pkg/sys/constants.ts';
import { openListenSys } from '#pkg/sys/listen-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { unixAddress } from '#pkg/sys/unix-address.ts';

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

/** One that is about to listen, or has just ended, does not listen for a moment: not for five seconds. */
const mostRefusals = 25;

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
  const withoutLock = (fields: object, reason: string): OnlyOne => {
    log.warn(fields, `Goes on without a lock: ${reason}`);
    return { hasWaited: isTold, [Symbol.dispose]: () => undefined };
  };
  let refusals = 0;
  /** The socket of who was seen to hold the lock rightly. */
  let rightful: string | undefined;
  for (;;) {
    signal.throwIfAborted();
    const server = await tryListen(program);
    if (server !== undefined) {
      return { hasWaited: isTold, [Symbol.dispose]: () => void server.close() };
    }
    // Before it is asked: another one after it is not taken for it.
    const inode = listenerOf(program);
    const holder = holderOf(sys, program);
    refusals = holder === 'refuses' ? refusals + 1 : 0;
    // The name is anybody's to take. Nobody without rights shall stop a node's network by it.
    if (refusals === mostRefusals)
      return withoutLock({}, `what has its name, ${program}, does not listen`);
    if (holder === 'silent') {
      // More than enough are waiting for it: those who asked before, where it hangs.
      if (inode === undefined || inode !== rightful) {
        return withoutLock({}, `what has its name, ${program}, answers nobody`);
      }
    } else if (holder !== 'refuses') {
      if (!mayHold(holder.uid)) {
        const { uid } = holder;
        return withoutLock({ uid }, `a process of a user without rights has its name, ${program}`);
      }
      rightful = inode;
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

/** `refuses`: it has gone, or does not listen. `silent`: as many as may are waiting for its answer. */
function holderOf(sys: Sys, program: string): Holder | 'refuses' | 'silent' {
  const SOCK_NONBLOCK = 0o4000;
  const fd = sys.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  try {
    sys.connect(fd, unixAddress(`\0${program}`));
    // struct ucred { pid_t pid; uid_t uid; gid_t gid; }: of who called listen(2)
    const credentials = new Uint32Array(3);
    const value = new Uint8Array(credentials.buffer);
    openListenSys().getsockopt({ fd, level: SOL_SOCKET, name: SO_PEERCRED, value });
    return { pid: credentials[0] ?? 0, uid: credentials[1] ?? nobody };
  } catch (error) {
    if (isErrno(error, 'ECONNREFUSED')) return 'refuses';
    if (isErrno(error, 'EAGAIN')) return 'silent';
    throw error;
  } finally {
    sys.close(fd);
  }
}

const nobody = 65_534;

/**
 * The inode of the socket that listens at the name (proc(5), /proc/net/unix); undefined for none, or when
 * it cannot be told: others may have a name with a line of their making in it.
 */
function listenerOf(program: string): string | undefined {
  const __SO_ACCEPTCON = '00010000';
  const [inode, ...others] = readFileSync('/proc/self/net/unix', 'utf8')
    .split('\n')
    .filter((line) => line.endsWith(` @${program}`))
    .map((line) => line.split(/\s+/))
    .flatMap(([, , , flags, , , number = '']) => (flags === __SO_ACCEPTCON ? [number] : []));
  return others.length === 0 ? inode : undefined;
}

function mayHold(uid: number): boolean {
  return uid === 0 || uid === process.getuid?.();
}
