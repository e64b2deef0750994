/**
 * Forgets stale UDP flows beside the loop that writes rules: what has to be looked at waits here
 * until it was looked at, whatever fails meanwhile, and no write waits for it.
 */
import type { Clock } from '#pkg/clock/clock.ts';
import type { FlowSearch, FlowsRemoved, TrackedFlow } from '#pkg/conntrack/flow.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { Logger } from '#pkg/log/logger.ts';
import {
  destinationKey,
  ServedDestinations,
  type ServiceDestination,
} from '#pkg/proxy/flow-destinations.ts';
import { doubtfulDestinations, reviewFlows, type FlowReview } from '#pkg/proxy/stale-flows.ts';
import { createReconcileLoop } from '#pkg/reconcile/loop.ts';
import type { AfterWrite } from './round.ts';

export interface ConntrackCleaner {
  /** What the round tells after a family was written. Only notes; never throws. */
  readonly afterWrite: AfterWrite;
  /** Cleans until the signal aborts, then resolves. */
  run(signal: AbortSignal): Promise<void>;
}

export interface ConntrackCleanerParts {
  readonly remove: (search: FlowSearch, signal: AbortSignal) => Promise<FlowsRemoved>;
  /** Where node ports of a family answer on this node now, canonical. */
  readonly nodePortAddresses: (family: Family) => readonly string[];
  /** Told of each search that came to its end. */
  readonly onCleaned: (family: Family, durationMs: number, removed: FlowsRemoved) => void;
  readonly clock: Clock;
  readonly log: Pick<Logger, 'debug' | 'info' | 'warn'>;
}

/** The kernel walks its whole table for each search: bursts of changes share one. */
const minIntervalMs = 250;
/** Where a search takes long, searching gets a quarter of the time and no more. */
const restShare = 3;
const maxRestMs = 10_000;
/** Nothing comes up by itself; this is how often the loop finds that out. */
const maxIntervalMs = 3_600_000;
const retry = { initialMs: 1_000, maxMs: 60_000 };

const udp = 17;

/** One family's destinations to look at, and the judgement by the rules written last. */
interface Backlog {
  readonly destinations: ReadonlyMap<string, ServiceDestination>;
  readonly review: FlowReview;
}

export function createConntrackCleaner(parts: ConntrackCleanerParts): ConntrackCleaner {
  const { clock, log } = parts;
  const backlogs = new Map<Family, Backlog>();
  const rules = new Map<Family, ServedDestinations>();
  const loop = createReconcileLoop({
    round: cleanAll,
    minIntervalMs,
    maxIntervalMs,
    retry,
    clock,
    onError: (err, retryInMs) => {
      log.warn({ err, retryInMs }, 'Stale UDP flows not removed, will retry');
    },
  });

  async function cleanAll(signal: AbortSignal): Promise<void> {
    const failures: unknown[] = [];
    const startedMs = clock.monotonicMs();
    for (const family of backlogs.keys()) {
      try {
        await clean(family, signal);
      } catch (error) {
        signal.throwIfAborted();
        failures.push(error);
      }
    }
    if (failures.length > 0) throw new AggregateError(failures, 'Cannot remove stale UDP flows');
    const restMs =
      Math.min(maxRestMs, restShare * (clock.monotonicMs() - startedMs)) - minIntervalMs;
    if (restMs > 0) await clock.sleep(restMs, signal).catch(() => undefined);
  }

  async function clean(family: Family, signal: AbortSignal): Promise<void> {
    const backlog = backlogs.get(family);
    if (backlog === undefined) return;
    const startedMs = clock.monotonicMs();
    const { destinations } = backlog.review;
    // Rules written meanwhile have the last word on what is stale.
    const isStale = (flow: TrackedFlow): boolean =>
      (backlogs.get(family) ?? backlog).review.isStale(flow);
    const search = { family, protocol: udp, destinations, isStale };
    const removed = await parts.remove(search, signal);
    const durationMs = clock.monotonicMs() - startedMs;
    parts.onCleaned(family, durationMs, removed);
    const { deleted, listed } = removed;
    const counts = { destinations: backlog.destinations.size, listed, deleted, ms: durationMs };
    if (deleted > 0) log.info({ family, ...counts }, 'Removed stale UDP flows');
    else log.debug({ family, ...counts }, 'No stale UDP flows');
    if (!removed.complete) {
      throw new AgentError(
        'EINTR',
        'Cannot list all tracked connections: the table changed each time it was read',
      );
    }
    // Otherwise there is more to look at since.
    if (backlogs.get(family) === backlog) backlogs.delete(family);
  }

  return {
    afterWrite: (family, changes, { abandoned = [], written }) => {
      if (changes.length === 0 && written === 0) return;
      let served = rules.get(family);
      if (served === undefined) rules.set(family, (served = new ServedDestinations()));
      served.update(changes);
      const waiting = backlogs.get(family)?.destinations ?? [];
      // Rules put back that somebody took away: flows may have begun without them.
      const doubtful = changes.length === 0 ? served.all() : doubtfulDestinations(changes);
      const left = abandoned.map((place) => [destinationKey(place), place] as const);
      const destinations = new Map([...waiting, ...left, ...doubtful]);
      if (destinations.size === 0) return;
      const addresses = parts.nodePortAddresses(family);
      const review = reviewFlows(destinations.values(), served, addresses);
      backlogs.set(family, { destinations, review });
      loop.request();
    },
    run: (signal) => loop.run(signal),
  };
}
