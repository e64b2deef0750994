/** Every request: who asks, what for, whether they may, and the answer or the refusal. */
import { ApiError, pathNotFound } from '#pkg/embedded-api/api-error.ts';
import { messageOf } from '#pkg/errors/agent-error.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { authenticate, authorize, verbOf, type TokenGrant } from './authentication.ts';
import { aggregatedDiscovery, discoveryDocument, versionInfo } from './discovery.ts';
import { Exchange, type HttpRequest, type HttpResponse } from './exchange.ts';
import { openApiDocument } from './openapi.ts';
import { answerResource, isWatchRequest } from './resource-requests.ts';
import { parseTarget } from './target.ts';
import type { WatchSettings } from './watch-response.ts';

/** What a test makes of a request instead of answering it. */
export type Fault =
  /** Refuse with this error. */
  | { readonly kind: 'refuse'; readonly error: ApiError }
  /** Take the request and never answer. */
  | { readonly kind: 'hang' }
  /** Cut the connection (HTTP/2: reset the stream). */
  | { readonly kind: 'cut' };

/** A request as a fault rule sees it. */
export interface FaultRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
}

export interface RouterSettings extends WatchSettings {
  readonly log: Logger;
  /** Read for each request, so that tokens can change under a running server. */
  readonly tokens: readonly TokenGrant[];
  /** Asked before each request is looked at; undefined = answer it. */
  readonly fault: ((request: FaultRequest) => Fault | undefined) | undefined;
}

/** Answers one request. Never rejects: what goes wrong is answered, and logged when it is ours. */
export async function answerRequest(
  request: HttpRequest,
  response: HttpResponse,
  settings: RouterSettings,
): Promise<void> {
  const exchange = new Exchange(request, response);
  try {
    const fault = settings.fault?.(exchange);
    if (fault === undefined) await route(exchange, settings);
    else commit(fault, exchange);
  } catch (error) {
    if (error instanceof ApiError) {
      exchange.sendError(error);
      return;
    }
    if (exchange.ended.aborted) return;
    settings.log.error({ err: error, path: exchange.path }, 'request failed');
    const message = messageOf(error);
    exchange.sendError(new ApiError({ httpCode: 500, reason: 'InternalError', message }));
  }
}

function commit(fault: Fault, exchange: Exchange): void {
  if (fault.kind === 'refuse') throw fault.error;
  if (fault.kind === 'cut') exchange.cut();
}

/** Open to all, as the real server's system:public-info-viewer. */
const healthPaths = new Set(['/healthz', '/livez', '/readyz']);

async function route(exchange: Exchange, settings: RouterSettings): Promise<void> {
  const { path } = exchange;
  if (healthPaths.has(path)) return exchange.sendText(200, 'ok');
  if (path === '/version') return exchange.sendJson(200, versionInfo);
  const grant = authenticate(exchange.header('authorization'), settings.tokens);
  const target = parseTarget(path, settings.core.kinds);
  if (target !== undefined) {
    const verb = verbOf(exchange.method, target, isWatchRequest(exchange, target));
    authorize(grant, { verb, target });
    return answerResource({ exchange, target, settings });
  }
  return answerDocument(exchange, settings);
}

/** Discovery and OpenAPI. */
function answerDocument(exchange: Exchange, { core }: RouterSettings): void {
  const { path } = exchange;
  if (exchange.header('accept').includes(aggregatedType)) {
    const aggregated = aggregatedDiscovery(path, core.kinds);
    // The client tells the two forms of discovery apart by this type.
    if (aggregated !== undefined) return exchange.sendJson(200, aggregated, aggregatedType);
  }
  const document = discoveryDocument(path, core.kinds) ?? openApiDocument(path, core.kinds);
  if (document === undefined) throw pathNotFound();
  return exchange.sendJson(200, document);
}

const aggregatedType = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList';
