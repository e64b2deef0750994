/** The service proxy's metrics, under the names and buckets kube-proxy gave them. */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import {
  createComponentMetrics,
  type AboutComponent,
  type ComponentMetrics,
} from './component-metrics.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { TableName } from '#pkg/iptables/ruleset.ts';

export interface ProxyMetrics {
  /** Everything as Prometheus text. */
  readonly render: () => Promise<{ readonly contentType: string; readonly body: string }>;
  /** What every component of Kubernetes tells. */
  readonly component: ComponentMetrics;
  readonly queued: (families: Iterable<Family>, atMs: number) => void;
  readonly synced: (sync: SyncReport) => void;
  /** Rules per table that are ours, and those that the last sync wrote. */
  readonly iptablesRules: (
    family: Family,
    rules: ReadonlyMap<TableName, { readonly total: number; readonly written: number }>,
  ) => void;
  readonly restoreFailed: (family: Family, kind: 'full' | 'partial') => void;
  /** A search for stale flows has ended. */
  readonly conntrackCleaned: (family: Family, durationMs: number, deleted: number) => void;
  /** How long a change of endpoints took from its cause to the kernel. */
  readonly programmed: (family: Family, durationMs: number) => void;
  /** Changes that came from the API, and all that wait for a round. */
  readonly changed: (kind: ChangeKind, counts: { readonly seen: number; pending: number }) => void;
  readonly healthAnswered: (endpoint: 'healthz' | 'livez', status: 200 | 503) => void;
}

/** One family's rules, written. */
export interface SyncReport {
  readonly family: Family;
  /** Full = compared with what the kernel has, not with what was last written. */
  readonly kind: 'full' | 'partial';
  readonly durationMs: number;
  readonly atMs: number;
  /** Service ports whose traffic is dropped here, since policy Local finds nothing on this node. */
  readonly noLocalEndpoints: { readonly internal: number; readonly external: number };
}

export type ChangeKind = 'service' | 'endpoint';

/** For dashboards of latency in clusters: 0.25 s to 5 min, the finer the shorter. */
const programming = [
  0.25,
  0.5,
  ...steps(1, 1, 59),
  ...steps(60, 5, 12),
  ...steps(120, 30, 7),
] as const;

const milliseconds = Array.from({ length: 15 }, (_, i) => 0.001 * 2 ** i);

/** @param about undefined = nothing of the component is told, as in tests of other parts */
export function createProxyMetrics(about?: AboutComponent): ProxyMetrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const duration = (name: string, help: string): Histogram<'ip_family'> =>
    new Histogram({
      name: `kubeproxy_${name}`,
      help,
      labelNames: ['ip_family'],
      buckets: milliseconds,
      registers,
    });
  const gauge = <Label extends string>(
    name: string,
    help: string,
    labelNames: readonly Label[],
  ): Gauge<Label> =>
    new Gauge({ name: `kubeproxy_${name}`, help, labelNames: [...labelNames], registers });
  const counter = <Label extends string>(
    name: string,
    help: string,
    labelNames: readonly Label[],
  ): Counter<Label> =>
    new Counter({ name: `kubeproxy_${name}`, help, labelNames: [...labelNames], registers });

  const all = duration('sync_proxy_rules_duration_seconds', 'Time one sync of rules took');
  const full = duration(
    'sync_full_proxy_rules_duration_seconds',
    'Time a sync took that read the kernel first',
  );
  const partial = duration(
    'sync_partial_proxy_rules_duration_seconds',
    'Time a sync took that wrote a known difference',
  );
  const lastSync = gauge('sync_proxy_rules_last_timestamp_seconds', 'When rules were last synced', [
    'ip_family',
  ]);
  const lastQueued = gauge(
    'sync_proxy_rules_last_queued_timestamp_seconds',
    'When a sync of rules was last asked for',
    ['ip_family'],
  );
  const owned = gauge('sync_proxy_rules_iptables_total', 'Rules of the proxy', [
    'table',
    'ip_family',
  ]);
  const written = gauge('sync_proxy_rules_iptables_last', 'Rules written in the last sync', [
    'table',
    'ip_family',
  ]);
  const failures = counter(
    'sync_proxy_rules_iptables_restore_failures_total',
    'Rules that iptables-restore refused',
    ['ip_family'],
  );
  const partialFailures = counter(
    'sync_proxy_rules_iptables_partial_restore_failures_total',
    'Differences that iptables-restore refused',
    ['ip_family'],
  );
  const noLocal = gauge(
    'sync_proxy_rules_no_local_endpoints_total',
    'Service ports with policy Local and no endpoint on this node',
    ['traffic_policy', 'ip_family'],
  );
  const cleaning = duration(
    'conntrack_reconciler_sync_duration_seconds',
    'Time one search for stale UDP flows took',
  );
  const cleaned = counter(
    'conntrack_reconciler_deleted_entries_total',
    'Stale UDP flows removed from connection tracking',
    ['ip_family'],
  );
  const programmed = new Histogram({
    name: 'kubeproxy_network_programming_duration_seconds',
    help: 'Time from a change of a Service or its pods to rules that know of it',
    labelNames: ['ip_family'],
    buckets: [...programming],
    registers,
  });
  const changes = {
    service: changesOf('service', 'Service'),
    endpoint: changesOf('endpoint', 'EndpointSlice'),
  };
  const healthz = counter('proxy_healthz_total', 'Answers of /healthz', ['code']);
  const livez = counter('proxy_livez_total', 'Answers of /livez', ['code']);

  return {
    component: createComponentMetrics(registry, about),
    render: async () => ({ contentType: registry.contentType, body: await registry.metrics() }),
    queued: (families, atMs) => {
      for (const family of families) lastQueued.set({ ip_family: labelOf(family) }, atMs / 1000);
    },
    synced: (sync) => {
      const labels = { ip_family: labelOf(sync.family) };
      for (const histogram of [all, sync.kind === 'full' ? full : partial]) {
        histogram.observe(labels, sync.durationMs / 1000);
      }
      lastSync.set(labels, sync.atMs / 1000);
      for (const policy of ['internal', 'external'] as const) {
        noLocal.set({ ...labels, traffic_policy: policy }, sync.noLocalEndpoints[policy]);
      }
    },
    iptablesRules: (family, rules) => {
      for (const [table, count] of rules) {
        const labels = { ip_family: labelOf(family), table };
        owned.set(labels, count.total);
        written.set(labels, count.written);
      }
    },
    restoreFailed: (family, kind) => {
      failures.inc({ ip_family: labelOf(family) });
      if (kind === 'partial') partialFailures.inc({ ip_family: labelOf(family) });
    },
    conntrackCleaned: (family, durationMs, deleted) => {
      cleaning.observe({ ip_family: labelOf(family) }, durationMs / 1000);
      cleaned.inc({ ip_family: labelOf(family) }, deleted);
    },
    programmed: (family, durationMs) =>
      programmed.observe({ ip_family: labelOf(family) }, durationMs / 1000),
    changed: (kind, { pending, seen }) => {
      changes[kind].pending.set(pending);
      changes[kind].total.inc(seen);
    },
    healthAnswered: (endpoint, status) => {
      (endpoint === 'healthz' ? healthz : livez).inc({ code: String(status) });
    },
  };

  function changesOf(kind: ChangeKind, of: string): { pending: Gauge; total: Counter } {
    const name = `sync_proxy_rules_${kind}_changes`;
    return {
      pending: gauge(`${name}_pending`, `Changes of ${of}s that wait for a sync`, []),
      total: counter(`${name}_total`, `Changes of ${of}s so far`, []),
    };
  }
}

function steps(from: number, width: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => from + i * width);
}

function labelOf(family: Family): 'IPv4' | 'IPv6' {
  return family === 'ip' ? 'IPv4' : 'IPv6';
}
