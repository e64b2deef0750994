/** Whether a daemon still hears of changes, in words for /healthz. */
import type { Clock } from '#pkg/clock/clock.ts';
import { downSinceMs, type ListWatchStats } from './list-watch-stats.ts';

/**
 * A sentence for each watch that is down for longer than is tolerated: servers restart, connections
 * are cut, and that is no reason yet. `watches` are named by what they watch.
 */
export function staleness(
  watches: Readonly<Record<string, { readonly stats: ListWatchStats }>>,
  { clock, toleratedMs }: { readonly clock: Clock; readonly toleratedMs: number },
): string[] {
  return Object.entries(watches).flatMap(([name, { stats }]) => {
    const nowMs = clock.monotonicMs();
    const downMs = nowMs - (downSinceMs(stats, nowMs) ?? nowMs);
    if (downMs <= toleratedMs) return [];
    const since = new Date(clock.now() - downMs).toISOString();
    return [`the watch of ${name} is down since ${since}: ${stats.lastError}`];
  });
}
