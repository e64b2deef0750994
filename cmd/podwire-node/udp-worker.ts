/** A thread of the daemon that carries packets in one direction (pkg/udp-forwarder). */
import { workerData, type MessagePort } from 'node:worker_threads';
import type { Family } from '#pkg/ip/address.ts';
import { openDatagramSys } from '#pkg/sys/datagram-sys.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { carryFromUdp, carryToUdp } from '#pkg/udp-forwarder/carry.ts';

export type UdpWorkerData = {
  readonly tunFd: number;
  readonly signals: SharedArrayBuffer;
} & (
  | {
      readonly direction: 'to-udp';
      readonly socketFds: Readonly<Partial<Record<Family, number>>>;
      readonly remotePort: number;
      readonly routes: MessagePort;
    }
  | { readonly direction: 'from-udp'; readonly socketFd: number }
);

async function main(data: UdpWorkerData): Promise<void> {
  const sys = await openSys();
  const datagrams = openDatagramSys();
  const signals = new Int32Array(data.signals);
  if (data.direction === 'to-udp') carryToUdp(sys, datagrams, { ...data, signals });
  else carryFromUdp(datagrams, { ...data, signals });
}

// A rejection is the "error" event of this thread.
void main(workerData as UdpWorkerData);
