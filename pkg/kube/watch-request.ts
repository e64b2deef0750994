/** One WATCH request from its first to its last byte. */
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { ApiError, readStatus } from './api-error.ts';
import { createLineSplitter } from './line-splitter.ts';
import { requestPath } from './list-request.ts';
import { projectMeta } from './project.ts';
import type { ResourceSpec } from './resources.ts';
import type { Transport } from './transport.ts';
import type { ObjectMeta } from './types.ts';
import { startWatchdog } from './watchdog.ts';

export type WatchEvent =
  | { readonly type: 'put'; readonly meta: ObjectMeta; readonly object: unknown }
  | { readonly type: 'remove'; readonly meta: ObjectMeta }
  | {
      readonly type: 'bookmark';
      readonly resourceVersion: string;
      /** All that existed when the watch began has been sent (KEP-3157). */
      readonly initialEventsEnd: boolean;
    };

export interface WatchSource {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: () => number;
  readonly resource: ResourceSpec;
  /** A watch from which nothing arrives for this long has failed. */
  readonly idleMs: number;
  /** A throw ends the watch and becomes its error. */
  onEvent(event: WatchEvent): void;
  onBytes(): void;
  /** The server has accepted the watch. */
  onOpen?(): void;
}

/** How a watch went, filled while it runs, so that it also tells of one that failed. */
export interface WatchProgress {
  /** When the server accepted it; undefined = it has not. */
  openedAtMs: number | undefined;
  bytes: number;
  events: number;
  bookmarks: number;
}

/** The server is asked to end a watch after 5 to 10 minutes, so that load spreads over servers. */
const minTimeoutSeconds = 300;
const overdueMarginMs = 30_000;

/**
 * Watches until the server ends the stream normally, then resolves. With `initial`, what exists is
 * sent first, then a bookmark marks its end; otherwise events follow `resourceVersion`. Rejects
 * with ApiError for a refusal or an ERROR event, and for lines that cannot be read.
 */
export async function watchOnce(
  source: WatchSource,
  from: { readonly initial: boolean; readonly resourceVersion: string | undefined },
  progress: WatchProgress,
  signal: AbortSignal,
): Promise<void> {
  const { clock } = source;
  const timeoutSeconds = Math.floor(minTimeoutSeconds * (1 + source.random()));
  using watchdog = startWatchdog(
    clock,
    { idleMs: source.idleMs, overdueMs: timeoutSeconds * 1000 + overdueMarginMs },
    signal,
  );
  const path = requestPath(source.resource, {
    watch: 'true',
    allowWatchBookmarks: 'true',
    timeoutSeconds: String(timeoutSeconds),
    ...(from.initial ? { sendInitialEvents: 'true', resourceVersionMatch: 'NotOlderThan' } : {}),
    ...(from.resourceVersion === undefined ? {} : { resourceVersion: from.resourceVersion }),
  });
  const lines = createLineSplitter((line) => {
    // A list+watch that was stopped in the middle of a chunk must not see the rest of it.
    watchdog.signal.throwIfAborted();
    const event = readEvent(line, source.resource);
    if (event.type === 'bookmark') progress.bookmarks += 1;
    else progress.events += 1;
    source.onEvent(event);
  });
  const onOpen = (): void => {
    progress.openedAtMs = clock.monotonicMs();
    watchdog.feed();
    source.onOpen?.();
  };
  await source.transport.stream(path, { signal: watchdog.signal, onOpen }, (chunk) => {
    progress.bytes += chunk.length;
    watchdog.feed();
    source.onBytes();
    lines.write(chunk);
  });
  lines.finish();
}

function readEvent(line: string, resource: ResourceSpec): WatchEvent {
  const { type, object } = parseLine(line, resource);
  switch (type) {
    case 'ADDED':
    case 'MODIFIED':
    case 'DELETED': {
      const meta = projectMeta(object, (text) => text);
      if (meta === undefined || meta.resourceVersion === '') {
        throw unreadable(resource, `a ${type} object must have a name and a resourceVersion`);
      }
      return type === 'DELETED' ? { type: 'remove', meta } : { type: 'put', meta, object };
    }
    case 'BOOKMARK':
      return readBookmark(object, resource);
    case 'ERROR':
      throw new ApiError(`watch ${resource.type.plural}`, readStatus(200, object));
    default:
      throw unreadable(resource, `the type "${String(type)}" is unknown`);
  }
}

function parseLine(line: string, resource: ResourceSpec): { type: unknown; object: unknown } {
  let event: unknown;
  try {
    event = JSON.parse(line);
  } catch (error) {
    throw unreadable(resource, 'it is not JSON', error);
  }
  if (typeof event !== 'object' || event === null) throw unreadable(resource, 'it is no object');
  return {
    type: 'type' in event ? event.type : undefined,
    object: 'object' in event ? event.object : undefined,
  };
}

/** A bookmark's object has no name, only a version and, once, an annotation. */
function readBookmark(object: unknown, resource: ResourceSpec): WatchEvent {
  const metadata = (object as BookmarkObject | null | undefined)?.metadata;
  const resourceVersion = metadata?.resourceVersion;
  if (typeof resourceVersion !== 'string' || resourceVersion === '') {
    throw unreadable(resource, 'a BOOKMARK must have a resourceVersion');
  }
  const initialEventsEnd = metadata?.annotations?.['k8s.io/initial-events-end'] === 'true';
  return { type: 'bookmark', resourceVersion, initialEventsEnd };
}

interface BookmarkObject {
  readonly metadata?: {
    readonly resourceVersion?: unknown;
    readonly annotations?: Readonly<Record<string, unknown>>;
  };
}

function unreadable(resource: ResourceSpec, state: string, cause?: unknown): AgentError {
  return new AgentError(
    'UnreadableEvent',
    `Cannot read an event of ${resource.type.plural}: ${state}`,
    { cause },
  );
}
