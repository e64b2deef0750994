import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import type { DatagramSys } from '#pkg/sys/datagram-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { announceRoutes, announceStop, carryToUdp, counters, signalBytes } from './carry.ts';

const routes = [{ destination: parsePrefix('10.244.2.0/24'), remote: parseAddress('192.168.1.2') }];

/** An IPv4 header to 10.244.2.7 and nothing else. */
function packet(): Uint8Array {
  const bytes = new Uint8Array(20);
  bytes.set([0x45]);
  bytes.set([10, 244, 2, 7], 16);
  return bytes;
}

const none = (): never => {
  throw new Error('not expected here');
};

/** Carries what `read` hands out, until it has told the thread to stop. */
function carry(read: (buffer: Uint8Array, signals: Int32Array) => number) {
  const signals = new Int32Array(new SharedArrayBuffer(signalBytes));
  const { port1: tell, port2 } = new MessageChannel();
  const sent: string[] = [];
  const datagrams = {
    ioctl: none,
    write: none,
    recvfrom: none,
    read: (_: number, buffer: Uint8Array) => read(buffer, signals),
    sendto: (fd: number, ...[, , address]: [Uint8Array, number, Uint8Array]) =>
      sent.push(`${fd} ${address.subarray(4, 8).join('.')}`) > 0,
  } satisfies DatagramSys;
  const tellRoutes = (): void => {
    tell.postMessage(routes);
    announceRoutes(signals);
  };
  return {
    tellRoutes,
    run: () => {
      const sys = { poll: () => 0 } as unknown as Sys;
      const options = { tunFd: 3, socketFds: { ip: 4 }, remotePort: 8285, routes: port2, signals };
      carryToUdp(sys, datagrams, options);
      const left = receiveMessageOnPort(port2);
      tell.close();
      return { sent, left, dropped: signals[counters.dropped] };
    },
  };
}

test('routes are taken over before the packet that comes after them', () => {
  let reads = 0;
  const thread = carry((buffer, signals) => {
    reads += 1;
    if (reads === 2) thread.tellRoutes();
    if (reads === 2) announceStop(signals);
    buffer.set(packet());
    return 20;
  });
  expect(thread.run()).toEqual({ sent: ['4 192.168.1.2'], left: undefined, dropped: 1 });
});

test('a thread without packets takes them over too: they would pile up', () => {
  let reads = 0;
  const thread = carry((_, signals) => {
    reads += 1;
    if (reads < 5) thread.tellRoutes();
    else announceStop(signals);
    return -1;
  });
  expect(thread.run()).toEqual({ sent: [], left: undefined, dropped: 0 });
});
