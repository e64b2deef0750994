/** Requests to one API server: credentials, protocol, compression and refusals in one place. */
import { isIP } from 'node:net';
import type { Clock } from '#pkg/clock/clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { ApiError, readStatus } from './api-error.ts';
import { createBodyReader, type BodyReader } from './body-reader.ts';
import type { ClusterConfig } from './cluster-config.ts';
import { connect } from './connect.ts';
import type { Connection, ResponseHeaders } from './connection.ts';
import { createCredentials, type Credentials } from './credentials.ts';

export interface RequestOptions {
  readonly signal: AbortSignal;
  readonly method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** The answer is large and worth compressing; not asked for on loopback. */
  readonly compress?: boolean;
  /** Called once, when the server has accepted and before the first byte of the body. */
  readonly onOpen?: () => void;
}

export interface Transport extends AsyncDisposable {
  /**
   * Sends a request and hands the body of a 2xx answer to `onChunk` as it arrives. Resolves only
   * after a complete body; rejects with an {@link ApiError} when the server refused, with the
   * signal's reason when aborted, with what `onChunk` threw, or with a connection's error. `onChunk`
   * is never called after that.
   */
  stream(path: string, options: RequestOptions, onChunk: (chunk: Buffer) => void): Promise<void>;
  /** Sends a request with a small answer: resolves to its parsed JSON, undefined if it is empty. */
  request(path: string, options: RequestOptions): Promise<unknown>;
  /** See {@link Connection.dropFrom}; the next request connects anew. */
  dropFrom(localAddress: string): void;
}

export interface TransportOptions {
  readonly clock: Clock;
  /** "podwire-node/1.2.3 (linux/amd64)"; servers pretty-print for names that look like a browser. */
  readonly userAgent: string;
  /** Told of each answer when its head has come, and of each request that got none; for metrics. */
  readonly onAnswer?: (answer: ApiAnswer) => void;
}

export interface ApiAnswer {
  readonly method: string;
  /** "10.0.0.1:6443" */
  readonly host: string;
  /** Undefined = the connection failed. */
  readonly status: number | undefined;
  /** From the request to the head of the answer. */
  readonly durationMs: number;
}

/** A refusal's body is read up to this size: it may come from any proxy on the way. */
const maxErrorBodyBytes = 64 * 1024;

/** Connects at the first request; one connection (HTTP/2) or pool (HTTP/1.1) serves all. */
export function createTransport(config: ClusterConfig, options: TransportOptions): Transport {
  return new ServerTransport(config, options);
}

class ServerTransport implements Transport {
  readonly #config: ClusterConfig;
  readonly #options: TransportOptions;
  readonly #credentials: Credentials;
  readonly #prefix: string;
  readonly #host: string;
  readonly #compress: boolean;
  readonly #end = new AbortController();
  #open: { readonly fingerprint: string; readonly connection: Promise<Connection> } | undefined;

  constructor(config: ClusterConfig, options: TransportOptions) {
    this.#config = config;
    this.#options = options;
    this.#credentials = createCredentials(config, options.clock);
    const url = new URL(config.server);
    this.#prefix = url.pathname.replace(/\/+$/, '');
    this.#host = url.host;
    this.#compress = !isLoopback(url.hostname);
  }

  async stream(
    path: string,
    options: RequestOptions,
    onChunk: (chunk: Buffer) => void,
  ): Promise<void> {
    const signal = AbortSignal.any([options.signal, this.#end.signal]);
    const guarded = { ...options, signal };
    try {
      await this.#exchange(path, guarded, onChunk);
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 401)) throw error;
      // The token may have rotated since it was read: what is on the disk now gets one try.
      this.#credentials.forget();
      await this.#exchange(path, guarded, onChunk);
    }
  }

  async request(path: string, options: RequestOptions): Promise<unknown> {
    const chunks: Buffer[] = [];
    await this.stream(path, options, (chunk) => chunks.push(chunk));
    const text = Buffer.concat(chunks).toString('utf8');
    if (text === '') return undefined;
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new AgentError('UnexpectedAnswer', `Cannot ${what(path, options)}: not JSON`, {
        cause: error,
      });
    }
  }

  dropFrom(localAddress: string): void {
    // A connection that failed to open has told its requests so already.
    this.#open?.connection
      .then((connection) => connection.dropFrom(localAddress))
      .catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort(new AgentError('Closed', 'Cannot reach the server: the client was closed'));
    const open = this.#open;
    this.#open = undefined;
    // A connection that failed to open has told its requests so already.
    await open?.connection.then((connection) => connection.destroy()).catch(() => undefined);
  }

  async #exchange(
    path: string,
    options: RequestOptions,
    onChunk: (chunk: Buffer) => void,
  ): Promise<void> {
    const { signal } = options;
    signal.throwIfAborted();
    const headers = await abortable(this.#headers(options), signal);
    signal.throwIfAborted();
    const connection = await abortable(this.#connection(), signal);
    const method = options.method ?? 'GET';
    const startedMs = this.#options.clock.monotonicMs();
    const report = (status: number | undefined): void => {
      const durationMs = this.#options.clock.monotonicMs() - startedMs;
      this.#options.onAnswer?.({ method, host: this.#host, status, durationMs });
    };
    const answer = new Answer(options, onChunk, report);
    const wire = { method, path: this.#prefix + path, headers, body: options.body, signal };
    try {
      await connection.exchange(wire, answer);
    } catch (error) {
      if (!answer.hasBegun && !signal.aborted) report(undefined);
      answer.cancel();
      throw error;
    }
    const refusal = await answer.finish(signal);
    if (refusal !== undefined) throw new ApiError(what(path, options), refusal);
  }

  async #headers(options: RequestOptions): Promise<Record<string, string>> {
    const authorization = await this.#credentials.authorization();
    return {
      accept: 'application/json',
      'user-agent': this.#options.userAgent,
      ...(authorization === undefined ? {} : { authorization }),
      ...(options.compress === true && this.#compress ? { 'accept-encoding': 'gzip' } : {}),
      ...(options.body === undefined
        ? {}
        : { 'content-length': String(Buffer.byteLength(options.body)) }),
      ...options.headers,
    };
  }

  /** The open connection, or a new one when it is gone or no longer proves who both sides are. */
  async #connection(): Promise<Connection> {
    const material = await this.#credentials.tls();
    this.#end.signal.throwIfAborted();
    const open = this.#open;
    if (open?.fingerprint === material.fingerprint) {
      const connection = await open.connection.catch(() => undefined);
      if (connection?.usable === true) return connection;
    }
    // Another request may have opened one while this one waited.
    if (this.#open !== open) return this.#connection();
    open?.connection.then((old) => old.drain()).catch(() => undefined);
    const connection = connect(this.#config, material, this.#options.clock);
    this.#open = { fingerprint: material.fingerprint, connection };
    try {
      return await connection;
    } catch (error) {
      if (this.#open?.connection === connection) this.#open = undefined;
      throw error;
    }
  }
}

/** One answer: the body of a success goes on, the body of a refusal is kept. */
class Answer {
  readonly #options: RequestOptions;
  readonly #onChunk: (chunk: Buffer) => void;
  readonly #onStatus: (status: number) => void;
  #status = 0;
  #retryAfter: string | undefined;
  #body: BodyReader | undefined;
  readonly #refused: Buffer[] = [];
  #refusedBytes = 0;

  constructor(
    options: RequestOptions,
    onChunk: (chunk: Buffer) => void,
    onStatus: (status: number) => void,
  ) {
    this.#options = options;
    this.#onChunk = onChunk;
    this.#onStatus = onStatus;
  }

  get hasBegun(): boolean {
    return this.#status !== 0;
  }

  onHead(status: number, headers: ResponseHeaders): void {
    this.#status = status;
    this.#onStatus(status);
    this.#retryAfter = one(headers['retry-after']);
    const accepted = status >= 200 && status < 300;
    this.#body = createBodyReader(
      one(headers['content-encoding']),
      accepted ? this.#onChunk : (chunk) => this.#keepRefusal(chunk),
    );
    if (accepted) this.#options.onOpen?.();
  }

  onChunk(chunk: Buffer): void {
    this.#body?.write(chunk);
  }

  /** Undefined = a success whose body has been handed over completely. */
  async finish(signal: AbortSignal): Promise<ReturnType<typeof readStatus> | undefined> {
    await this.#body?.end(signal);
    if (this.#status >= 200 && this.#status < 300) return undefined;
    const text = Buffer.concat(this.#refused).toString('utf8');
    return readStatus(this.#status, parseOrText(text), this.#retryAfter);
  }

  cancel(): void {
    this.#body?.cancel();
  }

  #keepRefusal(chunk: Buffer): void {
    this.#refusedBytes += chunk.length;
    if (this.#refusedBytes <= maxErrorBodyBytes) this.#refused.push(chunk);
  }
}

function what(path: string, options: RequestOptions): string {
  return `${options.method ?? 'GET'} ${path}`;
}

function parseOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function one(header: string | readonly string[] | undefined): string | undefined {
  return typeof header === 'string' ? header : header?.[0];
}

/** gzip costs 0.1 s for a 57 MB list and saves nine tenths of the bytes: worth it except here. */
function isLoopback(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, '');
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/** The work's outcome, or the signal's reason; the signal must not have aborted before. */
async function abortable<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let stop: () => void = () => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
