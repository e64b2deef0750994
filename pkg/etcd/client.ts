/**
 * A client for etcd v3 (etcd Documentation/dev-guide, "API reference"), over gRPC as its own clients
 * are: what the pod network needs and no more. Not the JSON gateway: with client certificates that
 * works only where the server's certificate is one for clients too.
 */
import { Metadata, status as grpcStatus, type ChannelCredentials } from '@grpc/grpc-js';
import { AgentError } from '#pkg/errors/agent-error.ts';
import {
  answerWithinMs,
  closeEndpoint,
  isGrpc,
  isUnavailable,
  messages,
  openEndpoints,
  secureCredentials,
  unary,
  type CertificateFiles,
  type Endpoint,
} from './grpc.ts';
import {
  bytes,
  endOfPrefix,
  entryOf,
  eventOf,
  operationOf,
  watchCanceled,
  type EtcdChange,
  type EtcdCondition,
  type EtcdEntry,
  type EtcdEvents,
  type RangeResponse,
  type TxnResponse,
  type WatchResponse,
} from './records.ts';

export interface EtcdOptions extends CertificateFiles {
  /** `http(s)://HOST:PORT` or `unix://PATH`; one that does not answer is followed by the next. */
  readonly endpoints: readonly string[];
  readonly username?: string | undefined;
  readonly password?: string | undefined;
}

/**
 * Every method rejects with an AgentError `EtcdUnavailable` when no endpoint answers in time,
 * `EtcdRefused` when etcd says no, and with the signal's reason.
 */
export interface EtcdClient extends Disposable {
  /** The entry, or undefined. */
  get(key: string, signal: AbortSignal): Promise<EtcdEntry | undefined>;
  /** All entries whose keys start so, and the revision they are of. */
  list(
    prefix: string,
    signal: AbortSignal,
  ): Promise<{ readonly revision: string; readonly entries: readonly EtcdEntry[] }>;
  /** Makes the changes if all conditions hold; the revision, or undefined when one does not. */
  transact(
    conditions: readonly EtcdCondition[],
    changes: readonly EtcdChange[],
    signal: AbortSignal,
  ): Promise<string | undefined>;
  /** Returns the ID of a new lease of so many seconds. */
  grantLease(ttlSeconds: number, signal: AbortSignal): Promise<string>;
  /** Starts the lease's time anew; the seconds it has now, 0 when it has ended. */
  renewLease(id: string, signal: AbortSignal): Promise<number>;
  /** Ends a lease, and with it its keys. */
  revokeLease(id: string, signal: AbortSignal): Promise<void>;
  /**
   * What happens to keys that start so, after the given revision. Never ends by itself: throws
   * `EtcdCompacted` when etcd has forgotten a part, and as the others do.
   */
  watch(prefix: string, afterRevision: string, signal: AbortSignal): AsyncIterable<EtcdEvents>;
}

/**
 * Reads the certificates; connects at the first call.
 *
 * @throws {AgentError} InvalidConfig for what cannot be read
 */
export async function createEtcdClient(options: EtcdOptions): Promise<EtcdClient> {
  const secure = await secureCredentials(options);
  return new GrpcEtcdClient(options, secure);
}

interface ServiceCall {
  readonly service: 'KV' | 'Lease';
  readonly method: string;
  readonly request: object;
}

class GrpcEtcdClient implements EtcdClient {
  readonly #options: EtcdOptions;
  readonly #endpoints: readonly Endpoint[];
  /** The endpoint that answered last. */
  #current = 0;
  #token: string | undefined;

  constructor(options: EtcdOptions, secure: ChannelCredentials) {
    this.#options = options;
    this.#endpoints = openEndpoints(options.endpoints, secure);
  }

  async get(key: string, signal: AbortSignal): Promise<EtcdEntry | undefined> {
    const call = { service: 'KV', method: 'Range', request: { key: bytes(key) } } as const;
    const { kvs } = await this.#call<RangeResponse>(`read ${key}`, call, signal);
    return kvs.map(entryOf)[0];
  }

  async list(prefix: string, signal: AbortSignal): ReturnType<EtcdClient['list']> {
    const request = { key: bytes(prefix), rangeEnd: endOfPrefix(prefix) };
    const call = { service: 'KV', method: 'Range', request } as const;
    const { header, kvs } = await this.#call<RangeResponse>(`list ${prefix}`, call, signal);
    return { revision: header.revision, entries: kvs.map(entryOf) };
  }

  async transact(
    conditions: readonly EtcdCondition[],
    changes: readonly EtcdChange[],
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const request = {
      compare: conditions.map(({ key, createRevision }) => ({
        target: 'CREATE',
        key: bytes(key),
        createRevision,
      })),
      success: changes.map(operationOf),
    };
    const what = `change ${changes.map(({ key }) => key).join(', ')}`;
    const call = { service: 'KV', method: 'Txn', request } as const;
    const { header, succeeded } = await this.#call<TxnResponse>(what, call, signal);
    return succeeded ? header.revision : undefined;
  }

  async grantLease(ttlSeconds: number, signal: AbortSignal): Promise<string> {
    const request = { TTL: String(ttlSeconds), ID: '0' };
    const call = { service: 'Lease', method: 'LeaseGrant', request } as const;
    const { ID } = await this.#call<{ readonly ID: string }>('get a lease', call, signal);
    return ID;
  }

  async renewLease(id: string, signal: AbortSignal): Promise<number> {
    return this.#onSomeEndpoint(`renew lease ${id}`, signal, async (endpoint, inner) => {
      const deadline = Date.now() + answerWithinMs;
      const stream = endpoint.LeaseStream['LeaseKeepAlive']?.(this.#metadata(), { deadline });
      if (stream === undefined) return 0;
      for await (const answer of messages<{ readonly TTL: string }>(stream, { ID: id }, inner)) {
        return Number(answer.TTL);
      }
      return 0;
    });
  }

  async revokeLease(id: string, signal: AbortSignal): Promise<void> {
    const call = { service: 'Lease', method: 'LeaseRevoke', request: { ID: id } } as const;
    await this.#call(`end lease ${id}`, call, signal);
  }

  async *watch(
    prefix: string,
    afterRevision: string,
    signal: AbortSignal,
  ): AsyncGenerator<EtcdEvents, void, undefined> {
    const createRequest = {
      key: bytes(prefix),
      rangeEnd: endOfPrefix(prefix),
      startRevision: String(BigInt(afterRevision) + 1n),
    };
    const endpoint = this.#endpoints[this.#current];
    const metadata = this.#metadata();
    // A member cut off from the others ends the watch then, in place of telling nothing more
    // (etcd's clientv3.WithRequireLeader).
    metadata.set('hasleader', 'true');
    const stream = endpoint?.Watch['Watch']?.(metadata);
    if (stream === undefined) return;
    try {
      for await (const answer of messages<WatchResponse>(stream, { createRequest }, signal)) {
        if (answer.canceled) throw watchCanceled(prefix, answer);
        const { events, header } = answer;
        if (events.length > 0) yield { revision: header.revision, events: events.map(eventOf) };
      }
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof AgentError) throw error;
      this.#next();
      throw this.#failure(`watch ${prefix}`, error);
    }
    throw new AgentError('EtcdUnavailable', `Cannot watch ${prefix} in etcd: the server ended it`);
  }

  [Symbol.dispose](): void {
    for (const endpoint of this.#endpoints) closeEndpoint(endpoint);
  }

  async #call<T>(what: string, call: ServiceCall, signal: AbortSignal): Promise<T> {
    const { service, method, request } = call;
    return this.#onSomeEndpoint(what, signal, async (endpoint, inner) => {
      const attempt = (): Promise<T> =>
        unary<T>(endpoint[service], { method, request, metadata: this.#metadata() }, inner);
      try {
        return await attempt();
      } catch (error) {
        // A token ends after some minutes without use, and with a restart of the server.
        if (!isGrpc(error, grpcStatus.UNAUTHENTICATED)) throw error;
        await this.#authenticate(endpoint, inner);
        return await attempt();
      }
    });
  }

  /** Tries each endpoint once, the one that answered last first. */
  async #onSomeEndpoint<T>(
    what: string,
    signal: AbortSignal,
    work: (endpoint: Endpoint, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    let last: unknown;
    for (const _ of this.#endpoints) {
      signal.throwIfAborted();
      const endpoint = this.#endpoints[this.#current];
      if (endpoint === undefined) break;
      try {
        if (this.#options.username !== undefined && this.#token === undefined) {
          await this.#authenticate(endpoint, signal);
        }
        return await work(endpoint, signal);
      } catch (error) {
        signal.throwIfAborted();
        last = error;
        if (!isUnavailable(error)) break;
        this.#next();
      }
    }
    throw this.#failure(what, last);
  }

  async #authenticate(endpoint: Endpoint, signal: AbortSignal): Promise<void> {
    const { username: name, password = '' } = this.#options;
    if (name === undefined) return;
    const call = { method: 'Authenticate', request: { name, password }, metadata: new Metadata() };
    const { token } = await unary<{ readonly token: string }>(endpoint.Auth, call, signal);
    this.#token = token;
  }

  #metadata(): Metadata {
    const metadata = new Metadata();
    if (this.#token !== undefined) metadata.set('token', this.#token);
    return metadata;
  }

  #next(): void {
    this.#current = (this.#current + 1) % this.#endpoints.length;
  }

  #failure(what: string, cause: unknown): AgentError {
    if (!isUnavailable(cause)) {
      // A token that is not good any more: the next call gets another.
      if (isGrpc(cause, grpcStatus.UNAUTHENTICATED)) this.#token = undefined;
      return new AgentError('EtcdRefused', `Cannot ${what} in etcd`, { cause });
    }
    const at = this.#options.endpoints.join(', ');
    return new AgentError('EtcdUnavailable', `Cannot ${what} in etcd: no answer from ${at}`, {
      cause,
    });
  }
}
