/**
 * The program in every pod of the demo, and beside every node: a server that answers "<own name>
 * <address the client came from> <what was sent>" over TCP and UDP, IPv4 and IPv6, and a client
 * that others make calls with, through a socket in the file system, which no namespace hides.
 */
import { createSocket } from 'node:dgram';
import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import { call } from './call.ts';
import type { AgentRequest, CallOutcome } from './agent-protocol.ts';
import { readLines } from './lines.ts';
import { stream } from './stream.ts';

export interface AgentOptions {
  readonly name: string;
  /** Path of the socket that takes requests. */
  readonly control: string;
  /** TCP and UDP port to answer on; none when undefined. */
  readonly port: number | undefined;
}

/** Serves until `signal` aborts. */
export async function runAgent(options: AgentOptions, signal: AbortSignal): Promise<void> {
  const servers: { close(): unknown }[] = [];
  if (options.port !== undefined) {
    servers.push(await serveTcp(options.name, options.port));
    servers.push(await serveUdp(options.name, options.port));
  }
  servers.push(await serveControl(options.control));
  if (!signal.aborted) await once(signal, 'abort');
  for (const server of servers) server.close();
}

async function serveTcp(name: string, port: number): Promise<Server> {
  const server = createServer((socket) => {
    const peer = plainAddress(socket.remoteAddress ?? '');
    // A client that resets its connection is no failure of this server.
    socket.on('error', () => socket.destroy());
    readLines(socket, (line) => socket.write(`${name} ${peer} ${line}\n`));
  });
  server.listen({ host: '::', port, ipv6Only: false });
  await once(server, 'listening');
  return server;
}

async function serveUdp(name: string, port: number): Promise<{ close(): unknown }> {
  const socket = createSocket({ type: 'udp6', ipv6Only: false });
  socket.on('message', (data, peer) => {
    socket.send(
      `${name} ${plainAddress(peer.address)} ${data.toString()}`,
      peer.port,
      peer.address,
      () => {
        // The client may be gone, its port answered with an error: nothing to do about it.
      },
    );
  });
  socket.on('error', () => undefined);
  socket.bind({ address: '::', port });
  await once(socket, 'listening');
  return socket;
}

/** A dual-stack socket shows IPv4 peers as ::ffff:10.0.0.1. */
function plainAddress(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/, '');
}

async function serveControl(path: string): Promise<Server> {
  rmSync(path, { force: true });
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    let asked = false;
    readLines(socket, (line) => {
      if (!asked) void answer(socket, line);
      asked = true;
    });
  });
  server.listen(path);
  await once(server, 'listening');
  return server;
}

/** One request a connection. A stream runs until its asker has nothing more to say. */
async function answer(socket: Socket, line: string): Promise<void> {
  const request = JSON.parse(line) as AgentRequest;
  if (request.op === 'call') {
    const outcome: CallOutcome = await call(request);
    socket.end(`${JSON.stringify(outcome)}\n`);
    return;
  }
  const enough = new AbortController();
  socket.once('end', () => enough.abort());
  socket.once('close', () => enough.abort());
  const outcome = await stream(request, enough.signal, () => socket.write('started\n'));
  socket.end(`${JSON.stringify(outcome)}\n`);
}
