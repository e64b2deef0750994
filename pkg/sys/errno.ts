/**
 * Kernel error numbers as the names and texts people know. A table of our own: node:os and node:util
 * know them too, but loading those two takes a tenth of the whole time of a CNI call.
 */

export const EINTR = 4;
export const ENOBUFS = 105;

/** The name of a positive errno: 17 is "EEXIST". */
export function errnoName(errno: number): string {
  return table.get(errno)?.[0] ?? `errno ${errno}`;
}

/** A positive errno in words: 17 is "file already exists"; its name where no text is known. */
export function errnoText(errno: number): string {
  return table.get(errno)?.[1] ?? errnoName(errno);
}

/**
 * Numbers of include/uapi/asm-generic/errno.h and, for 524, include/linux/errno.h, which the kernel
 * lets out though no program should see it. Texts as Node has them, where it has one.
 */
const table: ReadonlyMap<number, readonly [name: string, text: string]> = new Map([
  [1, ['EPERM', 'operation not permitted']],
  [2, ['ENOENT', 'no such file or directory']],
  [3, ['ESRCH', 'no such process']],
  [4, ['EINTR', 'interrupted system call']],
  [5, ['EIO', 'i/o error']],
  [6, ['ENXIO', 'no such device or address']],
  [7, ['E2BIG', 'argument list too long']],
  [8, ['ENOEXEC', 'exec format error']],
  [9, ['EBADF', 'bad file descriptor']],
  [10, ['ECHILD', 'no child processes']],
  [11, ['EAGAIN', 'resource temporarily unavailable']],
  [12, ['ENOMEM', 'not enough memory']],
  [13, ['EACCES', 'permission denied']],
  [14, ['EFAULT', 'bad address in system call argument']],
  [15, ['ENOTBLK', 'block device required']],
  [16, ['EBUSY', 'resource busy or locked']],
  [17, ['EEXIST', 'file already exists']],
  [18, ['EXDEV', 'cross-device link not permitted']],
  [19, ['ENODEV', 'no such device']],
  [20, ['ENOTDIR', 'not a directory']],
  [21, ['EISDIR', 'illegal operation on a directory']],
  [22, ['EINVAL', 'invalid argument']],
  [23, ['ENFILE', 'file table overflow']],
  [24, ['EMFILE', 'too many open files']],
  [25, ['ENOTTY', 'inappropriate ioctl for device']],
  [26, ['ETXTBSY', 'text file is busy']],
  [27, ['EFBIG', 'file too large']],
  [28, ['ENOSPC', 'no space left on device']],
  [29, ['ESPIPE', 'invalid seek']],
  [30, ['EROFS', 'read-only file system']],
  [31, ['EMLINK', 'too many links']],
  [32, ['EPIPE', 'broken pipe']],
  [33, ['EDOM', 'argument out of domain']],
  [34, ['ERANGE', 'result too large']],
  [35, ['EDEADLK', 'resource deadlock avoided']],
  [36, ['ENAMETOOLONG', 'name too long']],
  [37, ['ENOLCK', 'no locks available']],
  [38, ['ENOSYS', 'function not implemented']],
  [39, ['ENOTEMPTY', 'directory not empty']],
  [40, ['ELOOP', 'too many symbolic links encountered']],
  [42, ['ENOMSG', 'no message of desired type']],
  [43, ['EIDRM', 'identifier removed']],
  [44, ['ECHRNG', 'channel number out of range']],
  [60, ['ENOSTR', 'device is not a stream']],
  [61, ['ENODATA', 'no data available']],
  [62, ['ETIME', 'timer expired']],
  [63, ['ENOSR', 'out of streams resources']],
  [64, ['ENONET', 'machine is not on the network']],
  [67, ['ENOLINK', 'link has been severed']],
  [71, ['EPROTO', 'protocol error']],
  [72, ['EMULTIHOP', 'multihop attempted']],
  [74, ['EBADMSG', 'bad message']],
  [75, ['EOVERFLOW', 'value too large for defined data type']],
  [77, ['EBADFD', 'file descriptor in bad state']],
  [76, ['ENOTUNIQ', 'name is not unique on the network']],
  [84, ['EILSEQ', 'illegal byte sequence']],
  [87, ['EUSERS', 'too many users']],
  [88, ['ENOTSOCK', 'socket operation on non-socket']],
  [89, ['EDESTADDRREQ', 'destination address required']],
  [90, ['EMSGSIZE', 'message too long']],
  [91, ['EPROTOTYPE', 'protocol wrong type for socket']],
  [92, ['ENOPROTOOPT', 'protocol not available']],
  [93, ['EPROTONOSUPPORT', 'protocol not supported']],
  [94, ['ESOCKTNOSUPPORT', 'socket type not supported']],
  [95, ['EOPNOTSUPP', 'operation not supported on socket']],
  [96, ['EPFNOSUPPORT', 'protocol family not supported']],
  [97, ['EAFNOSUPPORT', 'address family not supported']],
  [98, ['EADDRINUSE', 'address already in use']],
  [99, ['EADDRNOTAVAIL', 'address not available']],
  [100, ['ENETDOWN', 'network is down']],
  [101, ['ENETUNREACH', 'network is unreachable']],
  [102, ['ENETRESET', 'network dropped connection on reset']],
  [103, ['ECONNABORTED', 'software caused connection abort']],
  [104, ['ECONNRESET', 'connection reset by peer']],
  [105, ['ENOBUFS', 'no buffer space available']],
  [106, ['EISCONN', 'socket is already connected']],
  [107, ['ENOTCONN', 'socket is not connected']],
  [108, ['ESHUTDOWN', 'cannot send after transport endpoint shutdown']],
  [109, ['ETOOMANYREFS', 'too many references']],
  [110, ['ETIMEDOUT', 'connection timed out']],
  [111, ['ECONNREFUSED', 'connection refused']],
  [112, ['EHOSTDOWN', 'host is down']],
  [113, ['EHOSTUNREACH', 'host is unreachable']],
  [114, ['EALREADY', 'connection already in progress']],
  [115, ['EINPROGRESS', 'operation now in progress']],
  [116, ['ESTALE', 'stale file handle']],
  [117, ['EUCLEAN', 'structure needs cleaning']],
  [121, ['EREMOTEIO', 'remote i/o error']],
  [122, ['EDQUOT', 'disk quota exceeded']],
  [123, ['ENOMEDIUM', 'no medium found']],
  [124, ['EMEDIUMTYPE', 'wrong medium type']],
  [125, ['ECANCELED', 'operation canceled']],
  [130, ['EOWNERDEAD', 'owner died']],
  [131, ['ENOTRECOVERABLE', 'state not recoverable']],
  [132, ['ERFKILL', 'operation not possible due to rf-kill']],
  [524, ['ENOTSUPP', 'operation is not supported']],
]);
