/** One request and its answer, the same over HTTP/1.1 and HTTP/2. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { constants, Http2ServerResponse, type Http2ServerRequest } from 'node:http2';
import type { Writable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { bodyTooLarge, type ApiError } from '#pkg/embedded-api/api-error.ts';
import type { Json } from '#pkg/embedded-api/json.ts';

export type HttpRequest = Http2ServerRequest | IncomingMessage;
export type HttpResponse = Http2ServerResponse | ServerResponse;

/** etcd's limit on a request, which kube-apiserver takes over for bodies (3 MiB). */
const maxBodyBytes = 3 * 1024 * 1024;

export class Exchange {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  /** Aborts when the client has gone or the answer is complete. */
  readonly ended: AbortSignal;

  constructor(request: HttpRequest, response: HttpResponse) {
    // As it is written: what begins with two slashes is a path, too, and no name of a host.
    const url = new URL(`http://localhost/${(request.url ?? '').replace(/^\//, '')}`);
    const ended = new AbortController();
    this.method = request.method ?? 'GET';
    this.path = url.pathname;
    this.query = url.searchParams;
    // HTTP/2's compatibility API has the same calls; only their overloads are declared apart.
    this.#request = request as IncomingMessage;
    this.#response = response as ServerResponse;
    this.ended = ended.signal;
    // A client that goes away is no error of ours; without a listener it would end the process.
    const ignore = (): void => undefined;
    this.#request.on('error', ignore);
    this.#response.on('error', ignore);
    this.#response.on('close', () => ended.abort());
  }

  /** A request header as one text; '' when absent. */
  header(name: string): string {
    const value = this.#request.headers[name];
    return Array.isArray(value) ? value.join(',') : (value ?? '');
  }

  /** The media type of the body, in lower case without parameters. */
  get mediaType(): string {
    return (this.header('content-type').split(';')[0] ?? '').trim().toLowerCase();
  }

  /**
   * The whole body as text.
   *
   * @throws {ApiError} RequestEntityTooLarge
   */
  async readBody(): Promise<string> {
    return (await this.readBytes()).toString();
  }

  /** As {@link readBody}, the bytes. */
  async readBytes(): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of this.#request as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > maxBodyBytes) throw bodyTooLarge(maxBodyBytes);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }

  sendJson(httpCode: number, body: Json, type = 'application/json'): void {
    this.#send(httpCode, type, `${JSON.stringify(body)}\n`);
  }

  sendText(httpCode: number, text: string): void {
    this.#send(httpCode, 'text/plain; charset=utf-8', text);
  }

  /** Answers with a refusal: its Status object, and when to come back. */
  sendError(error: ApiError): void {
    const seconds = error.retryAfterSeconds;
    if (seconds !== undefined && !this.#response.headersSent) {
      this.#response.setHeader('retry-after', String(seconds));
    }
    this.sendJson(error.httpCode, error.status);
  }

  /** Begins an answer of unknown length. */
  startStream(headers: Readonly<Record<string, string>>): void {
    this.#response.writeHead(200, { 'cache-control': 'no-cache, private', ...headers });
    // HTTP/1.1 would keep the head until the first piece; the client of a quiet watch waits for it.
    if (!(this.#response instanceof Http2ServerResponse)) this.#response.flushHeaders();
  }

  /** Where the pieces of a stream go, for a pipeline. */
  get sink(): Writable {
    return this.#response;
  }

  /** Sends one piece of a stream; resolves when the client is ready for more, or gone. */
  async write(text: string): Promise<void> {
    if (this.ended.aborted) return;
    if (!this.#response.write(text)) await this.#drained();
    // A client that reads as fast as we write would keep other requests from getting their turn.
    await setImmediate();
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#response.off('drain', done);
        this.ended.removeEventListener('abort', done);
        resolve();
      };
      this.#response.on('drain', done);
      this.ended.addEventListener('abort', done);
    });
  }

  /** Sends one piece without waiting; what the client does not read is kept in memory. */
  writeNow(text: string): void {
    if (!this.ended.aborted) this.#response.write(text);
  }

  /** Bytes written that the client has not taken yet. */
  get pendingBytes(): number {
    return this.#response.writableLength;
  }

  end(): void {
    this.#response.end();
  }

  /** Cuts the connection (HTTP/2: resets the stream), without ending the answer. */
  cut(): void {
    const response: HttpResponse = this.#response;
    if (response instanceof Http2ServerResponse)
      response.stream.close(constants.NGHTTP2_INTERNAL_ERROR);
    else response.socket?.destroy();
  }

  #send(httpCode: number, type: string, text: string): void {
    if (this.ended.aborted || this.#response.headersSent) return;
    this.#response.writeHead(httpCode, {
      'content-type': type,
      'content-length': String(Buffer.byteLength(text)),
      'cache-control': 'no-cache, private',
    });
    this.#response.end(text);
  }
}
