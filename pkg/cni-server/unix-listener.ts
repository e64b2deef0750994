/** A listening unix socket that blocking threads share. */
import { chmodSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { makeDirectory } from '#pkg/files/make-directory.ts';
import { AF_UNIX, SHUT_RDWR, SOCK_CLOEXEC, SOCK_STREAM } from '#pkg/sys/constants.ts';
import type { ListenSys } from '#pkg/sys/listen-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { unixAddress } from '#pkg/sys/unix-address.ts';

export interface UnixListener extends Disposable {
  readonly fd: number;
  /** Accepts nobody any more: threads that wait in accept() get EINVAL. */
  stop(): void;
}

/** As many callers may wait; more get EAGAIN from connect(2) and do the work themselves. */
const backlog = 256;

/** sockaddr_un.sun_path, with the zero byte that ends it (include/uapi/linux/un.h). */
const maxPathBytes = 108;

/**
 * Listens at a path, for root only. What is there, a socket that a killed daemon left or that of
 * one still running, is replaced in one step: callers find the old one or the new one.
 *
 * @throws {AgentError} ENAMETOOLONG for a path of more than 103 bytes; what the kernel says
 */
export function listenUnix(sys: Sys, listenSys: ListenSys, path: string): UnixListener {
  const temporary = `${path}.new`;
  const address = addressOf(temporary);
  makeDirectory(dirname(path), 0o755);
  const fd = sys.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  try {
    rmSync(temporary, { force: true });
    sys.bind(fd, address);
    // Before listen(2) nobody can connect, whatever the umask made of the mode.
    chmodSync(temporary, 0o600);
    listenSys.listen(fd, backlog);
    const identity = identityOf(temporary);
    renameSync(temporary, path);
    return {
      fd,
      stop: () => listenSys.shutdown(fd, SHUT_RDWR),
      [Symbol.dispose]() {
        // Another daemon may have put its own there meanwhile.
        if (identityOf(path) === identity) rmSync(path, { force: true });
        sys.close(fd);
      },
    };
  } catch (error) {
    sys.close(fd);
    throw error;
  }
}

function addressOf(path: string): Uint8Array {
  if (Buffer.byteLength(path) >= maxPathBytes) {
    throw new AgentError(
      'ENAMETOOLONG',
      `Cannot listen at ${path}: expected at most ${maxPathBytes - 1} bytes`,
    );
  }
  return unixAddress(path);
}

function identityOf(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}
