/** Writes one family's ports as iptables rules, and what the host must allow for them to work. */
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { Step } from '#pkg/iptables/plan.ts';
import type { Ruleset, TableName } from '#pkg/iptables/ruleset.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { ProxyMetrics } from '#pkg/metrics/proxy-metrics.ts';
import { servesLocalhost } from '#pkg/proxy/iptables-options.ts';
import { iptablesRuleset } from '#pkg/proxy/iptables-ruleset.ts';
import { byName, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import type { ProxyHost } from './host.ts';
import type { FamilyWriter } from './proxy-mode.ts';
import { iptablesOptions } from './round-options.ts';
import type { RulesWriter } from './rules-writer.ts';

export interface IptablesWriterParts {
  readonly family: Family;
  /** The iptables here knows MASQUERADE --random-fully. */
  readonly randomFully: boolean;
  readonly rules: RulesWriter;
  readonly config: ProxyConfig;
  readonly host: ProxyHost;
  readonly metrics: ProxyMetrics;
  readonly log: Logger;
}

export interface IptablesWriter extends FamilyWriter {
  /** What the kernel holds as far as we know; undefined while that is in doubt. */
  readonly written: Ruleset | undefined;
}

export function createIptablesWriter(parts: IptablesWriterParts): IptablesWriter {
  const { family, log, metrics, randomFully, rules } = parts;
  let localnetRefused = false;

  /** Only with a node port to serve: the setting concerns the whole host. */
  function openLocalhost(ports: Iterable<ProxiedPort>): void {
    if (![...ports].some((port) => port.nodePort !== 0)) return;
    try {
      parts.host.allowRouteLocalnet();
      localnetRefused = false;
    } catch (err) {
      if (!localnetRefused) log.warn({ err }, 'Node ports will not answer on 127.0.0.1');
      localnetRefused = true;
    }
  }

  return {
    write: async ({ node, ports }, signal) => {
      const kind = rules.nextKind;
      const sorted = [...ports.values()].toSorted(byName);
      const options = iptablesOptions({ ...parts, node }, { family, randomFully });
      const want = iptablesRuleset(sorted, options);
      try {
        const { steps } = await rules.write(want, signal);
        const counts = countRules(want, steps);
        metrics.iptablesRules(family, counts);
        // After the rules: among them is the guard of what this opens.
        if (servesLocalhost(options)) openLocalhost(sorted);
        return { kind, written: sum([...counts.values()].map((count) => count.written)) };
      } catch (error) {
        if (isErrno(error, 'IptablesRestoreFailed')) metrics.restoreFailed(family, kind);
        throw error;
      }
    },
    doubt: () => rules.doubt(),
    get written() {
      return rules.written;
    },
  };
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
