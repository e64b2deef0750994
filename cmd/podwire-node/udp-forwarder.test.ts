import { EventEmitter } from 'node:events';
import type { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { announceStop, signalBytes } from '#pkg/udp-forwarder/carry.ts';
import { createUdpForwarder, type ForwardingPorts } from './udp-forwarder.ts';

const told = new Int32Array(new SharedArrayBuffer(signalBytes));
announceStop(told);
const stopIndex = told.indexOf(1);

it('holds nothing when the kernel gives too few threads, and starts when it gives enough', async () => {
  const open = new Set<ForwardingPorts>();
  const threads: EventEmitter[] = [];
  let mayStart = 1;
  await using forwarder = createUdpForwarder({
    open: () => {
      const ports: ForwardingPorts = {
        tunFd: -1,
        socketFds: { ip: -1 },
        [Symbol.dispose]: () => void open.delete(ports),
      };
      open.add(ports);
      return ports;
    },
    log: silentLogger,
    onFailure: () => undefined,
    startThread: ({ signals }) => {
      // As node:worker_threads does, at once and not as an event.
      if (threads.length >= mayStart) throw new Error('EAGAIN');
      const thread = new EventEmitter();
      threads.push(thread);
      // What is told to end has a last word, as of a device that is gone.
      const timer = setInterval(() => {
        if (new Int32Array(signals)[stopIndex] === 0) return;
        clearInterval(timer);
        thread.emit('error', new Error('the device is gone'));
        thread.emit('exit', 1);
      }, 1);
      return thread as Worker;
    },
  });
  const forwarding = {
    link: 'podwire.udp',
    port: 8285,
    locals: [parseAddress('192.0.2.1')],
    peers: [],
  };
  await expect(forwarder.apply(forwarding)).rejects.toThrow('EAGAIN');
  expect(open.size).toBe(0);
  mayStart = 3;
  await forwarder.apply(forwarding);
  expect([open.size, threads.length]).toEqual([1, 3]);
  await forwarder.apply(undefined);
  expect(open.size).toBe(0);
});
