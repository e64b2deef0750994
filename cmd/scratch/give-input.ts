/** What a test writes to the standard input of a program it started. */
import type { Writable } from 'node:stream';

/**
 * Gives a program all its input. One that needs none of it may have ended already, and then the kernel
 * refuses the write (EPIPE): its answer is what counts.
 */
export function giveInput(stdin: Writable | null, text: string): void {
  stdin?.on('error', () => undefined);
  stdin?.end(text);
}
