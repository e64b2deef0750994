/**
 * One round of the proxy: what the API says now, rendered for each family and written. Decides
 * nothing itself but what to do when one of the parts fails.
 */
import type { Clock } from '#pkg/clock/clock.ts';
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { SyncTracker } from '#pkg/health/sync-tracker.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { Step } from '#pkg/iptables/plan.ts';
import type { Ruleset, TableName } from '#pkg/iptables/ruleset.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { ProxyMetrics } from '#pkg/metrics/proxy-metrics.ts';
import { servesLocalhost } from '#pkg/proxy/iptables-options.ts';
import { iptablesRuleset } from '#pkg/proxy/iptables-ruleset.ts';
import { byName, countWithoutLocal, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { ServiceModel } from '#pkg/proxy/service-model.ts';
import type { NodeTopology } from '#pkg/proxy/topology.ts';
import type { ApiFeed } from './api-feed.ts';
import type { ProxyHost } from './host.ts';
import { createProblemLog } from './problem-log.ts';
import { iptablesOptions } from './round-options.ts';
import type { RulesWriter } from './rules-writer.ts';

export interface FamilyParts {
  readonly writer: RulesWriter;
  /** The iptables here knows MASQUERADE --random-fully. */
  readonly randomFully: boolean;
}

export interface RoundParts {
  readonly config: ProxyConfig;
  readonly nodeName: string;
  readonly feed: Pick<ApiFeed, 'take'>;
  readonly nodes: { get(key: string): NodeRecord | undefined };
  readonly families: ReadonlyMap<Family, FamilyParts>;
  readonly host: ProxyHost;
  readonly tracker: SyncTracker<Family>;
  readonly metrics: ProxyMetrics;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * A round writes what it can; it rejects with an AggregateError when a family was not written, so
 * that the loop tries again.
 */
export function createRound(parts: RoundParts): (signal: AbortSignal) => Promise<void> {
  const { clock, families, log, metrics, tracker } = parts;
  const problems = createProblemLog(log);
  const models = [...families.keys()].map((family) => new ServiceModel(family, here()));
  let localnetRefused = false;

  function here(): NodeTopology {
    const zone = parts.nodes.get(parts.nodeName)?.labels['topology.kubernetes.io/zone'];
    return { name: parts.nodeName, zone };
  }

  async function round(signal: AbortSignal): Promise<void> {
    tracker.roundStarted();
    // One state of the API for both families.
    const node = parts.nodes.get(parts.nodeName);
    const news = parts.feed.take();
    for (const model of models) {
      model.moveNode(here());
      model.update(news);
    }
    const failures: unknown[] = [];
    for (const { family, ports } of models) {
      const randomFully = families.get(family)?.randomFully ?? false;
      const sorted = [...ports.values()].toSorted(byName);
      try {
        const options = iptablesOptions({ ...parts, node }, { family, randomFully });
        await write(iptablesRuleset(sorted, options), sorted, signal);
        // After the rules: among them is the guard of what this opens.
        if (servesLocalhost(options)) openLocalhost(sorted);
        tracker.written(family);
      } catch (error) {
        signal.throwIfAborted();
        tracker.failed(family);
        failures.push(error);
      }
    }
    problems.report(models.flatMap((model) => model.problems));
    if (failures.length > 0) throw new AggregateError(failures, 'Cannot write all rules');
  }

  async function write(
    want: Ruleset,
    ports: readonly ProxiedPort[],
    signal: AbortSignal,
  ): Promise<void> {
    const { family } = want;
    const writer = families.get(family)?.writer;
    if (writer === undefined) return;
    const startedMs = clock.now();
    const kind = writer.nextKind;
    try {
      const { steps } = await writer.write(want, signal);
      const atMs = clock.now();
      metrics.synced({
        family,
        kind,
        durationMs: atMs - startedMs,
        atMs,
        rules: countRules(want, steps),
        noLocalEndpoints: countWithoutLocal(ports),
      });
      const counts = { ports: ports.length, steps: steps.length, ms: atMs - startedMs };
      if (steps.length > 0) log.debug({ family, kind, ...counts }, 'Rules written');
    } catch (error) {
      if (isErrno(error, 'IptablesRestoreFailed')) metrics.restoreFailed(family, kind);
      throw error;
    }
  }

  /** Only with a node port to serve: the setting concerns the whole host. */
  function openLocalhost(ports: readonly ProxiedPort[]): void {
    if (!ports.some((port) => port.nodePort !== 0)) return;
    try {
      parts.host.allowRouteLocalnet();
      localnetRefused = false;
    } catch (err) {
      if (!localnetRefused) log.warn({ err }, 'Node ports will not answer on 127.0.0.1');
      localnetRefused = true;
    }
  }

  return round;
}

function countRules(
  want: Ruleset,
  steps: readonly Step[],
): Map<TableName, { readonly total: number; readonly written: number }> {
  return new Map(
    want.tables.map(({ chains, jumps, name }) => [
      name,
      {
        total: sum([...chains.values(), ...jumps.values()].map((rules) => rules.length)),
        written: sum(steps.filter((step) => step.table === name).map(rulesIn)),
      },
    ]),
  );
}

function rulesIn(step: Step): number {
  switch (step.op) {
    case 'put-chain':
      return step.rules.length;
    case 'put-jumps':
      return step.insert.length;
    case 'delete-chain':
      return 0;
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, n) => total + n, 0);
}
