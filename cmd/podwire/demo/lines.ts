/** Lines of text from a stream. */
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

/**
 * Calls `onLine` for each line. Errors of the stream are its owner's to handle: readline passes them
 * on as its own, and without a listener there one client that resets its connection ends the process.
 */
export function readLines(input: Readable, onLine: (line: string) => void): void {
  createInterface({ input })
    .on('line', onLine)
    .on('error', () => undefined);
}
