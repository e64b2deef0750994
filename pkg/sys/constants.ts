/**
 * Constants of the libc calls in sys.ts, in the kernel's spelling. Values are those of
 * include/uapi/asm-generic, which amd64, arm64, riscv64, ppc64le and s390x share.
 */

/** include/linux/socket.h */
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;

/** include/linux/net.h, include/uapi/asm-generic/fcntl.h */
export const SOCK_RAW = 3;
export const SOCK_CLOEXEC = 0o2000000;

/** include/uapi/asm-generic/socket.h */
export const SOL_SOCKET = 1;
export const SO_RCVBUF = 8;
export const SO_ATTACH_FILTER = 26;
export const SO_RCVBUFFORCE = 33;
export const SO_SNDBUF = 7;
export const SO_SNDBUFFORCE = 32;

/** include/uapi/asm-generic/poll.h */
export const POLLIN = 0x1;
export const POLLOUT = 0x4;

/** include/uapi/linux/sched.h */
export const CLONE_NEWNET = 0x40000000;

/** include/uapi/asm-generic/fcntl.h */
export const LOCK_SH = 1;
export const LOCK_EX = 2;
export const LOCK_NB = 4;
export const LOCK_UN = 8;

/** include/linux/net.h, include/linux/socket.h, include/uapi/asm-generic/socket.h */
export const AF_UNIX = 1;
export const SOCK_STREAM = 1;
export const MSG_PEEK = 0x2;
export const MSG_NOSIGNAL = 0x4000;
export const SO_PEERCRED = 17;
export const SO_RCVTIMEO = 20;
export const SO_SNDTIMEO = 21;
export const SHUT_RDWR = 2;

/** include/uapi/linux/sched.h */
export const CLONE_NEWNS = 0x00020000;
export const CLONE_FS = 0x00000200;
