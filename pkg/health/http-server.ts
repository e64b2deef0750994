/** The small HTTP server behind /healthz and /metrics: fixed paths, GET and HEAD, text answers. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Clock } from '#pkg/clock/clock.ts';
import { formatBindAddress, type BindAddress } from './bind-address.ts';

export interface Answer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Paths and what answers them. */
export type Routes = ReadonlyMap<string, () => Answer | Promise<Answer>>;

export interface HttpServerOptions {
  readonly bind: BindAddress;
  readonly routes: Routes;
  readonly clock: Clock;
  /** Told of a listener that failed and of an answer that could not be made. */
  readonly onError: (error: unknown, doing: string) => void;
}

const retryMs = 5_000;

/**
 * Serves until the signal aborts, then resolves. A port that is taken is tried again every 5 s: the
 * process that holds it may be our own predecessor on its way out.
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
      onError(error, `Cannot serve on ${formatBindAddress(bind)}`);
      await clock.sleep(retryMs, signal).catch(() => undefined);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }
}

async function answer(
  { routes, onError }: HttpServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  try {
    const path = (request.url ?? '').split('?')[0] ?? '';
    const route = routes.get(path);
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      send(response, text(405, 'method not allowed\n', { Allow: 'GET, HEAD' }));
    } else if (route === undefined) {
      send(response, text(404, 'not found\n'));
    } else {
      send(response, await route());
    }
  } catch (error) {
    onError(error, `Cannot answer ${request.url ?? ''}`);
    if (!response.headersSent) send(response, text(500, 'internal error\n'));
  }
}

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
