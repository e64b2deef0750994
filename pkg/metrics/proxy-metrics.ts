/** The service proxy's metrics, under the names and buckets kube-proxy gave them. */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Family } from '#pkg/ip/address.ts';
import type { TableName } from '#pkg/iptables/ruleset.ts';

export interface ProxyMetrics {
  /** Everything as Prometheus text. */
  readonly render: () => Promise<{ readonly contentType: string; readonly body: string }>;
  readonly queued: (families: Iterable<Family>, atMs: number) => void;
  readonly synced: (sync: SyncReport) => void;
  /** Rules per table that are ours, and those that the last sync wrote. */
  readonly iptablesRules: (
    family: Family,
    rules: ReadonlyMap<TableName, { readonly total: number; readonly written: number }>,
  ) => void;
  readonly restoreFailed: (family: Family, kind: 'full' | 'partial') => void;
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

const milliseconds = Array.from({ length: 15 }, (_, i) => 0.001 * 2 ** i);

export function createProxyMetrics(): ProxyMetrics {
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
  const healthz = counter('proxy_healthz_total', 'Answers of /healthz', ['code']);
  const livez = counter('proxy_livez_total', 'Answers of /livez', ['code']);

  return {
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
    healthAnswered: (endpoint, status) => {
      (endpoint === 'healthz' ? healthz : livez).inc({ code: String(status) });
    },
  };
}

function labelOf(family: Family): 'IPv4' | 'IPv6' {
  return family === 'ip' ? 'IPv4' : 'IPv6';
}
