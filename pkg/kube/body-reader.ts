/** Hands on a response body, decompressed where the server compressed it. */
import { createGunzip } from 'node:zlib';
import { AgentError } from '#pkg/errors/agent-error.ts';

export interface BodyReader {
  write(chunk: Buffer): void;
  /** Resolves when all that was written has been handed on; rejects when it is cut short. */
  end(signal: AbortSignal): Promise<void>;
  /** The exchange failed: hands on nothing more. */
  cancel(): void;
}

/** `encoding` is the Content-Encoding header. What `onChunk` throws comes out of write() or end(). */
export function createBodyReader(
  encoding: string | undefined,
  onChunk: (chunk: Buffer) => void,
): BodyReader {
  if (encoding === undefined || encoding === 'identity') {
    return { write: onChunk, end: () => Promise.resolve(), cancel: () => undefined };
  }
  if (encoding !== 'gzip') {
    throw new AgentError('UnexpectedAnswer', `Cannot read an answer encoded as "${encoding}"`);
  }
  return createGzipReader(onChunk);
}

function createGzipReader(onChunk: (chunk: Buffer) => void): BodyReader {
  const gunzip = createGunzip();
  let failure: { readonly error: unknown } | undefined;
  const ended = Promise.withResolvers<void>();
  const fail = (error: unknown): void => {
    failure ??= { error };
    ended.reject(error);
    gunzip.destroy();
  };
  // Told to whoever writes next or waits for the end; without this it would be unhandled until then.
  ended.promise.catch(() => undefined);

  gunzip.on('data', (chunk: Buffer) => {
    if (failure !== undefined) return;
    try {
      onChunk(chunk);
    } catch (error) {
      fail(error);
    }
  });
  gunzip.on('end', () => ended.resolve());
  gunzip.on('error', fail);

  return {
    write: (chunk) => {
      if (failure !== undefined) throw failure.error;
      gunzip.write(chunk);
    },
    end: async (signal) => {
      const stop = (): void => fail(signal.reason);
      if (signal.aborted) stop();
      else signal.addEventListener('abort', stop, { once: true });
      gunzip.end();
      try {
        await ended.promise;
      } finally {
        signal.removeEventListener('abort', stop);
      }
    },
    cancel: () => {
      fail(new AgentError('Cancelled', 'Cannot read the answer: the exchange failed'));
    },
  };
}
