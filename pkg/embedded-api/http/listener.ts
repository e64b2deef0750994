/** Where the server listens: HTTP/1.1 in plain text, HTTP/1.1 and HTTP/2 over TLS. */
import { createServer, type Server } from 'node:http';
import { createSecureServer, type Http2SecureServer, type Http2Session } from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { HttpRequest, HttpResponse } from './exchange.ts';

/** An address to bind, or a socket that is bound already (in another namespace, say). */
export type ListenOn =
  | { readonly host: string; readonly port: number }
  /** The listener takes the descriptor over and closes it with itself. */
  | { readonly fd: number };

/** PEM text. */
export interface TlsIdentity {
  readonly key: string;
  readonly cert: string;
}

export type RequestListener = (request: HttpRequest, response: HttpResponse) => void;

/** A listening server; disposing it cuts every connection. */
export class Listener implements AsyncDisposable {
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly #server: Http2SecureServer | Server;
  readonly #sockets: ReadonlySet<Socket>;
  readonly #sessions: ReadonlySet<Http2Session>;

  private constructor(
    server: Http2SecureServer | Server,
    connections: { readonly sockets: Set<Socket>; readonly sessions: Set<Http2Session> },
    isTls: boolean,
  ) {
    const { address, port, family } = server.address() as AddressInfo;
    this.host = reachable(address);
    this.port = port;
    this.url = `${isTls ? 'https' : 'http'}://${family === 'IPv6' ? `[${this.host}]` : this.host}:${port}`;
    this.#server = server;
    this.#sockets = connections.sockets;
    this.#sessions = connections.sessions;
  }

  /**
   * Begins to listen.
   *
   * @throws {AgentError} CannotListen, with the errno as its cause
   */
  static async open(
    on: ListenOn,
    tls: TlsIdentity | undefined,
    answer: RequestListener,
  ): Promise<Listener> {
    const sockets = new Set<Socket>();
    const sessions = new Set<Http2Session>();
    const server =
      tls === undefined
        ? createServer(answer)
        : createSecureServer({ ...tls, ...http2Options }, answer);
    server.on('connection', (socket: Socket) => track(sockets, socket));
    if (tls !== undefined) {
      server.on('session', (session: Http2Session) => track(sessions, session));
      // A client that does not trust us, or no TLS at all: its problem, and no end of ours.
      server.on('tlsClientError', () => undefined);
      server.on('sessionError', () => undefined);
    }
    server.on('clientError', (_error: Error, socket: Socket) => socket.destroy());
    await listen(server, on);
    return new Listener(server, { sockets, sessions }, tls !== undefined);
  }

  /** Cuts every connection and goes on listening. */
  disconnectAll(): void {
    for (const session of this.#sessions) session.destroy();
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    this.disconnectAll();
    await closed;
  }
}

/**
 * One session carries all watches of a client: what these keep for a slow reader (16 MiB each)
 * must not make Node refuse new streams, as its 10 MB default would.
 */
const http2Options = { allowHTTP1: true, maxSessionMemory: 256 };

function track<T extends Http2Session | Socket>(set: Set<T>, connection: T): void {
  set.add(connection);
  connection.on('close', () => set.delete(connection));
  connection.on('error', () => undefined);
}

function listen(server: Http2SecureServer | Server, on: ListenOn): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (cause: Error): void => {
      const where = 'fd' in on ? `descriptor ${on.fd}` : `${on.host} port ${on.port}`;
      const message = `Cannot listen on ${where}: ${cause.message}`;
      reject(new AgentError('CannotListen', message, { cause, details: on }));
    };
    server.once('error', fail);
    server.listen('fd' in on ? { fd: on.fd } : { host: on.host, port: on.port }, () => {
      server.off('error', fail);
      resolve();
    });
  });
}

/** An address a client can use: a wildcard is reached at loopback. */
function reachable(address: string): string {
  if (address === '0.0.0.0') return '127.0.0.1';
  return address === '::' ? '::1' : address;
}
