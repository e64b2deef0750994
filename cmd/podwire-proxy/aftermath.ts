/** What follows from rules that were written: stale flows forgotten, health check ports served. */
import type { Clock } from '#pkg/clock/clock.ts';
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';
import { openConntrack, removeFlows } from '#pkg/conntrack/apply.ts';
import type { SyncTracker } from '#pkg/health/sync-tracker.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { KubeClient } from '#pkg/kube/client.ts';
import { createEventRecorder } from '#pkg/kube/events.ts';
import { serviceType } from '#pkg/kube/resources.ts';
import { objectKey, type NodeRecord, type ServiceRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { ProxyMetrics } from '#pkg/metrics/proxy-metrics.ts';
import { nodePortAnswers } from '#pkg/proxy/node-port-addresses.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { createConntrackCleaner } from './conntrack-cleaner.ts';
import { createHealthCheckServers } from './health-check-servers.ts';
import type { ProxyHost } from './host.ts';
import type { ProxyMode } from './proxy-mode.ts';
import { nodePortAddresses } from './round-options.ts';
import type { AfterWrite } from './round.ts';

export interface AftermathParts {
  readonly config: ProxyConfig;
  readonly mode: Pick<ProxyMode, 'name'>;
  readonly nodeName: string;
  readonly nodes: { get(key: string): NodeRecord | undefined };
  readonly services: { get(key: string): ServiceRecord | undefined };
  readonly client: Pick<KubeClient, 'create' | 'patch'>;
  readonly host: ProxyHost;
  readonly tracker: Pick<SyncTracker<Family>, 'status'>;
  readonly metrics: Pick<ProxyMetrics, 'conntrackCleaned'>;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface Aftermath {
  readonly hooks: readonly AfterWrite[];
  /** Until the signal aborts; then closes what it opened, and resolves. */
  run(signal: AbortSignal): Promise<void>;
}

/** @param signal ends Events that are on their way */
export function createAftermath(parts: AftermathParts, signal: AbortSignal): Aftermath {
  const { client, clock, config, host, log, metrics, nodeName, services } = parts;
  const events = createEventRecorder({ client, clock, component: 'podwire-proxy', nodeName });
  const targets = (family: Family): 'all' | readonly string[] =>
    nodePortAddresses({ config, host, node: parts.nodes.get(nodeName) }, family);

  const cleaner = createConntrackCleaner({
    clock,
    log,
    nodePortAddresses: (family) => {
      const localhost = parts.mode.name === 'iptables' && config.iptables.localhostNodePorts;
      return nodePortAnswers(targets(family), family, { all: host.addresses(), localhost });
    },
    remove: async (search, s) => {
      using kernel = openConntrack(await openSys());
      return await removeFlows(kernel, search, s);
    },
    onCleaned: (family, durationMs, { deleted }) =>
      metrics.conntrackCleaned(family, durationMs, deleted),
  });
  const servers = createHealthCheckServers({
    nodeName,
    log,
    nodePortAddresses: targets,
    isProxyHealthy: () => [...parts.tracker.status().values()].every((part) => part.healthy),
    report: ({ name, namespace }, message) => {
      const uid = services.get(objectKey({ namespace, name }))?.uid ?? '';
      const target = { type: serviceType, namespace, name, uid };
      const event = { target, type: 'Warning', message } as const;
      events
        .record({ ...event, reason: 'FailedToStartServiceHealthcheck' }, signal)
        .catch((err: unknown) => {
          if (!signal.aborted) log.debug({ err, namespace, name }, 'Event not posted');
        });
    },
  });
  return {
    hooks: [cleaner.afterWrite, servers.afterWrite],
    run: async (stop) => {
      await using _ = servers;
      await cleaner.run(stop);
    },
  };
}
