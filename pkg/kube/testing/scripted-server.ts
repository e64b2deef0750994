/** An HTTP server whose answers a test gives one by one, in HTTP/1.1 or HTTP/2. */
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { ServerIdentity } from './certificates.ts';

/** A request that waits for its answer. */
export interface Exchange {
  readonly method: string;
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** The request's body, as text. */
  body(): Promise<string>;
  /** The whole answer at once. */
  json(status: number, body: unknown, headers?: Readonly<Record<string, string>>): void;
  /** Accepts a watch: its head goes out, the body stays open. */
  open(headers?: Readonly<Record<string, string>>): void;
  /** One event of an accepted watch. */
  event(type: string, object: unknown): void;
  /** Any bytes of an accepted watch. */
  raw(text: string | Buffer): void;
  /** The normal end of an accepted watch. */
  end(): void;
  /** Cuts the connection in the middle. */
  cut(): void;
  /** Whether the client has gone away. */
  readonly closed: boolean;
}

export interface ScriptedServer extends AsyncDisposable {
  readonly port: number;
  readonly url: string;
  /** The next request, in order of arrival; waits for it. */
  next(): Promise<Exchange>;
  /** Requests that have arrived and were not taken by next(). */
  readonly waiting: number;
  /** TCP connections accepted so far. */
  readonly connections: number;
  /** HTTP/2 PINGs answered so far. */
  readonly pings: number;
  /** Sends GOAWAY on every HTTP/2 session. */
  goaway(): void;
}

/** Without an identity plain HTTP/1.1; with one TLS, and HTTP/2 unless `h1`. */
export async function startScriptedServer(
  identity?: ServerIdentity,
  protocol: 'h1' | 'h2' = 'h2',
): Promise<ScriptedServer> {
  const arrived: Exchange[] = [];
  const takers: ((exchange: Exchange) => void)[] = [];
  const sockets = new Set<Socket>();
  const sessions = new Set<http2.ServerHttp2Session>();
  let connections = 0;
  let pings = 0;

  const onRequest = (request: http.IncomingMessage, response: http.ServerResponse): void => {
    const exchange = createExchange(request, response);
    const taker = takers.shift();
    if (taker === undefined) arrived.push(exchange);
    else taker(exchange);
  };
  const server = createServer(identity, protocol, onRequest);
  server.on('connection', (socket: Socket) => {
    connections += 1;
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
  });
  server.on('session', (session: http2.ServerHttp2Session) => {
    sessions.add(session);
    session.once('close', () => sessions.delete(session));
    session.on('error', () => undefined);
    session.on('ping', () => (pings += 1));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;

  return {
    port,
    url: `${identity === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    next: () => {
      const exchange = arrived.shift();
      if (exchange !== undefined) return Promise.resolve(exchange);
      return new Promise((resolve) => takers.push(resolve));
    },
    get waiting() {
      return arrived.length;
    },
    get connections() {
      return connections;
    },
    get pings() {
      return pings;
    },
    goaway: () => {
      for (const session of sessions) session.goaway();
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

type Listener = (request: http.IncomingMessage, response: http.ServerResponse) => void;

function createServer(
  identity: ServerIdentity | undefined,
  protocol: 'h1' | 'h2',
  onRequest: Listener,
): http.Server | http2.Http2SecureServer {
  if (identity === undefined) return http.createServer(onRequest);
  if (protocol === 'h1') return https.createServer({ ...identity }, onRequest);
  // The compatibility API: the same calls for both protocols, if not the same types.
  return http2.createSecureServer({ ...identity }, onRequest as never);
}

function createExchange(request: http.IncomingMessage, response: http.ServerResponse): Exchange {
  const url = new URL(request.url ?? '/', 'http://server');
  const chunks: Buffer[] = [];
  const whole = new Promise<string>((resolve) => {
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => resolve(Buffer.concat(chunks).toString('utf8')));
  });
  const write = (text: string | Buffer): void => void response.write(text);
  let closed = false;
  response.once('close', () => {
    closed = true;
  });
  response.on('error', () => undefined);
  request.on('error', () => undefined);
  return {
    method: request.method ?? '',
    path: url.pathname,
    query: Object.fromEntries(url.searchParams),
    headers: request.headers,
    body: () => whole,
    json: (status, body, headers = {}) => {
      response.writeHead(status, { 'content-type': 'application/json', ...headers });
      response.end(JSON.stringify(body));
    },
    open: (headers = {}) => {
      response.writeHead(200, { 'content-type': 'application/json', ...headers });
      response.flushHeaders();
    },
    event: (type, object) => write(`${JSON.stringify({ type, object })}\n`),
    raw: write,
    end: () => void response.end(),
    cut: () => {
      const { stream } = request as unknown as { stream?: http2.ServerHttp2Stream };
      if (stream === undefined) request.socket.destroy();
      else stream.session?.destroy();
    },
    get closed() {
      return closed;
    },
  };
}
