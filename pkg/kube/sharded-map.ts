/** A map with cheap immutable snapshots: copy-on-write in small pieces. */

/**
 * 256 buckets: at 20,000 entries a change after a snapshot copies about 80 of them (some
 * microseconds) instead of all (some milliseconds).
 */
const bucketCount = 256;

type Buckets<T> = readonly ReadonlyMap<string, T>[];

export interface ShardedMap<T> {
  readonly size: number;
  get(key: string): T | undefined;
  set(key: string, value: T): void;
  delete(key: string): void;
  /** The entries of this moment, for ever. Equal snapshots without a change between are identical. */
  snapshot(): ReadonlyMap<string, T>;
}

/** An empty map. Its order of iteration is stable but means nothing. */
export function createShardedMap<T>(): ShardedMap<T> {
  const empty: Map<string, T> = new Map();
  const buckets: Map<string, T>[] = Array.from({ length: bucketCount }, () => empty);
  /** 1 = a snapshot (or the common empty map) holds this bucket too. */
  const shared = new Uint8Array(bucketCount).fill(1);
  let size = 0;
  let latest: ReadonlyMap<string, T> | undefined;

  function own(index: number): Map<string, T> {
    const bucket = buckets[index] ?? empty;
    if (shared[index] === 0) return bucket;
    const copy = new Map(bucket);
    buckets[index] = copy;
    shared[index] = 0;
    return copy;
  }

  return {
    get size() {
      return size;
    },
    get: (key) => buckets[bucketOf(key)]?.get(key),
    set: (key, value) => {
      const bucket = own(bucketOf(key));
      if (!bucket.has(key)) size += 1;
      bucket.set(key, value);
      latest = undefined;
    },
    delete: (key) => {
      const index = bucketOf(key);
      if (buckets[index]?.has(key) !== true) return;
      own(index).delete(key);
      size -= 1;
      latest = undefined;
    },
    snapshot: () => {
      if (latest === undefined) {
        latest = new BucketsView(buckets.slice(), size);
        shared.fill(1);
      }
      return latest;
    },
  };
}

/** FNV-1a over the key's UTF-16 units: cheap, and spreads names that differ in their last letter. */
function bucketOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < key.length; at++) hash = Math.imul(hash ^ key.charCodeAt(at), 0x01000193);
  return (hash ^ (hash >>> 16)) & (bucketCount - 1);
}

class BucketsView<T> implements ReadonlyMap<string, T> {
  readonly #buckets: Buckets<T>;
  readonly size: number;

  constructor(buckets: Buckets<T>, size: number) {
    this.#buckets = buckets;
    this.size = size;
  }

  get(key: string): T | undefined {
    return this.#buckets[bucketOf(key)]?.get(key);
  }

  has(key: string): boolean {
    return this.#buckets[bucketOf(key)]?.has(key) === true;
  }

  forEach(visit: (value: T, key: string, map: ReadonlyMap<string, T>) => void): void {
    for (const [key, value] of this) visit(value, key, this);
  }

  *entries(): MapIterator<[string, T]> {
    for (const bucket of this.#buckets) yield* bucket.entries();
    return undefined;
  }

  *keys(): MapIterator<string> {
    for (const bucket of this.#buckets) yield* bucket.keys();
    return undefined;
  }

  *values(): MapIterator<T> {
    for (const bucket of this.#buckets) yield* bucket.values();
    return undefined;
  }

  [Symbol.iterator](): MapIterator<[string, T]> {
    return this.entries();
  }
}
