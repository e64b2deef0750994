/** Keeps a store equal to the server's objects: list, watch, and everything that can go wrong. */
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { backoffMs } from './backoff.ts';
import { listAll } from './list-request.ts';
import { errorClass, provenAfterMs, type MutableStats } from './list-watch-stats.ts';
import { afterListError, afterWatchError, isWatchListRefusal, type Position } from './position.ts';
import { createIntern, type Project } from './project.ts';
import type { ResourceSpec } from './resources.ts';
import type { WritableStore } from './store.ts';
import type { Transport } from './transport.ts';
import { objectKey, type ObjectMeta } from './types.ts';
import type { WatchListSupport } from './watch-list-support.ts';
import { type WatchEvent, watchOnce, type WatchProgress } from './watch-request.ts';

export interface ListWatchOptions<T extends ObjectMeta> {
  readonly transport: Transport;
  readonly resource: ResourceSpec;
  readonly project: Project<T>;
  readonly store: WritableStore<T>;
  readonly clock: Clock;
  readonly log: Logger;
  /** 0 to 1, for jitter. */
  readonly random: () => number;
  /** What all list+watches of a server know of its WatchList. */
  readonly watchListSupport: WatchListSupport;
  readonly stats: MutableStats;
  /** The first list waits up to this long: a fleet that starts at once must not ask at once. */
  readonly startJitterMs: number;
}

/** Nothing for this long, though bookmarks come about each minute: the connection is dead. */
const idleMs = 150_000;
/** A stream that lived this long proves the server healthy, even when nothing happened in it. */
const healthyAfterMs = 10_000;
/** A stream without events that ends sooner is a failure: asking again at once would be a storm. */
const tooSoonMs = 1_000;

/**
 * Runs until the signal aborts, then resolves; never rejects and never gives up. Follows
 * client-go's reflector, with differences that its operation has taught: the delay after failures
 * starts anew on any proof of health; a watch that fails to open is tried again from where it was,
 * since only 410 says that this is impossible; watches that stay silent twice in a row lead to a
 * list, since a server answers so to a version from its future.
 */
export async function runListWatch<T extends ObjectMeta>(
  options: ListWatchOptions<T>,
  signal: AbortSignal,
): Promise<void> {
  await sleepUnlessAborted(options.clock, options.startJitterMs * options.random(), signal);
  const run = new Run(options, signal);
  while (!signal.aborted) {
    const failure = await run.step();
    if (failure !== undefined && !signal.aborted) await run.backOff(failure.error);
  }
}

async function sleepUnlessAborted(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  if (ms <= 0) return;
  await clock.sleep(ms, signal).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}

interface Failure {
  readonly error: unknown;
}

class Run<T extends ObjectMeta> {
  readonly #options: ListWatchOptions<T>;
  readonly #signal: AbortSignal;
  readonly #intern = createIntern();
  #position: Position = { state: 'list', resourceVersion: '0', tooLarge: 0 };
  #failures = 0;

  constructor(options: ListWatchOptions<T>, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
  }

  /** One request. Undefined = it ended well and the next may start at once. */
  step(): Promise<Failure | undefined> {
    const position = this.#position;
    if (position.state === 'watch') return this.#watch(position.resourceVersion);
    if (this.#options.watchListSupport.mayWork()) return this.#watchList();
    return this.#list();
  }

  async backOff(error: unknown): Promise<void> {
    const { clock, log, random, resource, stats } = this.#options;
    this.#failures += 1;
    const kind = errorClass(error);
    stats.errors = { ...stats.errors, [kind]: (stats.errors[kind] ?? 0) + 1 };
    stats.lastError = kind;
    if (stats.failingSinceMs === 0) stats.failingSinceMs = clock.monotonicMs();
    const waitMs = backoffMs(this.#failures, error, random);
    log.warn(
      { err: error, resource: resource.type.plural, retryInMs: Math.round(waitMs) },
      'list+watch failed, will retry',
    );
    await sleepUnlessAborted(clock, waitMs, this.#signal);
  }

  async #list(): Promise<Failure | undefined> {
    const { clock, resource, stats, transport } = this.#options;
    const position = this.#position;
    const found = new Map<string, T>();
    stats.lists += 1;
    try {
      const resourceVersion = await listAll(
        {
          transport,
          clock,
          resource,
          idleMs,
          onItem: (item) => this.#collect(item, found),
          onRestart: () => found.clear(),
          onBytes: () => this.#onBytes(),
        },
        position.resourceVersion,
        this.#signal,
      );
      this.#signal.throwIfAborted();
      this.#takeOver(found, resourceVersion);
      return undefined;
    } catch (error) {
      this.#position = afterListError(position, error);
      return { error };
    }
  }

  /** A watch that begins with everything there is (KEP-3157) and goes on as a normal watch. */
  async #watchList(): Promise<Failure | undefined> {
    const position = this.#position;
    const found = new Map<string, T>();
    const progress = newProgress();
    // "0" would allow an old cache; unset, the server first catches up with etcd, at little cost.
    const resourceVersion = position.resourceVersion === '0' ? undefined : position.resourceVersion;
    const collect = (event: WatchEvent): void => {
      if (event.type === 'put') this.#collect(event.object, found);
      else if (event.type === 'remove') this.#uncollect(objectKey(event.meta), found);
      else if (event.initialEventsEnd) this.#takeOver(found, event.resourceVersion);
    };
    // #takeOver moves the position on: from then on the stream is a watch like any other.
    const result = await this.#stream({ initial: true, resourceVersion }, progress, (event) =>
      this.#position === position ? collect(event) : this.#apply(event),
    );
    if (this.#position !== position) return this.#afterWatch(result, progress);

    const error = result?.error ?? endedEarly(this.#options.resource);
    if (isWatchListRefusal(error, progress)) {
      this.#options.watchListSupport.refused();
      this.#options.log.info(
        { err: error, resource: this.#options.resource.type.plural },
        'server does not stream lists, using LIST',
      );
      return undefined;
    }
    this.#position = afterListError(position, error);
    return { error };
  }

  async #watch(resourceVersion: string): Promise<Failure | undefined> {
    const progress = newProgress();
    const result = await this.#stream({ initial: false, resourceVersion }, progress, (event) =>
      this.#apply(event),
    );
    return this.#afterWatch(result, progress);
  }

  async #stream(
    from: { readonly initial: boolean; readonly resourceVersion: string | undefined },
    progress: WatchProgress,
    onEvent: (event: WatchEvent) => void,
  ): Promise<Failure | undefined> {
    const { clock, random, resource, stats, transport } = this.#options;
    stats.watches += 1;
    const startedAtMs = clock.monotonicMs();
    try {
      await watchOnce(
        {
          transport,
          clock,
          random,
          resource,
          idleMs,
          onBytes: () => this.#onBytes(),
          onOpen: () => (stats.openedAtMs = clock.monotonicMs()),
          onEvent: (event) => {
            onEvent(event);
            if (event.type === 'bookmark') stats.bookmarks += 1;
            else stats.events += 1;
          },
        },
        from,
        progress,
        this.#signal,
      );
      const tooSoon = progress.events === 0 && clock.monotonicMs() - startedAtMs < tooSoonMs;
      return tooSoon ? { error: endedAtOnce(resource) } : undefined;
    } catch (error) {
      return { error };
    } finally {
      if (stats.openedAtMs !== 0 && clock.monotonicMs() - stats.openedAtMs >= provenAfterMs) {
        stats.failingSinceMs = 0;
      }
      stats.openedAtMs = 0;
    }
  }

  #afterWatch(failure: Failure | undefined, progress: WatchProgress): Failure | undefined {
    const position = this.#position;
    const { openedAtMs } = progress;
    const livedMs = openedAtMs === undefined ? 0 : this.#options.clock.monotonicMs() - openedAtMs;
    const healthy = progress.events + progress.bookmarks > 0 || livedMs >= healthyAfterMs;
    if (healthy) this.#failures = 0;
    if (failure !== undefined && position.state === 'watch') {
      this.#position = afterWatchError(position, failure.error, progress);
    }
    return failure;
  }

  #apply(event: WatchEvent): void {
    if (event.type === 'put') {
      const record = this.#project(event.object);
      // An object that can no longer be read must not stay as it was.
      if (record === undefined) this.#options.store.remove(objectKey(event.meta));
      else this.#options.store.put(record);
    } else if (event.type === 'remove') {
      this.#options.store.remove(objectKey(event.meta));
    }
    const resourceVersion =
      event.type === 'bookmark' ? event.resourceVersion : event.meta.resourceVersion;
    this.#position = { state: 'watch', resourceVersion, silent: 0 };
    this.#options.stats.failingSinceMs = 0;
  }

  #takeOver(found: ReadonlyMap<string, T>, resourceVersion: string): void {
    const { clock, stats, store } = this.#options;
    if (store.synced) store.replace(found.values());
    else store.complete(found);
    stats.syncedAtMs = clock.now();
    stats.failingSinceMs = 0;
    this.#position = { state: 'watch', resourceVersion, silent: 0 };
  }

  #collect(item: unknown, into: Map<string, T>): void {
    this.#signal.throwIfAborted();
    const record = this.#project(item);
    if (record === undefined) return;
    into.set(objectKey(record), record);
    // Nobody relies on the store yet; so the end of a large list keeps nothing else waiting.
    const { store } = this.#options;
    if (!store.synced) store.put(record);
  }

  #uncollect(key: string, from: Map<string, T>): void {
    from.delete(key);
    const { store } = this.#options;
    if (!store.synced) store.remove(key);
  }

  #project(raw: unknown): T | undefined {
    const { log, project, resource, stats } = this.#options;
    let error: unknown;
    try {
      const record = project(raw, this.#intern);
      if (record !== undefined) return record;
    } catch (thrown) {
      error = thrown;
    }
    // One odd object is left out and reported; the others must not wait for it.
    stats.rejected += 1;
    log.error({ err: error, resource: resource.type.plural }, 'cannot read an object, left out');
    return undefined;
  }

  #onBytes(): void {
    this.#options.stats.lastByteAtMs = this.#options.clock.now();
  }
}

function endedEarly(resource: ResourceSpec): AgentError {
  return new AgentError(
    'EndedEarly',
    `Cannot list ${resource.type.plural}: the watch ended before the end of initial events`,
  );
}

function endedAtOnce(resource: ResourceSpec): AgentError {
  return new AgentError(
    'EndedAtOnce',
    `Cannot watch ${resource.type.plural}: the server ended the watch at once`,
  );
}

function newProgress(): WatchProgress {
  return { openedAtMs: undefined, bytes: 0, events: 0, bookmarks: 0 };
}
