/** The small HTTP server behind /healthz and /metrics: fixed paths, text answers. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { formatBindAddress, type BindAddress } from './bind-address.ts';

export interface Answer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Asked {
  readonly query: URLSearchParams;
  /** What was sent with PUT; empty for GET. */
  readonly body: string;
  /** The header Accept, if there is one. */
  readonly accept?: string;
}

/** Paths and what answers them. */
export type Routes = ReadonlyMap<string, (asked: Asked) => Answer | Promise<Answer>>;

export interface HttpServerOptions {
  readonly bind: BindAddress;
  /** For GET and HEAD. */
  readonly routes: Routes;
  readonly putRoutes?: Routes;
  readonly clock: Clock;
  /** An address that cannot be listened on is an error, and not tried again. */
  readonly hardFail?: boolean;
  /** Told of a listener that failed and of an answer that could not be made. */
  readonly onError: (error: unknown, doing: string) => void;
}

const retryMs = 5_000;
const maxBodyBytes = 4 * 1024;

/**
 * Serves until the signal aborts, then resolves. A port that is taken is tried again every 5 s: the
 * process that holds it may be our own predecessor on its way out.
 *
 * @throws {AgentError} ListenFailed with `hardFail`
 */
export async function serveHttp(options: HttpServerOptions, signal: AbortSignal): Promise<void> {
  const { bind, clock, onError } = options;
  while (!signal.aborted) {
    const server = createServer((request, response) => void answer(options, request, response));
    // Scrapers keep connections open; without this a stop would wait for them.
    const stop = (): void => server.closeAllConnections();
    signal.addEventListener('abort', stop, { once: true });
    try {
      server.listen({ host: bind.host, port: bind.port });
      await once(server, 'listening', { signal });
      await once(server, 'error', { signal }).then(([error]) => {
        throw error;
      });
    } catch (error) {
      await close(server);
      if (signal.aborted) return;
      if (options.hardFail === true) {
        const message = `Cannot listen on ${formatBindAddress(bind)}`;
        throw new AgentError('ListenFailed', message, { cause: error });
      }
      onError(error, `Cannot serve on ${formatBindAddress(bind)}`);
      await clock.sleep(retryMs, signal).catch(() => undefined);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }
}

async function answer(
  { onError, putRoutes, routes }: HttpServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  try {
    const [path = '', query = ''] = (request.url ?? '').split('?');
    const { method } = request;
    const [get, put] = [routes.get(path), putRoutes?.get(path)];
    const route = method === 'PUT' ? put : method === 'GET' || method === 'HEAD' ? get : undefined;
    if (route !== undefined) {
      const body = method === 'PUT' ? await bodyOf(request) : '';
      const { accept } = request.headers;
      const asked = { query: new URLSearchParams(query), body };
      send(response, await route(accept === undefined ? asked : { ...asked, accept }));
      return;
    }
    const allowed = [...(get === undefined ? [] : ['GET, HEAD']), ...(put ? ['PUT'] : [])];
    if (allowed.length === 0) send(response, text(404, 'not found\n'));
    else send(response, text(405, 'method not allowed\n', { Allow: allowed.join(', ') }));
  } catch (error) {
    onError(error, `Cannot answer ${request.url ?? ''}`);
    if (!response.headersSent) send(response, text(500, 'internal error\n'));
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > maxBodyBytes) throw new AgentError('TooLarge', 'Cannot read a request: too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** An answer for people. */
export function text(status: number, body: string, headers: Record<string, string> = {}): Answer {
  return { status, contentType: 'text/plain; charset=utf-8', body, headers };
}

function send(response: ServerResponse, { status, contentType, body, headers }: Answer): void {
  response.writeHead(status, {
    'Content-Type': contentType,
    'Content-Length': Buffer.byteLength(body),
    'X-Content-Type-Options': 'nosniff',
    ...headers,
  });
  response.end(body);
}

async function close(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
}
