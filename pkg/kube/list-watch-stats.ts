/** What a list+watch has done so far, as plain numbers for metrics and readiness. */
import { apiErrorIn } from './api-error.ts';

export interface ListWatchStats {
  readonly lists: number;
  /** Watches opened, those with initial events among them. */
  readonly watches: number;
  readonly events: number;
  readonly bookmarks: number;
  /** Objects left out because they could not be read. */
  readonly rejected: number;
  /** Failures by class: an HTTP status ("410"), an errno ("ECONNREFUSED") or a code of ours. */
  readonly errors: Readonly<Record<string, number>>;
  /** When the last byte arrived, in milliseconds since the Unix epoch; 0 = never. */
  readonly lastByteAtMs: number;
  /** When the last complete list was taken over; 0 = never. */
  readonly syncedAtMs: number;
  /** The first failure since the last proof that the server answers, by the monotonic clock; 0 = none. */
  readonly failingSinceMs: number;
  /** The class of the last failure; empty = none yet. */
  readonly lastError: string;
  /** When the present watch was accepted, by the monotonic clock; 0 = none is open. */
  readonly openedAtMs: number;
}

/** A watch that has been open this long works, even when nothing happens in it. */
export const provenAfterMs = 2_000;

/**
 * Since when nothing is heard of changes; undefined while the list+watch works, or has not begun.
 *
 * @param nowMs by the monotonic clock, as the answer
 */
export function downSinceMs(stats: ListWatchStats, nowMs: number): number | undefined {
  if (stats.failingSinceMs === 0) return undefined;
  const isProven = stats.openedAtMs !== 0 && nowMs - stats.openedAtMs >= provenAfterMs;
  return isProven ? undefined : stats.failingSinceMs;
}

/** The one who counts writes; everybody else reads. */
export type MutableStats = { -readonly [K in keyof ListWatchStats]: ListWatchStats[K] };

/** All zero. */
export function createStats(): MutableStats {
  return {
    lists: 0,
    watches: 0,
    events: 0,
    bookmarks: 0,
    rejected: 0,
    errors: {},
    lastByteAtMs: 0,
    syncedAtMs: 0,
    failingSinceMs: 0,
    lastError: '',
    openedAtMs: 0,
  };
}

/** The class of a failure: few values, all of them known in advance, as metric labels need. */
export function errorClass(error: unknown): string {
  const refusal = apiErrorIn(error);
  if (refusal !== undefined) return String(refusal.status);
  let found = 'other';
  // The innermost code says most: ECONNREFUSED rather than ConnectFailed.
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if ('code' in at && typeof at.code === 'string') found = at.code;
  }
  return found;
}
