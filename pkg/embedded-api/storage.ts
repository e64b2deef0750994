/**
 * Objects by resource and key, with one revision counter for all of them, as etcd has. Knows
 * nothing of kinds or rules: what is put here is stored, numbered, logged and told to listeners.
 */
import { deepFreeze } from './json.ts';
import { withMeta, type KubeObject } from './object.ts';
import { WatchLog, type Change } from './watch-log.ts';

/** Told of every change right after it is committed. Must not throw and must not write. */
export type ChangeListener = (change: Change) => void;

/** All objects of a resource at one revision, in the order of their keys. */
export interface Snapshot {
  readonly revision: number;
  readonly entries: readonly (readonly [key: string, object: KubeObject])[];
}

interface Shelf {
  readonly objects: Map<string, KubeObject>;
  /** Keys in order, kept up to date once a list asked for it. */
  sortedKeys: string[] | undefined;
}

export class Storage {
  readonly #shelves = new Map<string, Shelf>();
  readonly #log: WatchLog;
  readonly #listeners = new Set<ChangeListener>();
  #revision: number;

  /**
   * @param windowEvents changes kept for watches and continued lists
   * @param revision the revision to continue from: what is older counts as compacted
   */
  constructor(windowEvents: number, revision: number) {
    this.#revision = revision;
    this.#log = new WatchLog(windowEvents, revision);
  }

  /** Revision of the last change. */
  get revision(): number {
    return this.#revision;
  }

  get compactedRevision(): number {
    return this.#log.compactedRevision;
  }

  get(resource: string, key: string): KubeObject | undefined {
    return this.#shelves.get(resource)?.objects.get(key);
  }

  /** Objects of a resource in no promised order. */
  values(resource: string): Iterable<KubeObject> {
    return this.#shelves.get(resource)?.objects.values() ?? [];
  }

  /** Every object there is, in no promised order. */
  *all(): Iterable<readonly [resource: string, key: string, object: KubeObject]> {
    for (const [resource, shelf] of this.#shelves) {
      for (const [key, object] of shelf.objects) yield [resource, key, object];
    }
  }

  /** Stores an object under the next revision and returns it as stored. */
  put(resource: string, key: string, object: KubeObject): KubeObject {
    const shelf = this.#shelf(resource);
    const previous = shelf.objects.get(key);
    const revision = this.#revision + 1;
    const stored = deepFreeze(withMeta(object, { resourceVersion: String(revision) }));
    shelf.objects.set(key, stored);
    if (previous === undefined)
      shelf.sortedKeys?.splice(firstNotLess(shelf.sortedKeys, key), 0, key);
    const type = previous === undefined ? 'ADDED' : 'MODIFIED';
    this.#commit({ revision, resource, key, type, object: stored, previous });
    return stored;
  }

  /** Removes an object and returns its last state with the deletion's revision. */
  remove(resource: string, key: string): KubeObject | undefined {
    const shelf = this.#shelves.get(resource);
    const previous = shelf?.objects.get(key);
    if (shelf === undefined || previous === undefined) return undefined;
    const revision = this.#revision + 1;
    shelf.objects.delete(key);
    shelf.sortedKeys?.splice(firstNotLess(shelf.sortedKeys, key), 1);
    const object = deepFreeze(withMeta(previous, { resourceVersion: String(revision) }));
    this.#commit({ revision, resource, key, type: 'DELETED', object, previous });
    return object;
  }

  /** Puts an object back as it was saved, without a new revision, log entry or notice. */
  restore(resource: string, key: string, object: KubeObject): void {
    const shelf = this.#shelf(resource);
    shelf.objects.set(key, deepFreeze(object));
    shelf.sortedKeys = undefined;
  }

  /**
   * A resource as it is now, or was at an older revision.
   *
   * @param keyPrefix only keys that start with it ("default/")
   * @throws {ApiError} Expired when that revision is compacted
   */
  snapshot(resource: string, keyPrefix = '', revision = this.#revision): Snapshot {
    const objects =
      revision === this.#revision
        ? this.#shelves.get(resource)?.objects
        : this.#rewind(resource, revision);
    if (objects === undefined) return { revision, entries: [] };
    const keys =
      objects === this.#shelves.get(resource)?.objects
        ? this.#keys(resource)
        : [...objects.keys()].toSorted();
    const entries: (readonly [string, KubeObject])[] = [];
    for (let i = firstNotLess(keys, keyPrefix); i < keys.length; i++) {
      const key = keys[i] ?? '';
      if (!key.startsWith(keyPrefix)) break;
      const object = objects.get(key);
      if (object !== undefined) entries.push([key, object]);
    }
    return { revision, entries };
  }

  /**
   * Changes of all resources after `revision`.
   *
   * @throws {ApiError} Expired
   */
  changesSince(revision: number): readonly Change[] {
    return this.#log.since(revision);
  }

  /** Forgets changes up to `revision`: watches and lists from before get 410 Gone. */
  compact(revision: number): void {
    this.#log.compact(Math.min(revision, this.#revision));
  }

  /** Registers a listener; the returned function ends it. */
  subscribe(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #commit(change: Change): void {
    this.#revision = change.revision;
    this.#log.append(change);
    for (const listener of this.#listeners) listener(change);
  }

  #shelf(resource: string): Shelf {
    const found = this.#shelves.get(resource);
    if (found !== undefined) return found;
    const shelf: Shelf = { objects: new Map(), sortedKeys: undefined };
    this.#shelves.set(resource, shelf);
    return shelf;
  }

  #keys(resource: string): readonly string[] {
    const shelf = this.#shelf(resource);
    shelf.sortedKeys ??= [...shelf.objects.keys()].toSorted();
    return shelf.sortedKeys;
  }

  /** The state at an older revision: today's, with later changes undone newest first. */
  #rewind(resource: string, revision: number): Map<string, KubeObject> {
    const objects = new Map(this.#shelves.get(resource)?.objects);
    for (const change of this.#log.since(revision).toReversed()) {
      if (change.resource !== resource) continue;
      if (change.previous === undefined) objects.delete(change.key);
      else objects.set(change.key, change.previous);
    }
    return objects;
  }
}

/** Index of the first key that is not less than `bound`, in sorted keys. */
export function firstNotLess(keys: readonly string[], bound: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((keys[middle] ?? '') < bound) low = middle + 1;
    else high = middle;
  }
  return low;
}
