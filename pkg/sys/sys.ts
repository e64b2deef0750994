/**
 * The handful of libc calls Node has no API for. Everything that speaks netlink or enters a
 * namespace is written over this interface, so that one core runs under Node (node-ffi.ts) and as
 * a Bun-compiled executable (bun-ffi.ts).
 *
 * Calls are synchronous and throw an AgentError whose code is the errno name ("EPERM"). A call that
 * a signal interrupted is made again.
 */
export interface Sys {
  /** socket(2): a new file descriptor, closed on exec. */
  socket(domain: number, type: number, protocol: number): number;
  /** bind(2) to a raw `struct sockaddr_*`. */
  bind(fd: number, address: Uint8Array): void;
  /** connect(2) to a raw `struct sockaddr_*`. */
  connect(fd: number, address: Uint8Array): void;
  /** getsockname(2) into `address`; returns how many bytes the kernel's address has. */
  getsockname(fd: number, address: Uint8Array): number;
  /** setsockopt(2) with the option's value as raw bytes. */
  setsockopt(option: SocketOption): void;
  /** send(2): returns the number of bytes sent. */
  send(fd: number, data: Uint8Array, flags: number): number;
  /** recv(2) into `buffer`: returns the number of bytes, or the true length with MSG_TRUNC. */
  recv(fd: number, buffer: Uint8Array, flags: number): number;
  /**
   * poll(2) on one descriptor: returns `revents`, 0 after `timeoutMs` without an event (-1 waits
   * for ever). An interrupted wait starts again with the whole time.
   */
  poll(fd: number, events: number, timeoutMs: number): number;
  /** setns(2): moves the calling thread, and no other, into the namespace behind `fd`. */
  setns(fd: number, namespaceType: number): void;
  /** flock(2): blocks unless `operation` has LOCK_NB (then EAGAIN). */
  flock(fd: number, operation: number): void;
  /** close(2). */
  close(fd: number): void;
}

export interface SocketOption {
  readonly fd: number;
  readonly level: number;
  readonly name: number;
  readonly value: Uint8Array;
}
