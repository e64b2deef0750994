/** Keeps one family's iptables equal to what is wanted, at the cost of the difference. */
import type { Clock } from '#pkg/clock/clock.ts';
import type { Family } from '#pkg/ip/address.ts';
import { afterApply, planIptables, type Step } from '#pkg/iptables/plan.ts';
import type { ObservedRuleset, Ruleset } from '#pkg/iptables/ruleset.ts';
import type { Logger } from '#pkg/log/logger.ts';

/** The two kernel calls this needs. */
export interface RulesDriver {
  observe(signal: AbortSignal): Promise<ObservedRuleset>;
  apply(steps: readonly Step[], signal: AbortSignal): Promise<void>;
}

export interface RulesWriterOptions {
  readonly family: Family;
  readonly driver: RulesDriver;
  /** The kernel is read again this often, against changes by others. */
  readonly observeIntervalMs: number;
  readonly clock: Clock;
  readonly log: Logger;
}

/** What a write did. */
export interface Written {
  /** Full = the kernel was read first. */
  readonly kind: 'full' | 'partial';
  readonly steps: readonly Step[];
}

export interface RulesWriter {
  /** Rejects as the driver does; the next write then starts by reading the kernel. */
  write(want: Ruleset, signal: AbortSignal): Promise<Written>;
  /** Somebody else may have changed the rules: the next write reads the kernel. */
  doubt(): void;
  /** What the kernel holds as far as we know; undefined while that is in doubt. */
  readonly written: Ruleset | undefined;
  /** Whether the next write reads the kernel. */
  readonly nextKind: 'full' | 'partial';
}

export function createRulesWriter(options: RulesWriterOptions): RulesWriter {
  const { clock, driver, family, log, observeIntervalMs } = options;
  /** What the kernel holds as far as we know; undefined = in doubt. */
  let have: ObservedRuleset | undefined;
  let written: Ruleset | undefined;
  let observedAtMs = Number.NEGATIVE_INFINITY;

  const isDue = (): boolean =>
    have === undefined || clock.now() - observedAtMs >= observeIntervalMs;

  function reportDrift(expected: ObservedRuleset, found: ObservedRuleset): void {
    const drift = planIptables(expected, found);
    if (drift.length === 0) return;
    const chains = drift.map(({ table, chain }) => `${table} ${chain}`);
    const shown = { count: chains.length, chains: chains.slice(0, 20) };
    log.warn({ family, ...shown }, 'Rules were changed by somebody else; putting them back');
  }

  async function write(want: Ruleset, signal: AbortSignal): Promise<Written> {
    const kind = isDue() ? 'full' : 'partial';
    const expected = have;
    have = undefined;
    written = undefined;
    let present = expected;
    if (present === undefined || kind === 'full') {
      const startedMs = clock.now();
      present = await driver.observe(signal);
      observedAtMs = startedMs;
      if (expected !== undefined) reportDrift(expected, present);
    }
    const steps = planIptables(want, present);
    await driver.apply(steps, signal);
    have = afterApply(want, present);
    written = want;
    return { kind, steps };
  }

  return {
    write,
    doubt: () => {
      observedAtMs = Number.NEGATIVE_INFINITY;
      written = undefined;
    },
    get written() {
      return written;
    },
    get nextKind() {
      return isDue() ? 'full' : 'partial';
    },
  };
}
