/** TUN devices (Documentation/networking/tuntap.rst): a device whose cable is a file. */
import { closeSync, constants, openSync } from 'node:fs';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { DatagramSys } from '#pkg/sys/datagram-sys.ts';

/** include/uapi/linux/if_tun.h */
const TUNSETIFF = 0x400454ca;
const TUNSETPERSIST = 0x400454cb;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;

/**
 * Makes a device that stays when nobody holds it: its routes and addresses outlive a daemon's
 * restart. In the calling thread's network namespace.
 *
 * @throws {AgentError} EBUSY when a program has a device of this name; TunMissing
 */
export function createTun(sys: DatagramSys, name: string): void {
  const fd = openTun(sys, name);
  try {
    // Any value but zero says "stay"; the address of a buffer is one.
    sys.ioctl(fd, TUNSETPERSIST, new Uint8Array(8));
  } finally {
    closeSync(fd);
  }
}

/**
 * The file that holds what the device sends, and takes what it shall receive: a packet for each read
 * and write, nothing around it. Reading does not block.
 *
 * @throws {AgentError} EBUSY when another program has it; TunMissing
 */
export function openTun(sys: DatagramSys, name: string): number {
  let fd: number;
  try {
    fd = openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK);
  } catch (cause) {
    throw new AgentError(
      'TunMissing',
      'Cannot open /dev/net/tun: backend udp needs the kernel module tun, and the device in its container',
      { cause },
    );
  }
  try {
    // struct ifreq { char name[16]; short flags; … }
    const request = new Uint8Array(40);
    request.set(new TextEncoder().encode(name).subarray(0, 15));
    new Uint16Array(request.buffer)[8] = IFF_TUN | IFF_NO_PI;
    sys.ioctl(fd, TUNSETIFF, request);
    return fd;
  } catch (cause) {
    closeSync(fd);
    throw new AgentError('TunFailed', `Cannot attach to TUN device ${name}`, { cause });
  }
}
