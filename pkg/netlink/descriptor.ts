/** Opens netlink sockets with the options every one of ours wants. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import {
  SO_RCVBUF,
  SO_RCVBUFFORCE,
  SO_SNDBUF,
  SO_SNDBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_RAW,
  SOL_SOCKET,
} from '#pkg/sys/constants.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import {
  AF_NETLINK,
  NETLINK_CAP_ACK,
  NETLINK_EXT_ACK,
  NETLINK_GET_STRICT_CHK,
  SOL_NETLINK,
} from './constants.ts';

/**
 * A socket to the kernel, in the calling thread's network namespace.
 *
 * @param receiveBufferBytes room for messages not yet read; the kernel takes twice this, for its
 *   own bookkeeping
 * @throws {AgentError} with the errno name of the call that failed
 */
export function openNetlinkDescriptor(
  sys: Sys,
  protocol: number,
  receiveBufferBytes: number,
): number {
  const fd = sys.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  try {
    // struct sockaddr_nl { u16 family; u16 pad; u32 port; u32 groups; }
    const address = new Uint8Array(12);
    new Uint16Array(address.buffer)[0] = AF_NETLINK;
    // Port 0: the kernel picks ours. Connected to its port 0, we get messages from nobody else.
    sys.bind(fd, address);
    sys.connect(fd, address);
    for (const name of [NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK]) {
      // Older kernels answer without explanations and filter nothing: our reading allows for both.
      setOption(sys, { level: SOL_NETLINK, name, fd, value: 1 }, 'ENOPROTOOPT');
    }
    // Above net.core.rmem_max, which takes CAP_NET_ADMIN in the machine's first user namespace.
    const buffer = { level: SOL_SOCKET, fd, value: receiveBufferBytes };
    if (!setOption(sys, { ...buffer, name: SO_RCVBUFFORCE }, 'EPERM')) {
      setOption(sys, { ...buffer, name: SO_RCVBUF });
    }
    return fd;
  } catch (error) {
    sys.close(fd);
    throw error;
  }
}

/** Room for what is sent in one go; above net.core.wmem_max where we may. */
export function setSendBuffer(sys: Sys, fd: number, bytes: number): void {
  const buffer = { level: SOL_SOCKET, fd, value: bytes };
  if (!setOption(sys, { ...buffer, name: SO_SNDBUFFORCE }, 'EPERM')) {
    setOption(sys, { ...buffer, name: SO_SNDBUF });
  }
}

/** Sets an option to a number; false when the kernel answers with the tolerated errno. */
export function setOption(
  sys: Sys,
  option: { readonly fd: number; readonly level: number; readonly name: number; value: number },
  tolerated?: string,
): boolean {
  try {
    sys.setsockopt({ ...option, value: new Uint8Array(Int32Array.of(option.value).buffer) });
    return true;
  } catch (error) {
    if (tolerated !== undefined && isErrno(error, tolerated)) return false;
    throw error;
  }
}
