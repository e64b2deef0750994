/** Makes a {@link Sys} of raw libc functions: what the two FFI backends have in common. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { errnoName, errnoText } from './errno.ts';
import type { Sys } from './sys.ts';

/** libc as it is: lengths are size_t, -1 is failure, errno() is valid right after a failed call. */
export interface Libc {
  getpid(): number;
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Uint8Array, length: number): number;
  connect(fd: number, address: Uint8Array, length: number): number;
  getsockname(fd: number, address: Uint8Array, length: Uint8Array): number;
  setsockopt(
    ...args: [fd: number, level: number, name: number, value: Uint8Array, length: number]
  ): number;
  send(...args: [fd: number, data: Uint8Array, length: bigint, flags: number]): bigint;
  recv(...args: [fd: number, buffer: Uint8Array, length: bigint, flags: number]): bigint;
  poll(fds: Uint8Array, count: bigint, timeoutMs: number): number;
  setns(fd: number, namespaceType: number): number;
  flock(fd: number, operation: number): number;
  close(fd: number): number;
  errno(): number;
}

/**
 * Wraps raw functions once they have shown that they call what they should.
 *
 * @throws {AgentError} FfiUnusable
 */
export function sysFromLibc(libc: Libc): Sys {
  verifyCallConvention(libc);

  const call = callerOf(() => libc.errno());

  return {
    socket: (domain, type, protocol) =>
      call('open a socket', () => libc.socket(domain, type, protocol)),
    bind: (fd, address) =>
      void call('bind a socket', () => libc.bind(fd, address, address.byteLength)),
    connect(fd, address) {
      let isAgain = false;
      call('connect a socket', () => {
        const result = libc.connect(fd, address, address.byteLength);
        // What a signal interrupts the kernel finishes by itself (connect(2)).
        const isDone = isAgain && result === -1 && errnoName(libc.errno()) === 'EISCONN';
        isAgain = true;
        return isDone ? 0 : result;
      });
    },
    getsockname(fd, address) {
      const length = new Uint32Array([address.byteLength]);
      const bytes = new Uint8Array(length.buffer);
      call('read the address of a socket', () => libc.getsockname(fd, address, bytes));
      return length[0] ?? 0;
    },
    setsockopt: ({ fd, level, name, value }) =>
      void call(`set socket option ${level}/${name}`, () =>
        libc.setsockopt(fd, level, name, value, value.byteLength),
      ),
    send: (fd, data, flags) =>
      call('send to a socket', () => libc.send(fd, data, BigInt(data.byteLength), flags)),
    recv: (fd, buffer, flags) =>
      call('receive from a socket', () => libc.recv(fd, buffer, BigInt(buffer.byteLength), flags)),
    poll(fd, events, timeoutMs) {
      // struct pollfd { int fd; short events; short revents; } (include/uapi/asm-generic/poll.h)
      const shorts = new Uint16Array(4);
      new Int32Array(shorts.buffer)[0] = fd;
      shorts[2] = events;
      const bytes = new Uint8Array(shorts.buffer);
      call('wait for a descriptor', () => libc.poll(bytes, 1n, timeoutMs));
      return shorts[3] ?? 0;
    },
    setns: (fd, namespaceType) =>
      void call('enter a namespace', () => libc.setns(fd, namespaceType)),
    flock: (fd, operation) => void call('lock a file', () => libc.flock(fd, operation)),
    close(fd) {
      // No second attempt after EINTR: Linux has closed the descriptor, and its number may already
      // be another thread's file (close(2), "Dealing with error returns").
      if (libc.close(fd) !== -1) return;
      const errno = libc.errno();
      const code = errnoName(errno);
      if (code !== 'EINTR') throw failure(code, 'close a descriptor', errno);
    },
  };
}

/** Makes a libc call; `what` finishes the sentence "Cannot …". */
export type Call = <R extends number | bigint>(what: string, make: () => R) => number;

/** Calls until no signal interrupts, and throws what errno says after a call that failed. */
export function callerOf(errnoOf: () => number): Call {
  return (what, make) => {
    for (;;) {
      const result = Number(make());
      if (result !== -1) return result;
      const errno = errnoOf();
      const code = errnoName(errno);
      if (code !== 'EINTR') throw failure(code, what, errno);
    }
  };
}

/**
 * An FFI that was given type names it does not know may call with no arguments and return nothing,
 * without a word (node:ffi renamed its keys between 26.2 and 26.3). Ask what we know the answers to.
 */
function verifyCallConvention(libc: Libc): void {
  const pid: unknown = libc.getpid();
  const closed: unknown = libc.close(-1);
  const errno: unknown = libc.errno();
  const answered = typeof pid === 'number' && pid > 0 && closed === -1;
  if (answered && typeof errno === 'number' && errnoName(errno) === 'EBADF') return;
  throw new AgentError(
    'FfiUnusable',
    'Cannot call libc: the foreign function interface of this runtime is not that of Node 26.3',
    { details: { pid, closed, errno } },
  );
}

function failure(code: string, what: string, errno: number): AgentError {
  return new AgentError(code, `Cannot ${what}: ${errnoText(errno)} (${code})`);
}
