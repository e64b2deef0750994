/** A server on a free port of loopback, for tests. */
import {
  startEmbeddedApi,
  type EmbeddedApi,
  type EmbeddedApiOptions,
} from '#pkg/embedded-api/embedded-api.ts';

export interface TestApi extends AsyncDisposable {
  readonly api: EmbeddedApi;
  /** http://127.0.0.1:<port> */
  readonly url: string;
}

export async function startTestApi(options: EmbeddedApiOptions = {}): Promise<TestApi> {
  const api = await startEmbeddedApi({ listen: [{ host: '127.0.0.1', port: 0 }], ...options });
  const [url = ''] = api.urls;
  return { api, url, [Symbol.asyncDispose]: () => api[Symbol.asyncDispose]() };
}

/** Waits until something holds; fails the test with what it waited for after 20 seconds. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`waited 20 seconds in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
