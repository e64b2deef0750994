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
import { countWithoutLocal, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { ServiceModel, type PortChange } from '#pkg/proxy/service-model.ts';
import type { NodeTopology } from '#pkg/proxy/topology.ts';
import type { ApiFeed } from './api-feed.ts';
import { createProblemLog, type ProblemLog } from './problem-log.ts';
import type { FamilyWriter, ProxyMode } from './proxy-mode.ts';

/**
 * Told after a family was written, in the order of the list, also when nothing changed. `changes`
 * are all since the last success, those of failed rounds included, in the order they happened;
 * `ports` is what is written now and changes with the next round. A hook starts what takes time and
 * does not throw: the rules are written whatever becomes of it.
 */
export type AfterWrite = (
  family: Family,
  changes: readonly PortChange[],
  ports: ReadonlyMap<string, ProxiedPort>,
) => void;

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
  /** Not written with success yet, oldest first. */
  readonly pending: PortChange[];
  /** Nothing was ever written. */
  isFirst: boolean;
  withoutLocal: { readonly internal: number; readonly external: number };
}

/**
 * A round writes what it can; it rejects with an AggregateError when a family was not written, so
 * that the loop tries again.
 */
export function createRound(parts: RoundParts): (signal: AbortSignal) => Promise<void> {
  const { clock, log, metrics, tracker } = parts;
  const problems = parts.problems ?? createProblemLog(log);
  const states = [...parts.mode.writers].map(([family, writer]): FamilyState => ({
    model: new ServiceModel(family, here()),
    writer,
    pending: [],
    isFirst: true,
    withoutLocal: { internal: 0, external: 0 },
  }));

  function here(): NodeTopology {
    const zone = parts.nodes.get(parts.nodeName)?.labels['topology.kubernetes.io/zone'];
    return { name: parts.nodeName, zone };
  }

  async function round(signal: AbortSignal): Promise<void> {
    tracker.roundStarted();
    // One state of the API for both families.
    const node = parts.nodes.get(parts.nodeName);
    const topology = here();
    const news = parts.feed.take();
    for (const state of states) {
      const changes = [...state.model.moveNode(topology), ...state.model.update(news)];
      state.withoutLocal = countAfter(state.withoutLocal, changes);
      for (const change of changes) state.pending.push(change);
    }
    const failures: unknown[] = [];
    for (const state of states) {
      const { family } = state.model;
      try {
        await write(state, node, signal);
        tracker.written(family);
      } catch (error) {
        signal.throwIfAborted();
        tracker.failed(family);
        failures.push(error);
      }
    }
    problems.report(states.flatMap(({ model }) => model.problems));
    if (failures.length > 0) throw new AggregateError(failures, 'Cannot write all rules');
  }

  async function write(
    state: FamilyState,
    node: NodeRecord | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { family, ports } = state.model;
    const startedMs = clock.now();
    const changed = state.isFirst ? 'all' : new Set(state.pending.map(({ key }) => key));
    const { kind, written } = await state.writer.write({ ports, changed, node }, signal);
    const changes = state.pending.splice(0);
    state.isFirst = false;
    const atMs = clock.now();
    const durationMs = atMs - startedMs;
    metrics.synced({ family, kind, durationMs, atMs, noLocalEndpoints: state.withoutLocal });
    if (written > 0) {
      const counts = { ports: ports.size, changes: changes.length, written, ms: durationMs };
      log.debug({ family, kind, ...counts }, 'Rules written');
    }
    for (const tell of parts.afterWrite) tell(family, changes, ports);
  }

  return round;
}

type Counts = FamilyState['withoutLocal'];

function countAfter(before: Counts, changes: readonly PortChange[]): Counts {
  const olds = countWithoutLocal(changes.flatMap(({ old }) => old ?? []));
  const news = countWithoutLocal(changes.flatMap((change) => change.new ?? []));
  return {
    internal: before.internal - olds.internal + news.internal,
    external: before.external - olds.external + news.external,
  };
}
