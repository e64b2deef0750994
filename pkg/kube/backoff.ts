/** How long a list+watch waits after a failure. */
import { apiErrorIn } from './api-error.ts';

const firstMs = 800;
const maxMs = 30_000;
const maxRetryAfterMs = 60_000;

/**
 * client-go's delays: 0.8 s, doubled up to 30 s, times 1 to 2 at random so that a fleet does not
 * come back at once. A Retry-After of the server (up to 60 s, spread the same way) is the least.
 * `failures` counts those in a row, from 1; `random` gives 0 to 1.
 */
export function backoffMs(failures: number, error: unknown, random: () => number): number {
  const ownMs = Math.min(maxMs, firstMs * 2 ** (failures - 1));
  const askedMs = Math.min(maxRetryAfterMs, apiErrorIn(error)?.retryAfterMs ?? 0);
  return Math.max(ownMs, askedMs) * (1 + random());
}
