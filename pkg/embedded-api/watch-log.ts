/**
 * The last changes, in their order: what a watch resumes from and what an older list is rebuilt
 * from. Bounded: the oldest changes are forgotten, and who asks for them is told 410 Gone.
 */
import { expired } from './api-error.ts';
import type { KubeObject } from './object.ts';

/** One committed change of one object. */
export interface Change {
  readonly revision: number;
  /** Where the object is kept (`resourceOf`). */
  readonly resource: string;
  readonly key: string;
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  /** The object after the change; for DELETED its last state, with the deletion's revision. */
  readonly object: KubeObject;
  /** The object before the change; undefined for ADDED. */
  readonly previous: KubeObject | undefined;
}

export class WatchLog {
  readonly #windowEvents: number;
  #changes: Change[] = [];
  /** Index of the first change still known; the array is cut rarely, to keep appending cheap. */
  #start = 0;
  #compactedRevision: number;

  /** @param windowEvents how many changes are kept; older ones are compacted away. */
  constructor(windowEvents: number, revision: number) {
    this.#windowEvents = windowEvents;
    this.#compactedRevision = revision;
  }

  /** Changes up to and including this revision are forgotten. */
  get compactedRevision(): number {
    return this.#compactedRevision;
  }

  append(change: Change): void {
    this.#changes.push(change);
    if (this.#changes.length - this.#start > this.#windowEvents) this.#forgetOne();
  }

  /** Forgets everything up to `revision`, as etcd's compaction does. */
  compact(revision: number): void {
    while ((this.#changes[this.#start]?.revision ?? Infinity) <= revision) this.#forgetOne();
    this.#compactedRevision = Math.max(this.#compactedRevision, revision);
  }

  /**
   * Changes after `revision`, oldest first.
   *
   * @throws {ApiError} Expired when some of them are forgotten
   */
  since(revision: number): readonly Change[] {
    if (revision < this.#compactedRevision) {
      throw expired(`too old resource version: ${revision} (${this.#compactedRevision})`);
    }
    return this.#changes.slice(this.#indexAfter(revision));
  }

  #forgetOne(): void {
    this.#compactedRevision = this.#changes[this.#start]?.revision ?? this.#compactedRevision;
    this.#start += 1;
    if (this.#start > 1024 && this.#start * 2 > this.#changes.length) {
      this.#changes = this.#changes.slice(this.#start);
      this.#start = 0;
    }
  }

  /** Index of the first change with a greater revision. */
  #indexAfter(revision: number): number {
    let low = this.#start;
    let high = this.#changes.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#changes[middle]?.revision ?? Infinity) > revision) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
