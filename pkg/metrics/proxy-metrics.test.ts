import { describe, expect, it } from 'vitest';
import { createProxyMetrics, type ProxyMetrics } from './proxy-metrics.ts';

/** From 0.001 s, each twice the one before: 15 of them. */
const sync =
  '0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 16.384';
const upTo59 = Array.from({ length: 59 }, (_, i) => i + 1).join(' ');
const programming = `0.25 0.5 ${upTo59} 60 65 70 75 80 85 90 95 100 105 110 115 120 150 180 210 240 270 300`;
const request = '0.005 0.025 0.1 0.25 0.5 1 2 4 8 15 30 60';

/**
 * Name, type, labels and (of histograms) buckets, as kube-proxy 1.36 has them in mode iptables. The
 * nfacct counters are not among them: they need objects in the kernel that this proxy does not make.
 */
const kubeProxy: readonly (readonly [string, string, string, string?])[] = [
  [
    'kubernetes_build_info',
    'gauge',
    'build_date compiler git_commit git_tree_state git_version go_version major minor platform',
  ],
  ['kubernetes_feature_enabled', 'gauge', 'name stage'],
  ['kubeproxy_conntrack_reconciler_deleted_entries_total', 'counter', 'ip_family'],
  ['kubeproxy_conntrack_reconciler_sync_duration_seconds', 'histogram', 'ip_family', sync],
  ['kubeproxy_network_programming_duration_seconds', 'histogram', 'ip_family', programming],
  ['kubeproxy_proxy_healthz_total', 'counter', 'code'],
  ['kubeproxy_proxy_livez_total', 'counter', 'code'],
  ['kubeproxy_sync_full_proxy_rules_duration_seconds', 'histogram', 'ip_family', sync],
  ['kubeproxy_sync_partial_proxy_rules_duration_seconds', 'histogram', 'ip_family', sync],
  ['kubeproxy_sync_proxy_rules_duration_seconds', 'histogram', 'ip_family', sync],
  ['kubeproxy_sync_proxy_rules_endpoint_changes_pending', 'gauge', ''],
  ['kubeproxy_sync_proxy_rules_endpoint_changes_total', 'counter', ''],
  ['kubeproxy_sync_proxy_rules_iptables_last', 'gauge', 'ip_family table'],
  ['kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total', 'counter', 'ip_family'],
  ['kubeproxy_sync_proxy_rules_iptables_restore_failures_total', 'counter', 'ip_family'],
  ['kubeproxy_sync_proxy_rules_iptables_total', 'gauge', 'ip_family table'],
  ['kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds', 'gauge', 'ip_family'],
  ['kubeproxy_sync_proxy_rules_last_timestamp_seconds', 'gauge', 'ip_family'],
  ['kubeproxy_sync_proxy_rules_no_local_endpoints_total', 'gauge', 'ip_family traffic_policy'],
  ['kubeproxy_sync_proxy_rules_service_changes_pending', 'gauge', ''],
  ['kubeproxy_sync_proxy_rules_service_changes_total', 'counter', ''],
  ['process_cpu_seconds_total', 'counter', ''],
  ['process_max_fds', 'gauge', ''],
  ['process_open_fds', 'gauge', ''],
  ['process_resident_memory_bytes', 'gauge', ''],
  ['process_start_time_seconds', 'gauge', ''],
  ['process_virtual_memory_bytes', 'gauge', ''],
  ['rest_client_request_duration_seconds', 'histogram', 'host verb', request],
  ['rest_client_requests_total', 'counter', 'code host method'],
];

/** One that has been through everything once. */
function used(): ProxyMetrics {
  const featureGates = [{ name: 'NFTablesProxyMode', stage: '', enabled: true }];
  const about = { version: '1.2.3', platform: 'linux/amd64', nodeVersion: 'v26', featureGates };
  const metrics = createProxyMetrics(about);
  const noLocalEndpoints = { internal: 1, external: 2 };
  for (const kind of ['full', 'partial'] as const) {
    metrics.synced({ family: 'ip', kind, durationMs: 5, atMs: 6, noLocalEndpoints });
  }
  metrics.iptablesRules('ip6', new Map([['nat', { total: 3, written: 2 }]]));
  metrics.queued(['ip'], 1);
  metrics.restoreFailed('ip', 'partial');
  metrics.conntrackCleaned('ip', 5, 1);
  metrics.programmed('ip', 1_500);
  metrics.changed('service', { seen: 2, pending: 1 });
  metrics.changed('endpoint', { seen: 1, pending: 1 });
  metrics.healthAnswered('healthz', 200);
  metrics.healthAnswered('livez', 503);
  metrics.component.apiAnswered({ method: 'GET', host: 'a:1', status: 200, durationMs: 20 });
  metrics.component.apiAnswered({ method: 'GET', host: 'a:1', status: undefined, durationMs: 20 });
  return metrics;
}

interface Described {
  readonly type: string;
  readonly labels: Set<string>;
  readonly buckets: string[];
}

/** Prometheus text (exposition format 0.0.4) by metric. */
function describeText(text: string): Map<string, Described> {
  const found = new Map<string, Described>();
  for (const line of text.split('\n')) {
    const [, name = '', type] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? [];
    if (type !== undefined) found.set(name, { type, labels: new Set(), buckets: [] });
    const [, sample = '', inside = ''] = /^(\w+)(?:\{(.*)\})? \S+$/.exec(line) ?? [];
    const metric = found.get(sample) ?? found.get(sample.replace(/_(?:bucket|sum|count)$/, ''));
    if (metric === undefined) continue;
    for (const [, label = '', value = ''] of inside.matchAll(/(\w+)="([^"]*)"/g)) {
      if (label !== 'le') metric.labels.add(label);
      else if (value !== '+Inf' && !metric.buckets.includes(value)) metric.buckets.push(value);
    }
  }
  return found;
}

describe("the proxy's metrics", () => {
  it("are kube-proxy's, by name, type, label and bucket", async () => {
    const found = describeText((await used().render()).body);
    // Node.js tells more of itself than Go does.
    const ours = [...found].filter(
      ([name]) => !/^nodejs_|^process_(?:heap|cpu_(?:user|system))/.test(name),
    );
    expect(
      ours
        .map(([name, { buckets, labels, type }]) => [
          name,
          type,
          [...labels].toSorted().join(' '),
          ...(type === 'histogram' ? [buckets.join(' ')] : []),
        ])
        .toSorted(),
    ).toEqual(kubeProxy.toSorted());
  });

  it('hold what was told', async () => {
    const { body } = await used().render();
    for (const line of [
      'kubeproxy_network_programming_duration_seconds_sum{ip_family="IPv4"} 1.5',
      'kubeproxy_network_programming_duration_seconds_bucket{le="1",ip_family="IPv4"} 0',
      'kubeproxy_network_programming_duration_seconds_bucket{le="2",ip_family="IPv4"} 1',
      'kubeproxy_sync_proxy_rules_service_changes_total 2',
      'kubeproxy_sync_proxy_rules_service_changes_pending 1',
      'kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="external"} 2',
      'kubernetes_feature_enabled{name="NFTablesProxyMode",stage=""} 1',
      'rest_client_requests_total{code="200",method="GET",host="a:1"} 1',
      'rest_client_requests_total{code="<error>",method="GET",host="a:1"} 1',
    ]) {
      expect(body.split('\n')).toContain(line);
    }
  });

  it('of health checks are apart', async () => {
    const metrics = createProxyMetrics();
    metrics.component.healthChecked('ping');
    const { body } = await metrics.component.renderSlis();
    expect(body).toContain('kubernetes_healthcheck{name="ping",type="healthz"} 1');
    expect(body).toContain(
      'kubernetes_healthchecks_total{name="ping",status="success",type="healthz"} 1',
    );
  });
});
