/** Long work in slices, so that /healthz and the API's news do not wait for it. */
import { setImmediate } from 'node:timers/promises';
import type { Parts } from './parts.ts';

/** Others get a turn after this long. */
export const sliceMs = 10;

/** Lets others have their turn. */
export async function breathe(): Promise<void> {
  await setImmediate();
}

/** Takes all items, in slices. */
export async function inSlices<T>(items: Iterable<T>, take: (item: T) => void): Promise<void> {
  let startedMs = performance.now();
  for (const item of items) {
    take(item);
    if (performance.now() - startedMs < sliceMs) continue;
    await breathe();
    startedMs = performance.now();
  }
}

/** Runs work to its end, in slices of as many parts as fit, and returns its result. */
export async function partsInSlices<T>(
  work: Parts<T>,
  others: { readonly now: () => number; readonly breathe: () => Promise<void> } = {
    now: () => performance.now(),
    breathe,
  },
): Promise<T> {
  let startedMs = others.now();
  for (;;) {
    const { done, value } = work.next();
    if (done === true) return value;
    if (others.now() - startedMs < sliceMs) continue;
    await others.breathe();
    startedMs = others.now();
  }
}
