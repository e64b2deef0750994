/** What follows from rules that were written: stale flows forgotten, health check ports served. */
import type { Clock } from '#pkg/clock/clock.ts';
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';
import { openConntrack, removeFlows } from '#pkg/conntrack/apply.ts';
import type { SyncTracker } from '#pkg/health/sync-tracker.ts';
import type { Family } from '#pkg/ip/address.ts';
import { objectKey, type NodeRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { ProxyMetrics } from '#pkg/metrics/proxy-metrics.ts';
import { nodePortAnswers } from '#pkg/proxy/node-port-addresses.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { createConntrackCleaner } from './conntrack-cleaner.ts';
import { createHealthCheckServers } from './health-check-servers.ts';
import type { ProxyHost } from './host.ts';
import type { ProxyEvents } from './proxy-events.ts';
import type { ProxyMode } from './proxy-mode.ts';
import { nodePortAddresses } from './round-options.ts';
import type { AfterWrite } from './round.ts';

export interface AftermathParts {
  readonly config: ProxyConfig;
  readonly mode: Pick<ProxyMode, 'name'>;
  readonly nodeName: string;
  readonly nodes: { get(key: string): NodeRecord | undefined };
  readonly events: Pick<ProxyEvents, 'ofProblem'>;
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

export function createAftermath(parts: AftermathParts): Aftermath {
  const { clock, config, host, log, metrics, nodeName } = parts;
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
    report: (service, problem) =>
      parts.events.ofProblem(
        { kind: 'Service', object: objectKey(service), problem },
        'FailedToStartServiceHealthcheck',
      ),
  });
  return {
    hooks: [cleaner.afterWrite, servers.afterWrite],
    run: async (stop) => {
      await using _ = servers;
      await cleaner.run(stop);
    },
  };
}
