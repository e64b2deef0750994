/** The thread of scratch-prober.ts: one request at a time enters a namespace, to open its socket there. */
import { connect, type Socket } from 'node:net';
import { parentPort } from 'node:worker_threads';
import { openNetns, openOwnNetns } from '#pkg/netns/netns.ts';
import { CLONE_NEWNET } from '#pkg/sys/constants.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { ProbeRequest, ProbeResult } from './scratch-prober.ts';

const sys = await openSys();
let opening: Promise<unknown> = Promise.resolve();

parentPort?.on('message', (request: ProbeRequest) => {
  opening = opening
    .then(() => openSocket(request))
    .then(
      (socket) => watch(socket, request),
      (error: unknown) => answer(request, String(error)),
    );
});

async function openSocket({ netns, host, port }: ProbeRequest): Promise<Socket> {
  using home = openOwnNetns();
  using there = openNetns(netns);
  sys.setns(there.fd, CLONE_NEWNET);
  try {
    const socket = connect({ host, port });
    socket.on('error', () => undefined);
    // Node asks the kernel for the socket in the next tick.
    await new Promise(setImmediate);
    return socket;
  } finally {
    sys.setns(home.fd, CLONE_NEWNET);
  }
}

function watch(socket: Socket, request: ProbeRequest): void {
  const done = (outcome: string): void => {
    clearTimeout(timer);
    socket.destroy();
    answer(request, outcome);
  };
  const timer = setTimeout(() => done('TIMEOUT'), request.timeoutMs);
  if (socket.errored !== null) done(codeOf(socket.errored));
  socket.once('connect', () => done('CONNECTED'));
  socket.once('error', (error) => done(codeOf(error)));
}

function codeOf(error: Error): string {
  return 'code' in error ? String(error.code) : error.message;
}

const answered = new Set<number>();

function answer({ id }: ProbeRequest, outcome: string): void {
  if (answered.has(id)) return;
  answered.add(id);
  parentPort?.postMessage({ id, outcome } satisfies ProbeResult);
}
