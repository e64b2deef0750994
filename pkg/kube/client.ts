/** Everything a program does with one API server, over one connection. */
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { ClusterConfig } from './cluster-config.ts';
import { runListWatch } from './list-watch.ts';
import { createStats, type ListWatchStats } from './list-watch-stats.ts';
import type { Project } from './project.ts';
import {
  collectionPath,
  objectPath,
  type ObjectRef,
  type ResourceSpec,
  type ResourceType,
} from './resources.ts';
import type { WritableStore } from './store.ts';
import {
  createTransport,
  type ApiAnswer,
  type RequestOptions,
  type Transport,
} from './transport.ts';
import type { ObjectMeta } from './types.ts';
import { createWatchListSupport, type WatchListSupport } from './watch-list-support.ts';
import { startWatchdog } from './watchdog.ts';

export interface KubeClientOptions {
  readonly clock: Clock;
  readonly log: Logger;
  /** "podwire-node/1.2.3 (linux/amd64)". */
  readonly userAgent: string;
  /** Jitter of delays, 0 to 1; Math.random unless a test says otherwise. */
  readonly random?: () => number;
  /** Each first list waits up to this long, at random: for fleets. None by default. */
  readonly startJitterMs?: number;
  /** Told of each answer, for metrics. */
  readonly onAnswer?: (answer: ApiAnswer) => void;
}

/** An object as the API spells it, before anything is checked. */
export type RawObject = Readonly<Record<string, unknown>>;

export type Patch =
  /** RFC 7386: null deletes a key, lists are replaced. */
  | { readonly kind: 'merge'; readonly body: object }
  /** Lists are merged by their keys (conditions by type); built-in kinds only. */
  | { readonly kind: 'strategic'; readonly body: object }
  /** Server-side apply: the fields in the body become ours, others stay; creates what is missing. */
  | { readonly kind: 'apply'; readonly body: object; readonly fieldManager: string };

/** A running list+watch. */
export interface ListWatch {
  readonly stats: ListWatchStats;
  /** Resolves when the signal has stopped it and nothing of it is left; never rejects. */
  readonly done: Promise<void>;
}

export interface KubeClient extends AsyncDisposable {
  /** The server's URL. */
  readonly server: string;
  /** Keeps the store equal to the server's objects until the signal aborts, whatever fails. */
  watchResource<T extends ObjectMeta>(
    resource: ResourceSpec,
    project: Project<T>,
    store: WritableStore<T>,
    signal: AbortSignal,
  ): ListWatch;
  /** Rejects with ApiError code "NotFound" when there is none. */
  get(ref: ObjectRef, signal: AbortSignal): Promise<RawObject>;
  /** Creates an object (`body` has its apiVersion, kind and metadata); resolves to what was stored. */
  create(
    where: { readonly type: ResourceType; readonly namespace?: string },
    body: object,
    signal: AbortSignal,
  ): Promise<RawObject>;
  /** Changes an object, or its status through `ref.subresource`; resolves to what was stored. */
  patch(ref: ObjectRef, patch: Patch, signal: AbortSignal): Promise<RawObject>;
  delete(ref: ObjectRef, signal: AbortSignal): Promise<void>;
  /**
   * This host has lost an address of its own: a connection from it is cut at once, and watches go
   * on over a new one. Otherwise only PING finds out, up to 45 s later.
   */
  dropFrom(localAddress: string): void;
}

/** A single request that takes longer has failed; watches are not concerned. */
const requestTimeoutMs = 30_000;

const patchTypes = {
  merge: 'application/merge-patch+json',
  strategic: 'application/strategic-merge-patch+json',
  // The body is JSON, which is YAML; the type's name is the server's.
  apply: 'application/apply-patch+yaml',
} as const;

/** Connects at the first use. Dispose it to close the connection and stop what still uses it. */
export function createKubeClient(config: ClusterConfig, options: KubeClientOptions): KubeClient {
  return new Client(config, options);
}

class Client implements KubeClient {
  readonly server: string;
  readonly #options: KubeClientOptions;
  readonly #transport: Transport;
  readonly #watchListSupport: WatchListSupport;
  readonly #end = new AbortController();
  readonly #running = new Set<Promise<void>>();

  constructor(config: ClusterConfig, options: KubeClientOptions) {
    this.server = config.server;
    this.#options = options;
    this.#transport = createTransport(config, options);
    this.#watchListSupport = createWatchListSupport(options.clock);
  }

  watchResource<T extends ObjectMeta>(
    resource: ResourceSpec,
    project: Project<T>,
    store: WritableStore<T>,
    signal: AbortSignal,
  ): ListWatch {
    const stats = createStats();
    const done = runListWatch(
      {
        transport: this.#transport,
        resource,
        project,
        store,
        clock: this.#options.clock,
        log: this.#options.log,
        random: this.#options.random ?? Math.random,
        watchListSupport: this.#watchListSupport,
        stats,
        startJitterMs: this.#options.startJitterMs ?? 0,
      },
      AbortSignal.any([signal, this.#end.signal]),
    );
    this.#running.add(done);
    void done.finally(() => this.#running.delete(done));
    return { stats, done };
  }

  get(ref: ObjectRef, signal: AbortSignal): Promise<RawObject> {
    return this.#send(objectPath(ref), { signal });
  }

  create(
    where: { readonly type: ResourceType; readonly namespace?: string },
    body: object,
    signal: AbortSignal,
  ): Promise<RawObject> {
    return this.#send(collectionPath(where.type, where.namespace), {
      signal,
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  }

  patch(ref: ObjectRef, patch: Patch, signal: AbortSignal): Promise<RawObject> {
    const query =
      patch.kind === 'apply'
        ? `?force=true&fieldManager=${encodeURIComponent(patch.fieldManager)}`
        : '';
    return this.#send(objectPath(ref) + query, {
      signal,
      method: 'PATCH',
      headers: { 'content-type': patchTypes[patch.kind] },
      body: JSON.stringify(patch.body),
    });
  }

  async delete(ref: ObjectRef, signal: AbortSignal): Promise<void> {
    await this.#send(objectPath(ref), { signal, method: 'DELETE' });
  }

  dropFrom(localAddress: string): void {
    this.#transport.dropFrom(localAddress);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort(new AgentError('Closed', 'Cannot reach the server: the client was closed'));
    await this.#transport[Symbol.asyncDispose]();
    await Promise.all(this.#running);
  }

  async #send(path: string, options: RequestOptions): Promise<RawObject> {
    using watchdog = startWatchdog(
      this.#options.clock,
      { idleMs: requestTimeoutMs, overdueMs: requestTimeoutMs },
      options.signal,
    );
    const answer = await this.#transport.request(path, { ...options, signal: watchdog.signal });
    if (typeof answer === 'object' && answer !== null) return { ...answer };
    throw new AgentError(
      'UnexpectedAnswer',
      `Cannot ${options.method ?? 'GET'} ${path}: the answer is not an object`,
    );
  }
}
