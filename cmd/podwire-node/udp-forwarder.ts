/**
 * The backend udp's forwarder: threads between a TUN device and UDP sockets, one for what the device
 * sends and one a family for what comes in. A thread waits in its own system calls, since a packet
 * that has to pass an event loop takes many times as long. While no daemon runs, no packet is
 * carried; with backends in the kernel that is different.
 */
import { closeSync } from 'node:fs';
import { MessageChannel, Worker, type MessagePort } from 'node:worker_threads';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { formatAddress, sameAddress, type Address, type Family } from '#pkg/ip/address.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { familyNumber } from '#pkg/netlink/family.ts';
import type { Forwarding } from '#pkg/overlay/backend.ts';
import {
  SO_RCVBUFFORCE,
  SO_RCVTIMEO,
  SO_SNDBUFFORCE,
  SOCK_CLOEXEC,
  SOL_SOCKET,
} from '#pkg/sys/constants.ts';
import type { DatagramSys } from '#pkg/sys/datagram-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import {
  announceRoutes,
  announceStop,
  counters,
  signalBytes,
  socketAddress,
} from '#pkg/udp-forwarder/carry.ts';
import type { ForwardingRoute } from '#pkg/udp-forwarder/forwarding-table.ts';
import { openTun } from '#pkg/udp-forwarder/tun.ts';
import type { ForwarderCounts } from './node-metrics.ts';
import type { UdpWorkerData } from './udp-worker.ts';

/** include/linux/net.h */
const SOCK_DGRAM = 2;
/** include/uapi/linux/in6.h */
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;

/** Some milliseconds of packets, while a thread does not get the processor. */
const socketBufferBytes = 4 * 1024 * 1024;

const receiveTimeoutMicroseconds = 250_000n;

/** Packets carried and dropped since the process began. */
export interface UdpForwarder extends AsyncDisposable {
  /**
   * Makes it forward like this from now on; undefined = not at all. The device must be there.
   *
   * @throws {AgentError} when the device or a port cannot be had
   */
  apply(forwarding: Forwarding | undefined): Promise<void>;
  counts(): ForwarderCounts;
}

export interface ForwarderParts {
  readonly open: (forwarding: Forwarding) => ForwardingPorts;
  readonly log: Logger;
  /** The threads have ended by themselves, as after somebody deleted the device. */
  readonly onFailure: () => void;
  /** Of node:worker_threads unless a test says otherwise. */
  readonly startThread?: typeof startWorker;
}

/** The descriptors packets go through. */
export interface ForwardingPorts extends Disposable {
  readonly tunFd: number;
  readonly socketFds: Readonly<Partial<Record<Family, number>>>;
}

/**
 * Opens them in the calling thread's network namespace.
 *
 * @throws {AgentError} TunMissing, TunFailed; BindFailed
 */
export function openForwardingPorts(
  sys: Sys,
  datagrams: DatagramSys,
  { link, port, locals }: Forwarding,
): ForwardingPorts {
  using opened = new DisposableStack();
  const tunFd = opened.adopt(openTun(datagrams, link), closeSync);
  const socketFds: Partial<Record<Family, number>> = {};
  for (const local of locals) {
    socketFds[local.family] = opened.adopt(openSocket(sys, local, port), (fd) => sys.close(fd));
  }
  const resources = opened.move();
  return { tunFd, socketFds, [Symbol.dispose]: () => resources.dispose() };
}

export function createUdpForwarder(parts: ForwarderParts): UdpForwarder {
  let running: Running | undefined;
  let before: ForwarderCounts = { sent: 0, received: 0, dropped: 0 };

  async function stop(): Promise<void> {
    if (running === undefined) return;
    before = sum(before, running.counts());
    await running.stop();
    running = undefined;
  }

  return {
    async apply(forwarding) {
      if (forwarding === undefined) return await stop();
      if (running?.fits(forwarding) !== true) {
        await stop();
        running = await start(parts, forwarding);
      }
      running?.setPeers(forwarding.peers);
    },
    counts: () => (running === undefined ? before : sum(before, running.counts())),
    [Symbol.asyncDispose]: stop,
  };
}

function sum(a: ForwarderCounts, b: ForwarderCounts): ForwarderCounts {
  return {
    sent: a.sent + b.sent,
    received: a.received + b.received,
    dropped: a.dropped + b.dropped,
  };
}

interface Running {
  /** Whether it can forward like this without a new start. */
  fits(forwarding: Forwarding): boolean;
  setPeers(peers: Forwarding['peers']): void;
  counts(): ForwarderCounts;
  stop(): Promise<void>;
}

/** @throws what the kernel says that gives no more threads; none of those it gave is left then */
async function start(
  { log, onFailure, open, startThread = startWorker }: ForwarderParts,
  forwarding: Forwarding,
): Promise<Running> {
  const { link, port, locals } = forwarding;
  const ports = open(forwarding);
  const { tunFd, socketFds } = ports;
  const signals = new Int32Array(new SharedArrayBuffer(signalBytes));
  const shared = { tunFd, signals: signals.buffer };
  const { port1: tell, port2: routes } = new MessageChannel();
  const ended: Promise<void>[] = [];
  let failed = false;
  let stopping = false;
  const follow = (worker: Worker): void => {
    ended.push(new Promise((resolve) => worker.once('exit', () => resolve())));
    worker.on('error', (err) => {
      if (failed || stopping) return;
      failed = true;
      log.warn({ err }, 'The UDP forwarder failed and starts again');
      onFailure();
    });
  };
  const stop = async (): Promise<void> => {
    stopping = true;
    announceStop(signals);
    await Promise.all(ended);
    tell.close();
    ports[Symbol.dispose]();
  };
  try {
    const toUdp = { ...shared, direction: 'to-udp', socketFds, remotePort: port, routes } as const;
    follow(startThread(toUdp, [routes]));
    for (const socketFd of Object.values(socketFds)) {
      follow(startThread({ ...shared, direction: 'from-udp', socketFd }));
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    fits: (other) =>
      !failed &&
      other.link === link &&
      other.port === port &&
      other.locals.length === locals.length &&
      other.locals.every((local, i) => sameAddress(local, locals[i] ?? local)),
    setPeers: (peers) => {
      const list = peers.map(({ podCIDR, remote }): ForwardingRoute => ({
        destination: podCIDR,
        remote,
      }));
      tell.postMessage(list);
      announceRoutes(signals);
    },
    counts: () => ({
      sent: Atomics.load(signals, counters.sent) >>> 0,
      received: Atomics.load(signals, counters.received) >>> 0,
      dropped: Atomics.load(signals, counters.dropped) >>> 0,
    }),
    stop,
  };
}

function openSocket(sys: Sys, local: Address, port: number): number {
  const fd = sys.socket(familyNumber(local.family), SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const set = (level: number, name: number, value: ArrayBufferLike): void =>
    sys.setsockopt({ fd, level, name, value: new Uint8Array(value) });
  try {
    if (local.family === 'ip6') set(IPPROTO_IPV6, IPV6_V6ONLY, Int32Array.of(1).buffer);
    for (const name of [SO_RCVBUFFORCE, SO_SNDBUFFORCE]) {
      set(SOL_SOCKET, name, Int32Array.of(socketBufferBytes).buffer);
    }
    // struct timeval
    set(SOL_SOCKET, SO_RCVTIMEO, BigInt64Array.of(0n, receiveTimeoutMicroseconds).buffer);
    sys.bind(fd, socketAddress(local, port));
    return fd;
  } catch (cause) {
    sys.close(fd);
    const at = `${formatAddress(local)} port ${port}`;
    throw new AgentError('BindFailed', `Cannot receive pod traffic at ${at}`, { cause });
  }
}

/** Put in by the build: the thread's program, which is a bundle of its own. */
declare const PODWIRE_UDP_WORKER: string | undefined;

function startWorker(workerData: UdpWorkerData, transferList: readonly MessagePort[] = []): Worker {
  const options = { workerData, transferList: [...transferList] };
  return typeof PODWIRE_UDP_WORKER === 'string'
    ? new Worker(PODWIRE_UDP_WORKER, { ...options, eval: true })
    : new Worker(new URL('./udp-worker.ts', import.meta.url), options);
}
