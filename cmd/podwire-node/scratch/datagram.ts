/**
 * Single datagrams between addresses of namespaces, by this process's own sockets: what no child
 * process has to be started for.
 */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { addressBytes, addressFromBytes, formatAddress, parseAddress } from '#pkg/ip/address.ts';
import { POLLIN, SOCK_CLOEXEC } from '#pkg/sys/constants.ts';
import { openDatagramSys } from '#pkg/sys/datagram-sys.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';

const [AF_INET, AF_INET6, SOCK_DGRAM] = [2, 10, 2];
const [IPPROTO_IP, IP_MTU_DISCOVER, IPPROTO_IPV6, IPV6_MTU_DISCOVER] = [0, 10, 41, 23];
const [PMTUDISC_DO, PMTUDISC_DONT] = [2, 0];

export interface End {
  /** Undefined = as routing has it. */
  readonly address: string | undefined;
  readonly inside: <T>(run: () => T) => T;
}

/** How an answer came back. */
export interface Answer {
  /** The asking end's address, as the answering one saw it. */
  readonly source: string;
}

const port = 7117;
const patienceMs = 2_000;

/**
 * Sends `bytes` of payload and waits for as many in answer.
 *
 * @param fragment `never`: the packet has to pass whole, or it is an error; `always`: in pieces of
 *   what fits, as large datagrams go
 * @throws {Error} naming what got lost
 */
export async function exchange(
  from: End,
  to: End & { readonly address: string },
  options: {
    readonly bytes: number;
    readonly fragment: 'never' | 'always';
    /** How often it is tried; 3 when undefined. */
    readonly attempts?: number;
  },
): Promise<Answer> {
  const sys = await openSys();
  const v6 = to.address.includes(':');
  const open = (address: string | undefined, bindPort: number): number => {
    const fd = sys.socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const value = options.fragment === 'never' ? PMTUDISC_DO : PMTUDISC_DONT;
    sys.setsockopt({
      fd,
      level: v6 ? IPPROTO_IPV6 : IPPROTO_IP,
      name: v6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER,
      value: new Uint8Array(Int32Array.of(value).buffer),
    });
    if (address !== undefined || bindPort !== 0) {
      sys.bind(fd, socketAddress(address ?? (v6 ? '::' : '0.0.0.0'), bindPort));
    }
    return fd;
  };
  const server = to.inside(() => open(to.address, port));
  const client = from.inside(() => open(from.address, 0));
  try {
    const there = socketAddress(to.address, port);
    const packet = new Uint8Array(options.bytes).fill(1);
    // The first one may be what resolves neighbours, learns a path's MTU or shakes hands.
    for (let attempt = 0; attempt < (options.attempts ?? 3); attempt++) {
      sys.connect(client, there);
      if (!trySend(sys, client, packet)) continue;
      const source = receive(sys, server, options.bytes);
      if (source === undefined) continue;
      if (!datagrams.sendto(server, packet, packet.byteLength, source)) continue;
      if (receive(sys, client, options.bytes) !== undefined) {
        return { source: addressText(source, v6) };
      }
    }
    throw new Error(`Cannot exchange ${options.bytes} bytes with ${to.address}: they got lost`);
  } finally {
    sys.close(server);
    sys.close(client);
  }
}

/**
 * Plays the far end of a tunnel for one packet: takes a datagram at an address, and sends it back to
 * where it came from as `answer` makes it. Returns what came.
 */
export async function answerTunnel(
  tunnel: End & { readonly address: string; readonly port: number },
  from: End & { readonly address: string },
  to: { readonly address: string; readonly payload: Uint8Array },
  answer: (packet: Uint8Array) => Uint8Array,
): Promise<{ readonly packet: Uint8Array; readonly echoed: boolean }> {
  const sys = await openSys();
  const open = (address: string, bindPort: number): number => {
    const fd = sys.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sys.bind(fd, socketAddress(address, bindPort));
    return fd;
  };
  const far = tunnel.inside(() => open(tunnel.address, tunnel.port));
  const near = from.inside(() => open(from.address, 0));
  try {
    const source = new Uint8Array(28);
    sys.connect(near, socketAddress(to.address, port));
    sys.send(near, to.payload, 0);
    if (sys.poll(far, POLLIN, patienceMs) === 0) throw new Error('no packet came');
    const packet = buffer.slice(0, datagrams.recvfrom(far, buffer, source));
    const back = answer(packet);
    datagrams.sendto(far, back, back.byteLength, source);
    return { packet, echoed: receive(sys, near, to.payload.byteLength) !== undefined };
  } finally {
    sys.close(far);
    sys.close(near);
  }
}

/** Sends each of these as one datagram; what the kernel refuses is an error. */
export async function sendDatagrams(
  from: Pick<End, 'inside'>,
  to: { readonly address: string; readonly port: number },
  payloads: readonly Uint8Array[],
): Promise<void> {
  const sys = await openSys();
  const family = to.address.includes(':') ? AF_INET6 : AF_INET;
  const fd = from.inside(() => sys.socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  try {
    sys.connect(fd, socketAddress(to.address, to.port));
    for (const payload of payloads) sys.send(fd, payload, 0);
  } finally {
    sys.close(fd);
  }
}

const datagrams = openDatagramSys();
const buffer = new Uint8Array(65_536);

/** False when the kernel knows that it does not fit, or knows no way. */
function trySend(sys: Sys, fd: number, packet: Uint8Array): boolean {
  try {
    return sys.send(fd, packet, 0) === packet.byteLength;
  } catch (error) {
    if (['EMSGSIZE', 'ENETUNREACH', 'EHOSTUNREACH'].some((code) => isErrno(error, code))) {
      return false;
    }
    throw error;
  }
}

/** The sender of the next datagram of this length; undefined when none comes. */
function receive(sys: Sys, fd: number, bytes: number): Uint8Array | undefined {
  const source = new Uint8Array(28);
  if (sys.poll(fd, POLLIN, patienceMs) === 0) return undefined;
  return datagrams.recvfrom(fd, buffer, source) === bytes ? source : undefined;
}

function socketAddress(text: string, portNumber: number): Uint8Array {
  const address = parseAddress(text);
  const v4 = address.family === 'ip';
  const bytes = new Uint8Array(v4 ? 16 : 28);
  new Uint16Array(bytes.buffer, 0, 1)[0] = v4 ? AF_INET : AF_INET6;
  bytes.set([portNumber >> 8, portNumber & 255], 2);
  bytes.set(addressBytes(address), v4 ? 4 : 8);
  return bytes;
}

function addressText(bytes: Uint8Array, v6: boolean): string {
  return formatAddress(addressFromBytes(v6 ? bytes.subarray(8, 24) : bytes.subarray(4, 8)));
}
