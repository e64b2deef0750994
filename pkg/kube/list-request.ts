/** One complete LIST of a resource, cut into items as it arrives. */
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { isApiStatus } from './api-error.ts';
import { createItemSplitter } from './item-splitter.ts';
import { collectionPath, type ResourceSpec } from './resources.ts';
import type { Transport } from './transport.ts';
import { startWatchdog } from './watchdog.ts';

export interface ListSource {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly resource: ResourceSpec;
  /** A list from which nothing arrives for this long has failed. */
  readonly idleMs: number;
  onItem(item: unknown): void;
  /** All items so far are void: the list starts anew. */
  onRestart(): void;
  onBytes(): void;
}

/** Only for lists without a version: servers ignore `limit` beside resourceVersion=0. */
const pageLimit = 500;

/**
 * Lists everything not older than `resourceVersion` and resolves to the version of the whole, from
 * which a watch continues. "0" = anything the server has in its cache, which costs etcd nothing.
 * Undefined = the newest there is, a quorum read, in pages.
 */
export async function listAll(
  source: ListSource,
  resourceVersion: string | undefined,
  signal: AbortSignal,
): Promise<string> {
  if (resourceVersion !== undefined) {
    return (await listPage(source, versionQuery(resourceVersion), signal)).resourceVersion;
  }
  try {
    return await listPages(source, signal);
  } catch (error) {
    // The continue token outlived the server's memory: the pages cannot be completed.
    if (!isApiStatus(error, 410)) throw error;
    source.onRestart();
    return (await listPage(source, {}, signal)).resourceVersion;
  }
}

async function listPages(source: ListSource, signal: AbortSignal): Promise<string> {
  let query: Record<string, string> = { limit: String(pageLimit) };
  for (;;) {
    const page = await listPage(source, query, signal);
    if (page.continue === '') return page.resourceVersion;
    query = { limit: String(pageLimit), continue: page.continue };
  }
}

function versionQuery(resourceVersion: string): Record<string, string> {
  return resourceVersion === '0'
    ? { resourceVersion }
    : { resourceVersion, resourceVersionMatch: 'NotOlderThan' };
}

async function listPage(
  source: ListSource,
  query: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<{ readonly resourceVersion: string; readonly continue: string }> {
  using watchdog = startWatchdog(
    source.clock,
    { idleMs: source.idleMs, overdueMs: undefined },
    signal,
  );
  const splitter = createItemSplitter((item) => source.onItem(item));
  const path = requestPath(source.resource, query);
  await source.transport.stream(path, { signal: watchdog.signal, compress: true }, (chunk) => {
    watchdog.feed();
    source.onBytes();
    splitter.write(chunk);
  });
  return readListMeta(splitter.finish(), source.resource);
}

function readListMeta(
  list: Readonly<Record<string, unknown>>,
  resource: ResourceSpec,
): { readonly resourceVersion: string; readonly continue: string } {
  const meta: object =
    typeof list['metadata'] === 'object' && list['metadata'] !== null ? list['metadata'] : {};
  const resourceVersion = 'resourceVersion' in meta ? meta.resourceVersion : undefined;
  if (typeof resourceVersion !== 'string' || resourceVersion === '') {
    throw new AgentError(
      'MalformedList',
      `Cannot list ${resource.type.plural}: metadata.resourceVersion must be a non-empty string`,
    );
  }
  const next = 'continue' in meta ? meta.continue : '';
  return { resourceVersion, continue: typeof next === 'string' ? next : '' };
}

/** Path of a list or watch with its selectors and the query of this request. */
export function requestPath(
  resource: ResourceSpec,
  query: Readonly<Record<string, string>>,
): string {
  const all = new URLSearchParams({
    ...(resource.labelSelector === undefined ? {} : { labelSelector: resource.labelSelector }),
    ...(resource.fieldSelector === undefined ? {} : { fieldSelector: resource.fieldSelector }),
    ...query,
  });
  const path = collectionPath(resource.type, resource.namespace);
  return all.size === 0 ? path : `${path}?${all.toString()}`;
}
