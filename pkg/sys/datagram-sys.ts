/**
 * The libc calls that carrying single packets needs beyond {@link Sys}. Node only, and apart from
 * Sys: every function costs the CNI executable a little at each start.
 *
 * "Nothing there" and "not this packet" are answers and no errors: they come with every burst, and
 * an exception costs as much as carrying several packets. Lengths are 32 bits wide, since a 64-bit
 * argument would be a BigInt to allocate for each packet; in the calling conventions of the machines
 * we run on the register's upper half is zero then.
 */
import type * as NodeFfi from 'node:ffi';
import { createRequire } from 'node:module';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { errnoName, errnoText } from './errno.ts';
import { callerOf } from './libc.ts';

export interface DatagramSys {
  /**
   * ioctl(2) with a struct that the kernel may change.
   *
   * @throws {AgentError} with the errno's name
   */
  ioctl(fd: number, request: number, argument: Uint8Array): void;
  /**
   * read(2) of one packet; -1 when a descriptor that does not block has none.
   *
   * @throws {AgentError} as all of these when the descriptor itself is unusable
   */
  read(fd: number, buffer: Uint8Array): number;
  /** write(2) of one packet; false when the kernel would not take it. */
  write(fd: number, packet: Uint8Array, length: number): boolean;
  /** recvfrom(2), the sender into `address`; -1 when nothing comes within SO_RCVTIMEO. */
  recvfrom(fd: number, buffer: Uint8Array, address: Uint8Array): number;
  /** sendto(2); false when the kernel would not take it. */
  sendto(...args: [fd: number, packet: Uint8Array, length: number, address: Uint8Array]): boolean;
}

/** Loads libc through node:ffi. */
export function openDatagramSys(): DatagramSys {
  const load = createRequire(import.meta.url);
  const { dlopen, getInt32 } = load('node:ffi') as typeof NodeFfi;
  const { functions: libc } = dlopen(null, {
    ioctl: { arguments: ['int32', 'uint64', 'buffer'], return: 'int32' },
    read: { arguments: ['int32', 'buffer', 'uint32'], return: 'int32' },
    write: { arguments: ['int32', 'buffer', 'uint32'], return: 'int32' },
    recvfrom: {
      arguments: ['int32', 'buffer', 'uint32', 'int32', 'buffer', 'buffer'],
      return: 'int32',
    },
    sendto: {
      arguments: ['int32', 'buffer', 'uint32', 'int32', 'buffer', 'uint32'],
      return: 'int32',
    },
    __errno_location: { arguments: [], return: 'pointer' },
  });
  const errnoAt = libc.__errno_location();
  const call = callerOf(() => getInt32(errnoAt));
  const addressLength = new Uint32Array(1);
  const addressLengthBytes = new Uint8Array(addressLength.buffer);

  /** After a call that failed: throws unless the next one may succeed. */
  function passes(what: string, unusable: ReadonlySet<string>): void {
    const errno = getInt32(errnoAt);
    const code = errnoName(errno);
    if (unusable.has(code)) throw new AgentError(code, `Cannot ${what}: ${errnoText(errno)}`);
  }

  return {
    ioctl: (fd, request, argument) =>
      void call('control a device', () => libc.ioctl(fd, BigInt(request), argument)),
    read(fd, buffer) {
      const length = libc.read(fd, buffer, buffer.byteLength);
      if (length >= 0) return length;
      passes('read a packet', cannotTake);
      return -1;
    },
    write(fd, packet, length) {
      if (libc.write(fd, packet, length) >= 0) return true;
      passes('write a packet', cannotGive);
      return false;
    },
    recvfrom(fd, buffer, address) {
      addressLength[0] = address.byteLength;
      const { byteLength } = buffer;
      const length = libc.recvfrom(fd, buffer, byteLength, 0, address, addressLengthBytes);
      if (length >= 0) return length;
      passes('receive a packet', cannotTake);
      return -1;
    },
    sendto(fd, packet, length, address) {
      if (libc.sendto(fd, packet, length, 0, address, address.byteLength) >= 0) return true;
      passes('send a packet', cannotGive);
      return false;
    },
  };
}

/** EBADFD is a TUN descriptor whose device is gone; the others are faults of ours. */
const cannotGive: ReadonlySet<string> = new Set(['EBADF', 'EBADFD', 'EFAULT', 'ENOTSOCK']);

/**
 * EINVAL says of giving that this packet is none: a TUN device has it for what is neither IPv4 nor
 * IPv6 (drivers/net/tun.c, tun_get_user), which anybody can send to us.
 */
const cannotTake: ReadonlySet<string> = new Set([...cannotGive, 'EINVAL']);
