import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { createBodyReader } from './body-reader.ts';

const never = new AbortController().signal;

test('after a cancel nothing more is handed on, though it is being decompressed', async () => {
  let bytes = 0;
  const reader = createBodyReader('gzip', (chunk) => (bytes += chunk.length));
  const body = gzipSync(Buffer.alloc(1_000_000));
  reader.write(body);
  reader.cancel();
  await expect(reader.end(never)).rejects.toHaveProperty('code', 'Cancelled');
  // As long as the same work takes that begins only now.
  const other = createBodyReader('gzip', () => undefined);
  other.write(body);
  await other.end(never);
  expect(bytes).toBe(0);
});

test('an abort and what the reader throws end the decompression', async () => {
  const stop = new AbortController();
  const aborted = createBodyReader('gzip', () => undefined);
  aborted.write(gzipSync('text').subarray(0, 10));
  const end = aborted.end(stop.signal);
  stop.abort(new Error('stopped'));
  await expect(end).rejects.toThrow('stopped');

  const broken = createBodyReader('gzip', () => {
    throw new Error('cannot parse');
  });
  broken.write(gzipSync('text'));
  await expect(broken.end(never)).rejects.toThrow('cannot parse');
});

test('an encoding that nobody asked for is refused', () => {
  expect(() => createBodyReader('br', () => undefined)).toThrow('encoded as "br"');
});
