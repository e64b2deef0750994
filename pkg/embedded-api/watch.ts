/** Watches: the changes of a selection, from now, from a revision, or after the whole state. */
import { badRequest, invalid, type ApiError } from './api-error.ts';
import { asVersion } from './draft.ts';
import type { JsonObject } from './json.ts';
import { apiVersionOf, resourceOf, type KindInfo } from './kinds.ts';
import { readRevision, type Selection } from './list.ts';
import { withMeta, type KubeObject } from './object.ts';
import type { Snapshot, Storage } from './storage.ts';
import type { Change } from './watch-log.ts';

/** One line of a watch. */
export type WatchEvent =
  | { readonly type: 'ADDED' | 'DELETED' | 'MODIFIED'; readonly object: KubeObject }
  | { readonly type: 'BOOKMARK'; readonly object: JsonObject }
  | { readonly type: 'ERROR'; readonly object: JsonObject };

/** Where a watch begins. `state` sends every object there is as ADDED first. */
export type WatchStart =
  | { readonly at: 'now' }
  | { readonly at: 'revision'; readonly revision: number }
  | { readonly at: 'state' };

export interface WatchRequest {
  readonly start: WatchStart;
  /** Ends the state with a bookmark that says so (`sendInitialEvents`). */
  readonly marksStateEnd: boolean;
  readonly allowBookmarks: boolean;
  /** Seconds after which the server ends the watch; undefined = the server's choice. */
  readonly timeoutSeconds: number | undefined;
}

/** The annotation of the bookmark that ends the state (KEP-3157). */
const stateEndAnnotation = 'k8s.io/initial-events-end';

/** A watch that has begun. */
export interface Watch {
  /** What comes before the first live change; immutable, to be read at the reader's pace. */
  readonly before: Iterable<WatchEvent>;
  /** Ends the live changes. */
  close(): void;
}

/**
 * Begins a watch: nothing is missed or repeated between `before` and the first change that is
 * given to `send`, which is called as changes are committed and must not throw.
 *
 * @throws {ApiError} Expired when the revision to begin at is compacted
 */
export function openWatch(
  storage: Storage,
  selection: Selection,
  request: WatchRequest,
  send: (event: WatchEvent) => void,
): Watch {
  const { start } = request;
  const toNewEvent = (change: Change): WatchEvent | undefined => {
    // A revision may be one still to come, as after a restart that lost the last writes.
    const isOld = start.at === 'revision' && change.revision <= start.revision;
    return isOld ? undefined : toEvent(selection, change);
  };
  const before = eventsBefore(storage, selection, request);
  const close = storage.subscribe((change) => {
    const event = toNewEvent(change);
    if (event !== undefined) send(event);
  });
  return { before, close };
}

function eventsBefore(
  storage: Storage,
  selection: Selection,
  request: WatchRequest,
): Iterable<WatchEvent> {
  const { start, marksStateEnd, allowBookmarks } = request;
  if (start.at === 'now') return [];
  if (start.at === 'revision') {
    const changes = storage.changesSince(start.revision);
    return changes
      .map((change) => toEvent(selection, change))
      .filter((event) => event !== undefined);
  }
  const prefix = selection.namespace === '' ? '' : `${selection.namespace}/`;
  const snapshot = storage.snapshot(resourceOf(selection.kind), prefix);
  return stateEvents(selection, snapshot, marksStateEnd && allowBookmarks);
}

/** A bookmark: all changes up to `revision` were sent. */
export function bookmark(kind: KindInfo, revision: number, metadata: JsonObject = {}): WatchEvent {
  const object = {
    kind: kind.kind,
    apiVersion: apiVersionOf(kind),
    metadata: { resourceVersion: String(revision), ...metadata },
  };
  return { type: 'BOOKMARK', object };
}

/**
 * The watch parameters of a query.
 *
 * @throws {ApiError} BadRequest, Invalid
 */
export function readWatchRequest(query: URLSearchParams): WatchRequest {
  const initial = query.get('sendInitialEvents');
  const version = query.get('resourceVersion') ?? '';
  const match = query.get('resourceVersionMatch') ?? '';
  const revision = readRevision(version);
  const timeout = query.get('timeoutSeconds');
  const timeoutSeconds = timeout === null ? undefined : Number(timeout);
  if (timeoutSeconds !== undefined && !(timeoutSeconds >= 0)) {
    throw badRequest('timeoutSeconds: expected a number');
  }
  if (initial !== null && match !== 'NotOlderThan') {
    throw refuse(
      'resourceVersionMatch',
      'Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan',
    );
  }
  if (initial === null && match !== '') {
    throw refuse(
      'resourceVersionMatch',
      'Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided',
    );
  }
  const wantsState = isTrue(initial) || (initial === null && revision === 0);
  const resumed: WatchStart = revision === 0 ? { at: 'now' } : { at: 'revision', revision };
  return {
    start: wantsState ? { at: 'state' } : resumed,
    marksStateEnd: isTrue(initial),
    allowBookmarks: isTrue(query.get('allowWatchBookmarks')),
    timeoutSeconds: timeoutSeconds === 0 ? undefined : timeoutSeconds,
  };
}

/** A boolean query parameter as Go reads it: present without a value is true. */
export function isTrue(value: string | null): boolean {
  return value !== null && value !== 'false' && value !== '0';
}

function* stateEvents(
  selection: Selection,
  snapshot: Snapshot,
  marksEnd: boolean,
): Iterable<WatchEvent> {
  for (const [, object] of snapshot.entries) {
    if (!selection.selector(object)) continue;
    yield { type: 'ADDED', object: asVersion(object, selection.kind) };
  }
  if (!marksEnd) return;
  const annotations = { [stateEndAnnotation]: 'true' };
  yield bookmark(selection.kind, snapshot.revision, { annotations });
}

/** What a change is to the selection: objects enter and leave it by changing, too. */
function toEvent(selection: Selection, change: Change): WatchEvent | undefined {
  const { kind, namespace, selector } = selection;
  if (change.resource !== resourceOf(kind)) return undefined;
  if (namespace !== '' && change.object.metadata.namespace !== namespace) return undefined;
  const was = change.previous !== undefined && selector(change.previous);
  const is = change.type !== 'DELETED' && selector(change.object);
  if (is) return { type: was ? 'MODIFIED' : 'ADDED', object: asVersion(change.object, kind) };
  if (!was || change.previous === undefined) return undefined;
  // Who selects sees the last state it knew, at the revision of the change that ended it.
  const gone = withMeta(change.previous, { resourceVersion: String(change.revision) });
  return { type: 'DELETED', object: asVersion(gone, kind) };
}

function refuse(field: string, message: string): ApiError {
  const subject = { group: 'meta.k8s.io', kind: 'ListOptions', plural: '' };
  return invalid(subject, '', [{ field, reason: 'FieldValueForbidden', message }]);
}
