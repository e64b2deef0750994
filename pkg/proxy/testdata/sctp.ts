/** One connection of SCTP (RFC 9260) from a namespace to another: Node has no such sockets. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { addressBytes, parseAddress } from '#pkg/ip/address.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import {
  POLLIN,
  POLLOUT,
  SO_RCVTIMEO,
  SO_SNDTIMEO,
  SOCK_CLOEXEC,
  SOCK_STREAM,
  SOL_SOCKET,
} from '#pkg/sys/constants.ts';
import { openListenSys } from '#pkg/sys/listen-sys.ts';
import { openSys } from '#pkg/sys/open-sys.ts';

const [AF_INET, AF_INET6, IPPROTO_SCTP] = [2, 10, 132];
const timeoutMs = 10_000;

export interface SctpTry {
  readonly server: ScratchNetns;
  /** Where the server listens: all of its addresses. */
  readonly serverPort: number;
  readonly client: ScratchNetns;
  readonly address: string;
  readonly port: number;
}

/**
 * What the server hears when the client connects to an address and says "hello".
 *
 * @throws {AgentError} EINPROGRESS when nobody answers: the kernel's SCTP takes no refusal by ICMP
 */
export async function helloOverSctp(of: SctpTry): Promise<string> {
  const sys = await openSys();
  const listening = openListenSys();
  const family = of.address.includes(':') ? AF_INET6 : AF_INET;
  const open = (netns: ScratchNetns): number =>
    withNetns(
      sys,
      netns.path,
      () => sys.socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_SCTP),
      (error) => {
        throw error;
      },
    );
  using opened = new DisposableStack();
  const own = (fd: number): number => opened.adopt(fd, (f) => sys.close(f));
  const server = own(open(of.server));
  sys.bind(server, socketAddress(family === AF_INET ? '0.0.0.0' : '::', of.serverPort));
  listening.listen(server, 1);
  const client = own(open(of.client));
  // struct timeval; connect(2) and accept(2) wait no longer than this.
  const value = new Uint8Array(new BigInt64Array([BigInt(timeoutMs / 1000), 0n]).buffer);
  sys.setsockopt({ fd: client, level: SOL_SOCKET, name: SO_SNDTIMEO, value });
  sys.setsockopt({ fd: server, level: SOL_SOCKET, name: SO_RCVTIMEO, value });
  try {
    sys.connect(client, socketAddress(of.address, of.port));
  } catch (error) {
    // A signal interrupted it, and it goes on.
    if (!isErrno(error, 'EALREADY') || sys.poll(client, POLLOUT, timeoutMs) === 0) throw error;
  }
  const connection = own(listening.accept(server));
  sys.send(client, new TextEncoder().encode('hello'), 0);
  if (sys.poll(connection, POLLIN, timeoutMs) === 0) return 'nothing';
  const heard = new Uint8Array(16);
  return new TextDecoder().decode(heard.subarray(0, sys.recv(connection, heard, 0)));
}

/** struct sockaddr_in, sockaddr_in6: the family in host order, the port in network order. */
function socketAddress(address: string, port: number): Uint8Array {
  const bytes = addressBytes(parseAddress(address));
  const isShort = bytes.byteLength === 4;
  const socketAddress = new Uint8Array(isShort ? 16 : 28);
  new Uint16Array(socketAddress.buffer, 0, 1)[0] = isShort ? AF_INET : AF_INET6;
  socketAddress.set([port >> 8, port & 255], 2);
  socketAddress.set(bytes, isShort ? 4 : 8);
  return socketAddress;
}
