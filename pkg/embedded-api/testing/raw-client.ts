/** HTTP without a client library, for tests that look at what is on the wire. */
import { textAt, type Json, type JsonObject } from '#pkg/embedded-api/json.ts';

export interface Answer {
  readonly httpCode: number;
  readonly body: JsonObject;
  readonly headers: Headers;
}

export interface RequestOptions {
  readonly method?: string;
  readonly body?: Json;
  readonly contentType?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** One request and its JSON answer. */
export async function request(url: string, options: RequestOptions = {}): Promise<Answer> {
  const { body } = options;
  const response = await fetch(url, {
    method: options.method ?? (body === undefined ? 'GET' : 'POST'),
    headers: { 'content-type': options.contentType ?? 'application/json', ...options.headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  return {
    httpCode: response.status,
    body: (await response.json()) as JsonObject,
    headers: response.headers,
  };
}

/** The events of a watch, one after the other; leaving the loop ends the watch. */
export class WatchReader implements AsyncDisposable {
  readonly httpCode: number;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  readonly #decoder = new TextDecoder();
  #buffered = '';

  private constructor(response: Response) {
    this.httpCode = response.status;
    this.#reader = response.body?.getReader();
  }

  static async open(url: string): Promise<WatchReader> {
    return new WatchReader(await fetch(url));
  }

  /** The next event; undefined when the server ended the watch. Rejects when it was cut. */
  async next(): Promise<JsonObject | undefined> {
    for (;;) {
      const newline = this.#buffered.indexOf('\n');
      if (newline >= 0) {
        const line = this.#buffered.slice(0, newline);
        this.#buffered = this.#buffered.slice(newline + 1);
        return JSON.parse(line) as JsonObject;
      }
      const { done, value } = (await this.#reader?.read()) ?? { done: true, value: undefined };
      if (done) return undefined;
      this.#buffered += this.#decoder.decode(value, { stream: true });
    }
  }

  /** The next `count` events, as "ADDED name". */
  async names(count: number): Promise<string[]> {
    const seen: string[] = [];
    while (seen.length < count) {
      const event = await this.next();
      if (event === undefined) break;
      seen.push(`${textAt(event, 'type')} ${textAt(event, 'object', 'metadata', 'name')}`);
    }
    return seen;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reader?.cancel().catch(() => undefined);
  }
}
