/**
 * Counts what the API changes, and how long it takes from there to the kernel. A round that fails
 * loses nothing: what it took up is measured when it is written at last, unlike in kube-proxy, whose
 * latency metric misses just the slow cases.
 */
import type { Clock } from '#pkg/clock/clock.ts';
import type { SyncTracker } from '#pkg/health/sync-tracker.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { Change, Store } from '#pkg/kube/store.ts';
import type { EndpointSliceRecord, ServiceRecord } from '#pkg/kube/types.ts';
import type { ChangeKind, ProxyMetrics } from '#pkg/metrics/proxy-metrics.ts';

export interface ChangeTrackingParts {
  readonly services: Pick<Store<ServiceRecord>, 'subscribe'>;
  readonly slices: Pick<Store<EndpointSliceRecord>, 'subscribe'>;
  /** Told the same as what this returns. */
  readonly tracker: SyncTracker<Family>;
  readonly metrics: Pick<ProxyMetrics, 'changed' | 'programmed'>;
  readonly clock: Clock;
}

/** A sync tracker that also measures; until disposed of. */
export function trackChanges(parts: ChangeTrackingParts): SyncTracker<Family> & Disposable {
  const { clock, metrics, tracker } = parts;
  /** What happened before is nobody's latency but that of our start. */
  const startedMs = clock.now();
  const pending: Record<ChangeKind, Set<string>> = { service: new Set(), endpoint: new Set() };
  /** When the causes of changes were, by family: not taken up yet, and taken up by a round. */
  const queued = new Map<Family, number[]>();
  const takenUp = new Map<Family, number[]>();

  const services = parts.services.subscribe(look);
  const slices = parts.slices.subscribe(look);

  function look(): void {
    count('service', services.drain());
    const changes = slices.drain();
    count('endpoint', changes);
    for (const { new: slice } of changes) {
      // A slice that is gone says nothing of when that was decided.
      if (slice === undefined || slice.addressType === 'FQDN') continue;
      const family = familyOf(slice);
      const causeMs = Date.parse(slice.triggerTime);
      if (causeMs > startedMs && tracker.status().has(family)) add(queued, family, causeMs);
    }
  }

  function count(kind: ChangeKind, changes: readonly Pick<Change<ServiceRecord>, 'key'>[]): void {
    if (changes.length === 0) return;
    for (const { key } of changes) pending[kind].add(key);
    metrics.changed(kind, { seen: changes.length, pending: pending[kind].size });
  }

  return {
    queued: () => tracker.queued(),
    status: () => tracker.status(),
    roundStarted: () => {
      look();
      for (const kind of ['service', 'endpoint'] as const) {
        pending[kind].clear();
        metrics.changed(kind, { seen: 0, pending: 0 });
      }
      for (const [family, causes] of queued) {
        for (const causeMs of causes) add(takenUp, family, causeMs);
      }
      queued.clear();
      tracker.roundStarted();
    },
    written: (family) => {
      const nowMs = clock.now();
      for (const causeMs of takenUp.get(family) ?? []) {
        metrics.programmed(family, Math.max(0, nowMs - causeMs));
      }
      takenUp.delete(family);
      tracker.written(family);
    },
    failed: (family) => tracker.failed(family),
    [Symbol.dispose]: () => {
      services[Symbol.dispose]();
      slices[Symbol.dispose]();
    },
  };
}

function add(to: Map<Family, number[]>, family: Family, causeMs: number): void {
  const causes = to.get(family);
  if (causes === undefined) to.set(family, [causeMs]);
  else causes.push(causeMs);
}

function familyOf(slice: EndpointSliceRecord): Family {
  return slice.addressType === 'IPv4' ? 'ip' : 'ip6';
}
