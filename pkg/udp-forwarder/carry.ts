/**
 * The two directions of the forwarder, each the whole life of a thread: from the TUN device to UDP,
 * and from UDP to the device. A datagram is one IP packet and nothing more, as in flannel.
 */
import { receiveMessageOnPort, type MessagePort } from 'node:worker_threads';
import { addressBytes, type Address, type Family } from '#pkg/ip/address.ts';
import { AF_INET, AF_INET6 } from '#pkg/netlink/constants.ts';
import { POLLIN } from '#pkg/sys/constants.ts';
import type { DatagramSys } from '#pkg/sys/datagram-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { ForwardingTable, type ForwardingRoute } from './forwarding-table.ts';

/** Shared with the thread that rules: [0] counts its words, [1] is 1 when all shall end. */
export type Signals = Int32Array;
export const signalBytes = 24;
const [WORDS, STOP] = [0, 1] as const;
/** Packets and drops, of both directions, for metrics. */
export const counters = { sent: 2, received: 3, dropped: 4 } as const;

/** How long a thread does not notice that it shall end. */
const idleMs = 250;

/** Larger than any packet of the device. */
const bufferBytes = 65_536;

export interface ToUdp {
  readonly tunFd: number;
  readonly socketFds: Readonly<Partial<Record<Family, number>>>;
  readonly remotePort: number;
  /** Brings the routes, each time all of them. */
  readonly routes: MessagePort;
  readonly signals: Signals;
}

/** Carries what the device sends, until it is told to stop. A packet without a route is dropped. */
export function carryToUdp(sys: Sys, datagrams: DatagramSys, options: ToUdp): void {
  const { tunFd, socketFds, remotePort, routes, signals } = options;
  const buffer = new Uint8Array(bufferBytes);
  const view = new DataView(buffer.buffer);
  let heard = -1;
  let table = new ForwardingTable<Target>([], () => noTarget);
  const listen = (): void => {
    const words = Atomics.load(signals, WORDS);
    if (words === heard) return;
    heard = words;
    const latest = latestOf(routes);
    if (latest === undefined) return;
    table = new ForwardingTable(latest, ({ family, remote }) => ({
      fd: socketFds[family] ?? -1,
      address: socketAddress(remote, remotePort),
    }));
  };
  while (Atomics.load(signals, STOP) === 0) {
    const length = datagrams.read(tunFd, buffer);
    // Also without a packet: each word waits in memory until it is heard.
    listen();
    if (length < 0) {
      sys.poll(tunFd, POLLIN, idleMs);
      continue;
    }
    const target = table.find(view, length);
    const isSent =
      target !== undefined && datagrams.sendto(target.fd, buffer, length, target.address);
    Atomics.add(signals, isSent ? counters.sent : counters.dropped, 1);
  }
}

/** Carries what comes in by a socket, whose SO_RCVTIMEO is short, until it is told to stop. */
export function carryFromUdp(
  datagrams: DatagramSys,
  options: { readonly tunFd: number; readonly socketFd: number; readonly signals: Signals },
): void {
  const { tunFd, socketFd, signals } = options;
  const buffer = new Uint8Array(bufferBytes);
  const sender = new Uint8Array(28);
  while (Atomics.load(signals, STOP) === 0) {
    const length = datagrams.recvfrom(socketFd, buffer, sender);
    if (length < 0) continue;
    // The device refuses what is no IP packet.
    const isTaken = length >= 20 && datagrams.write(tunFd, buffer, length);
    Atomics.add(signals, isTaken ? counters.received : counters.dropped, 1);
  }
}

/** Tells the thread that new routes wait for it; it looks before it carries the next packet. */
export function announceRoutes(signals: Signals): void {
  Atomics.add(signals, WORDS, 1);
}

/** Tells the threads that carry packets to end; they see it when they wake up next. */
export function announceStop(signals: Signals): void {
  Atomics.store(signals, STOP, 1);
}

/** struct sockaddr_in, or sockaddr_in6. */
export function socketAddress(address: Address, port: number): Uint8Array {
  const v4 = address.family === 'ip';
  const bytes = new Uint8Array(v4 ? 16 : 28);
  new Uint16Array(bytes.buffer, 0, 1)[0] = v4 ? AF_INET : AF_INET6;
  bytes.set([port >> 8, port & 255], 2);
  bytes.set(addressBytes(address), v4 ? 4 : 8);
  return bytes;
}

interface Target {
  readonly fd: number;
  readonly address: Uint8Array;
}

const noTarget: Target = { fd: -1, address: new Uint8Array(16) };

function latestOf(port: MessagePort): readonly ForwardingRoute[] | undefined {
  let latest: readonly ForwardingRoute[] | undefined;
  for (;;) {
    const received = receiveMessageOnPort(port) as
      | { readonly message: readonly ForwardingRoute[] }
      | undefined;
    if (received === undefined) return latest;
    latest = received.message;
  }
}
