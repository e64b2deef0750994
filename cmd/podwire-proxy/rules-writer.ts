/** Keeps one family's iptables equal to what is wanted, at the cost of the difference. */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '#pkg/clock/clock.ts';
import type { Family } from '#pkg/ip/address.ts';
import { afterApply, planIptables, type Step } from '#pkg/iptables/plan.ts';
import type { ObservedRuleset, Rules, Ruleset } from '#pkg/iptables/ruleset.ts';
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
  /** What seemed left to do right after a write, since iptables prints it otherwise than given. */
  let unlike: ReadonlyMap<string, UnlikeStep> = new Map();
  let observedAtMs = Number.NEGATIVE_INFINITY;

  const isDue = (): boolean =>
    have === undefined || clock.now() - observedAtMs >= observeIntervalMs;

  const isUnlike = (step: Step, found: ObservedRuleset): boolean =>
    isDeepStrictEqual(unlike.get(placeOf(step)), { step, printed: rulesAt(step, found) });

  /** Without this the same rules would be written in each round, and somebody else blamed. */
  async function findUnlike(want: Ruleset, signal: AbortSignal): Promise<void> {
    const known = unlike;
    const found = await driver.observe(signal);
    const left = planIptables(want, found);
    unlike = new Map(
      left
        .map((step): UnlikeStep => ({ step, printed: rulesAt(step, found) }))
        .filter(hasAllRules)
        .map((step) => [placeOf(step.step), step]),
    );
    if (unlike.size === 0 || isDeepStrictEqual(known, unlike)) return;
    const shown = { count: unlike.size, first: [...unlike.values()][0] };
    log.warn({ family, ...shown }, 'iptables prints rules otherwise than they were given');
  }

  function reportDrift(expected: ObservedRuleset, found: ObservedRuleset): void {
    const drift = planIptables(expected, found).filter((step) => !isUnlike(step, found));
    if (drift.length === 0) return;
    const chains = drift.map(placeOf);
    const shown = { count: chains.length, chains: chains.slice(0, 20) };
    log.warn({ family, ...shown }, 'Rules were changed by somebody else; putting them back');
  }

  function planFrom(want: Ruleset, found: ObservedRuleset, kind: Written['kind']): Step[] {
    const steps = planIptables(want, found);
    return kind === 'full' ? steps.filter((step) => !isUnlike(step, found)) : steps;
  }

  async function write(want: Ruleset, signal: AbortSignal): Promise<Written> {
    const kind = isDue() ? 'full' : 'partial';
    const expected = have;
    have = undefined;
    written = undefined;
    let present = expected;
    if (present === undefined || kind === 'full') {
      // Before it is read: a doubt that comes meanwhile stands.
      observedAtMs = clock.now();
      present = await driver.observe(signal);
      if (expected !== undefined) reportDrift(expected, present);
    }
    const steps = planFrom(want, present, kind);
    await driver.apply(steps, signal);
    if (kind === 'full' && steps.length > 0) await findUnlike(want, signal);
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

interface UnlikeStep {
  readonly step: Step;
  /** What the chain held then. */
  readonly printed: Rules | undefined;
}

function placeOf({ table, chain }: Step): string {
  return `${table} ${chain}`;
}

/** Fewer or more are no matter of spelling: somebody was faster than our look. */
function hasAllRules({ printed, step }: UnlikeStep): boolean {
  switch (step.op) {
    case 'put-chain':
      return printed?.length === step.rules.length;
    case 'put-jumps':
      return step.remove.length === step.insert.length;
    case 'delete-chain':
      return false;
  }
}

function rulesAt({ table, chain }: Step, found: ObservedRuleset): Rules | undefined {
  return found.tables.find(({ name }) => name === table)?.chains.get(chain);
}
