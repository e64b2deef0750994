/** One accepted connection, used by a thread that waits. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import {
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSG_PEEK,
  SO_PEERCRED,
  SO_RCVTIMEO,
  SO_SNDTIMEO,
  SOL_SOCKET,
} from '#pkg/sys/constants.ts';
import type { ListenSys } from '#pkg/sys/listen-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';

export interface Connection extends Disposable {
  /** User ID of the process that connected, as this process's user namespace sees it. */
  peerUid(): number;
  /** What has come, at most what fits; undefined when the peer closes, or after {@link timeoutMs}. */
  receive(buffer: Uint8Array): number | undefined;
  /** False when the peer is gone, or reads nothing for {@link timeoutMs}. */
  send(bytes: Uint8Array): boolean;
  /** Whether the peer still has its end open. */
  isOpen(): boolean;
}

/** A launcher sends its request at once and reads the answer at once; a peer that does not is none. */
const timeoutMs = 3000;

/** Takes a descriptor over. */
export function openConnection(sys: Sys, listenSys: ListenSys, fd: number): Connection {
  // struct timeval { long seconds; long microseconds; }
  const value = new Uint8Array(BigInt64Array.of(BigInt(timeoutMs / 1000), 0n).buffer);
  for (const name of [SO_RCVTIMEO, SO_SNDTIMEO]) {
    sys.setsockopt({ fd, level: SOL_SOCKET, name, value });
  }
  return {
    peerUid() {
      // struct ucred { pid_t pid; uid_t uid; gid_t gid; }
      const credentials = new Uint32Array(3);
      const bytes = new Uint8Array(credentials.buffer);
      listenSys.getsockopt({ fd, level: SOL_SOCKET, name: SO_PEERCRED, value: bytes });
      return credentials[1] ?? -1;
    },
    receive(buffer) {
      const got = unlessGone(() => sys.recv(fd, buffer, 0));
      return got === 0 ? undefined : got;
    },
    send(bytes) {
      for (let at = 0; at < bytes.byteLength;) {
        const sent = unlessGone(() => sys.send(fd, bytes.subarray(at), MSG_NOSIGNAL));
        if (sent === undefined) return false;
        at += sent;
      }
      return true;
    },
    isOpen() {
      try {
        return sys.recv(fd, new Uint8Array(1), MSG_PEEK | MSG_DONTWAIT) > 0;
      } catch (error) {
        if (isErrno(error, 'EAGAIN')) return true;
        if (isGone(error)) return false;
        throw error;
      }
    },
    [Symbol.dispose]: () => sys.close(fd),
  };
}

function unlessGone(call: () => number): number | undefined {
  try {
    return call();
  } catch (error) {
    if (isGone(error) || isErrno(error, 'EAGAIN')) return undefined;
    throw error;
  }
}

function isGone(error: unknown): boolean {
  return isErrno(error, 'EPIPE') || isErrno(error, 'ECONNRESET');
}
