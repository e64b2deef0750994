/** Files as the machine itself sees them. */
import { closeSync, openSync, statSync } from 'node:fs';
import { CLONE_FS, CLONE_NEWNS } from '#pkg/sys/constants.ts';
import type { ListenSys } from '#pkg/sys/listen-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';

/**
 * Moves the calling thread, and no other, to the mounts of the machine's first process. In a
 * container the names a runtime uses (network namespaces, lease directories, other plugins) lead
 * elsewhere. It takes the host's PID namespace: without it, process 1 is the container's own, there
 * is nowhere to go, and this does nothing.
 *
 * @throws {AgentError} EACCES without CAP_SYS_PTRACE, EPERM without CAP_SYS_ADMIN and CAP_SYS_CHROOT
 */
export function enterHostMounts(sys: Sys, listenSys: ListenSys, host = '/proc/1/ns/mnt'): void {
  if (statSync(host).ino === statSync('/proc/thread-self/ns/mnt').ino) return;
  const fd = openSync(host, 'r');
  try {
    // The kernel moves no thread that shares its root and working directory with others.
    listenSys.unshare(CLONE_FS);
    sys.setns(fd, CLONE_NEWNS);
  } finally {
    closeSync(fd);
  }
}
