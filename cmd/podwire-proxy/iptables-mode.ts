/** The iptables mode's parts: the tools of this node, a writer for each family, the drift watch. */
import type { Clock } from '#pkg/clock/clock.ts';
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';
import { runCommand } from '#pkg/exec/run.ts';
import type { Family } from '#pkg/ip/address.ts';
import { applyIptables } from '#pkg/iptables/apply.ts';
import { detectIptables, type IptablesTool } from '#pkg/iptables/detect.ts';
import { observeIptables } from '#pkg/iptables/observe.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { ProxyMetrics } from '#pkg/metrics/proxy-metrics.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { watchDrift } from './drift.ts';
import type { ProxyHost } from './host.ts';
import { createIptablesWriter, type IptablesWriter } from './iptables-writer.ts';
import type { ProxyMode } from './proxy-mode.ts';
import { createRulesWriter } from './rules-writer.ts';

export interface IptablesModeParts {
  readonly config: ProxyConfig;
  readonly host: ProxyHost;
  readonly metrics: ProxyMetrics;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called when somebody else changed rules: a round should look. */
  readonly request: () => void;
  /** Called when a port is left out since the kernel refuses its rules. */
  readonly onParked: (port: ProxiedPort, error: unknown) => void;
}

/**
 * Where the kernel tells of every change, rules are compared unasked so often, as kube-proxy does:
 * reading those of 20,000 Services takes seconds.
 */
const watchedIntervalMs = 3_600_000;

/**
 * The mode as this node can run it; a node may well have just one family.
 *
 * @throws {AggregateError} when iptables works in none, saying why for each
 */
export async function createIptablesMode(
  parts: IptablesModeParts,
  signal: AbortSignal,
): Promise<ProxyMode> {
  const { clock, config, log, request } = parts;
  const tools = await usableTools(log, signal);
  const writers = new Map<Family, IptablesWriter>();
  const drift = await watchDrift({ tools, writers, clock, log }, request, signal);
  for (const [family, tool] of tools) {
    const driver = {
      observe: (s: AbortSignal) => observeIptables(tool, s),
      apply: (steps: Parameters<typeof applyIptables>[1], s: AbortSignal) =>
        drift.exempt(() => applyIptables(tool, steps, s)),
    };
    const rules = createRulesWriter({
      family,
      driver,
      clock,
      log,
      // It may change while the proxy runs.
      get observeIntervalMs() {
        const { syncPeriodMs } = config.iptables;
        return drift.tellsAll ? Math.max(syncPeriodMs, watchedIntervalMs) : syncPeriodMs;
      },
    });
    const { randomFully } = tool;
    writers.set(family, createIptablesWriter({ ...parts, family, randomFully, rules }));
  }
  return { name: 'iptables', writers, [Symbol.dispose]: () => drift[Symbol.dispose]() };
}

export async function usableTools(
  log: Logger,
  signal: AbortSignal,
): Promise<ReadonlyMap<Family, IptablesTool>> {
  const { failures, tools } = await detectIptables(runCommand, signal);
  for (const [family, tool] of tools) {
    const { backend, version } = tool;
    log.info({ family, backend, iptables: version }, 'Using iptables');
  }
  const errors = [...failures.values()];
  if (tools.size === 0) throw new AggregateError(errors, 'Cannot use iptables in any IP family');
  for (const [family, err] of failures) {
    log.warn({ family, err }, 'Services of this IP family will not work on this node');
  }
  return tools;
}
