/** What we know of one kind of object: a consistent copy of the server's, and what changed in it. */
import { isDeepStrictEqual } from 'node:util';
import { createShardedMap } from './sharded-map.ts';
import { objectKey, type ObjectMeta } from './types.ts';

export interface Change<T> {
  readonly key: string;
  /** Before the first change since the last drain; undefined = did not exist. */
  readonly old: T | undefined;
  /** Now; undefined = is gone. */
  readonly new: T | undefined;
  /** Deleted and made again under its name: what belongs to the old one must not be kept. */
  readonly recreated: boolean;
}

export interface Subscription<T> extends Disposable {
  /**
   * What changed since the last call, one entry a key however often it changed; a key that is back
   * where it was is left out. Starts with the changes after the subscription: take `snapshot()` then.
   */
  drain(): readonly Change<T>[];
}

/** What consumers see. */
export interface Store<T extends ObjectMeta> {
  /** Whether the first complete list has arrived: before, what is missing here says nothing. */
  readonly synced: boolean;
  /** Resolves once synced; rejects with the signal's reason. */
  whenSynced(signal: AbortSignal): Promise<void>;
  readonly size: number;
  get(key: string): T | undefined;
  /** All records by {@link objectKey}, as they are now and for ever. Costs microseconds. */
  snapshot(): ReadonlyMap<string, T>;
  /**
   * `notify` is called soon after changes and after the first sync: once for many, never inside the
   * stream that brings them. Whoever subscribes drains, or remembers every key that ever changed.
   */
  subscribe(notify: () => void): Subscription<T>;
  /** Like subscribe, for who reads snapshots only. */
  onChange(notify: () => void): Disposable;
}

/** What sources (a list+watch, a directory) see. */
export interface WritableStore<T extends ObjectMeta> extends Store<T> {
  /** The complete state: keys that are not in it are gone. Makes the store synced. */
  replace(records: Iterable<T>): void;
  /** What was put so far is complete: keys that are not among these are gone. Makes it synced. */
  complete(keys: { readonly size: number; has(key: string): boolean }): void;
  put(record: T): void;
  remove(key: string): void;
}

export interface StoreOptions {
  /**
   * A new resourceVersion of otherwise equal content is no change: for kinds with heartbeats. The
   * newer record is kept all the same.
   */
  readonly ignoreVersions?: boolean;
  /** Told of a `notify` that threw: a broken consumer must not break the stream or the others. */
  readonly onNotifyError?: (error: unknown) => void;
}

/** An empty store, not synced. */
export function createStore<T extends ObjectMeta>(options: StoreOptions = {}): WritableStore<T> {
  const records = createShardedMap<T>();
  const firstOld = new Set<Map<string, T | undefined>>();
  const listeners = new Set<() => void>();
  const sync = Promise.withResolvers<void>();
  let synced = false;
  let notifying = false;

  function put(record: T): void {
    putAt(objectKey(record), record);
  }

  function putAt(key: string, record: T): void {
    const old = records.get(key);
    if (old !== undefined && isSameVersion(old, record)) return;
    records.set(key, record);
    if (old !== undefined && options.ignoreVersions === true && isSameContent(old, record)) return;
    changed(key, old);
  }

  function remove(key: string): void {
    const old = records.get(key);
    if (old === undefined) return;
    records.delete(key);
    changed(key, old);
  }

  function replace(next: Iterable<T>): void {
    const present = new Set<string>();
    for (const record of next) {
      const key = objectKey(record);
      present.add(key);
      putAt(key, record);
    }
    complete(present);
  }

  function complete(keys: { readonly size: number; has(key: string): boolean }): void {
    if (records.size > keys.size) {
      for (const key of records.snapshot().keys()) if (!keys.has(key)) remove(key);
    }
    if (synced) return;
    synced = true;
    sync.resolve();
    notifySoon();
  }

  function changed(key: string, old: T | undefined): void {
    for (const dirty of firstOld) if (!dirty.has(key)) dirty.set(key, old);
    notifySoon();
  }

  function notifySoon(): void {
    if (notifying) return;
    notifying = true;
    queueMicrotask(() => {
      notifying = false;
      for (const notify of listeners) {
        try {
          notify();
        } catch (error) {
          options.onNotifyError?.(error);
        }
      }
    });
  }

  function onChange(notify: () => void): Disposable {
    // Its own function, so that subscribing the same one twice gives two subscriptions.
    const listener = (): void => notify();
    listeners.add(listener);
    return { [Symbol.dispose]: () => void listeners.delete(listener) };
  }

  function subscribe(notify: () => void): Subscription<T> {
    const dirty = new Map<string, T | undefined>();
    firstOld.add(dirty);
    const listener = onChange(notify);
    return {
      drain: () => {
        const changes = [...dirty].flatMap(([key, old]) => describe(key, old, records.get(key)));
        dirty.clear();
        return changes;
      },
      [Symbol.dispose]: () => {
        firstOld.delete(dirty);
        listener[Symbol.dispose]();
      },
    };
  }

  return {
    get synced() {
      return synced;
    },
    get size() {
      return records.size;
    },
    whenSynced: (signal) => waitFor(sync.promise, signal),
    get: (key) => records.get(key),
    snapshot: () => records.snapshot(),
    subscribe,
    onChange,
    replace,
    complete,
    put,
    remove,
  };
}

function describe<T extends ObjectMeta>(
  key: string,
  old: T | undefined,
  now: T | undefined,
): readonly Change<T>[] {
  if (old === undefined && now === undefined) return [];
  if (old !== undefined && now !== undefined && isSameVersion(old, now)) return [];
  const recreated = old !== undefined && now !== undefined && old.uid !== now.uid;
  return [{ key, old, new: now, recreated }];
}

function isSameVersion(a: ObjectMeta, b: ObjectMeta): boolean {
  return a.uid === b.uid && a.resourceVersion === b.resourceVersion;
}

function isSameContent(a: ObjectMeta, b: ObjectMeta): boolean {
  return isDeepStrictEqual({ ...a, resourceVersion: '' }, { ...b, resourceVersion: '' });
}

async function waitFor(done: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const stop = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', stop, { once: true });
  try {
    await Promise.race([done, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
