/**
 * One round of the proxy: what the API says anew goes into the model of each family, and what the
 * model says is different goes to the mode's writers. Decides nothing itself but what to do when one
 * of the parts fails.
 */
import type { Clock } from '#pkg/clock/clock.ts';
import type { SyncTracker } from '#pkg/health/sync-tracker.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { ProxyMetrics } from '#pkg/metrics/proxy-metrics.ts';
import { countWithoutLocal } from '#pkg/proxy/proxied-port.ts';
import { newsParts } from '#pkg/proxy/model-parts.ts';
import { ServiceModel, type PortChange } from '#pkg/proxy/service-model.ts';
import type { NodeTopology } from '#pkg/proxy/topology.ts';
import { breathe } from '#pkg/reconcile/slices.ts';
import type { ApiFeed } from './api-feed.ts';
import { createProblemLog, type ProblemLog } from './problem-log.ts';
import type { FamilyWriter, ProxyMode, WriteReport } from './proxy-mode.ts';

/**
 * Told after a family was written, in the order of the list, also when nothing changed. `changes`
 * are all since the last success, those of failed rounds included, those of a port in the order they
 * happened, and nothing else is told: a change must not cost what all Services cost. A hook starts
 * what takes time and does not throw: the rules are written whatever becomes of it.
 */
export type AfterWrite = (
  family: Family,
  changes: readonly PortChange[],
  report: WriteReport,
) => void;

/** What so many cost is none of anybody's concern. */
const fewChanges = 100;

export interface RoundParts {
  readonly nodeName: string;
  readonly feed: Pick<ApiFeed, 'take'>;
  readonly nodes: { get(key: string): NodeRecord | undefined };
  readonly mode: Pick<ProxyMode, 'writers'>;
  readonly afterWrite: readonly AfterWrite[];
  readonly tracker: SyncTracker<Family>;
  readonly metrics: Pick<ProxyMetrics, 'synced'>;
  /** Where to tell what cannot be served; undefined = in the log alone. */
  readonly problems?: ProblemLog;
  readonly clock: Clock;
  readonly log: Logger;
}

/** One family, between rounds. */
interface FamilyState {
  readonly model: ServiceModel;
  readonly writer: FamilyWriter;
  /** Not written with success yet: by port, oldest first. */
  readonly pending: Map<string, PortChange[]>;
  /** Nothing was ever written. */
  isFirst: boolean;
  withoutLocal: { readonly internal: number; readonly external: number };
}

/**
 * A round writes what it can; it rejects with an AggregateError when a family was not written, so
 * that the loop tries again, and is idle when the kernel was neither read nor written.
 */
export function createRound(parts: RoundParts): (signal: AbortSignal) => Promise<'idle' | void> {
  const { clock, log, metrics, tracker } = parts;
  const problems = parts.problems ?? createProblemLog(log);
  const states = [...parts.mode.writers].map(([family, writer]): FamilyState => ({
    model: new ServiceModel(family, here()),
    writer,
    pending: new Map(),
    isFirst: true,
    withoutLocal: { internal: 0, external: 0 },
  }));

  function here(): NodeTopology {
    const zone = parts.nodes.get(parts.nodeName)?.labels['topology.kubernetes.io/zone'];
    return { name: parts.nodeName, zone };
  }

  async function round(signal: AbortSignal): Promise<'idle' | void> {
    tracker.roundStarted();
    // One state of the API for both families.
    const node = parts.nodes.get(parts.nodeName);
    const topology = here();
    const news = parts.feed.take();
    for (const state of states) takeIn(state, state.model.moveNode(topology));
    let isFirst = true;
    for (const part of newsParts(news)) {
      // All Services of a large cluster at once would keep /healthz waiting.
      if (!isFirst) await breathe();
      isFirst = false;
      for (const state of states) takeIn(state, state.model.update(part));
    }
    // The last part and what writers do first were one long turn otherwise.
    if (news.services.length + news.slices.length > fewChanges) await breathe();
    const failures: unknown[] = [];
    let isIdle = true;
    for (const state of states) {
      const { family } = state.model;
      try {
        const { kind, written } = await write(state, node, signal);
        isIdle &&= kind === 'partial' && written === 0;
        tracker.written(family);
      } catch (error) {
        signal.throwIfAborted();
        tracker.failed(family);
        failures.push(error);
      }
    }
    problems.report(states.flatMap(({ model }) => model.problems));
    if (failures.length > 0) throw new AggregateError(failures, 'Cannot write all rules');
    if (isIdle) return 'idle';
  }

  async function write(
    state: FamilyState,
    node: NodeRecord | undefined,
    signal: AbortSignal,
  ): Promise<WriteReport> {
    const { family, ports } = state.model;
    const startedMs = clock.monotonicMs();
    const changed = state.isFirst ? 'all' : new Set(state.pending.keys());
    const report = await state.writer.write({ ports, changed, node }, signal);
    const { kind, written } = report;
    const changes = [...state.pending.values()].flat();
    state.pending.clear();
    state.isFirst = false;
    const atMs = clock.now();
    const durationMs = clock.monotonicMs() - startedMs;
    metrics.synced({ family, kind, durationMs, atMs, noLocalEndpoints: state.withoutLocal });
    if (written > 0) {
      const counts = { ports: ports.size, changes: changes.length, written, ms: durationMs };
      log.debug({ family, kind, ...counts }, 'Rules written');
    }
    for (const tell of parts.afterWrite) {
      // Each looks at all changes: at the first write, at all Services.
      if (changes.length > fewChanges) await breathe();
      tell(family, changes, report);
    }
    return report;
  }

  return round;
}

function takeIn(state: FamilyState, changes: readonly PortChange[]): void {
  state.withoutLocal = countAfter(state.withoutLocal, changes);
  for (const change of changes) {
    const { key } = change;
    const earlier = state.pending.get(key);
    if (earlier === undefined) state.pending.set(key, [change]);
    else if (earlier.length < maxPendingOfPort) earlier.push(change);
    else {
      const gone = { key, old: earlier[0]?.old, new: undefined };
      state.pending.set(key, [gone, { key, old: undefined, new: change.new }]);
    }
  }
}

/**
 * So many changes of one port are remembered, each with all endpoints before and after. Where the
 * kernel fails for longer, the port counts as gone and made anew, for which more is looked at.
 */
const maxPendingOfPort = 16;

type Counts = FamilyState['withoutLocal'];

function countAfter(before: Counts, changes: readonly PortChange[]): Counts {
  const olds = countWithoutLocal(changes.flatMap(({ old }) => old ?? []));
  const news = countWithoutLocal(changes.flatMap((change) => change.new ?? []));
  return {
    internal: before.internal - olds.internal + news.internal,
    external: before.external - olds.external + news.external,
  };
}
