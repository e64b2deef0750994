/** Remembers whether a server streams lists (KEP-3157), for all list+watches of that server. */
import type { Clock } from '#pkg/clock/clock.ts';

export interface WatchListSupport {
  mayWork(): boolean;
  /** The server has just said no. */
  refused(): void;
}

/** Asked again after this: the server may have been upgraded, or another one answers. */
const rememberMs = 10 * 60_000;

/** What is known of a server: that it streams lists, unless it has refused to of late. */
export function createWatchListSupport(clock: Clock): WatchListSupport {
  let refusedUntilMs = -Infinity;
  return {
    mayWork: () => clock.monotonicMs() >= refusedUntilMs,
    refused: () => {
      refusedUntilMs = clock.monotonicMs() + rememberMs;
    },
  };
}
