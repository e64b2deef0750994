/** Writes one family's iptables: all of it compared with the kernel, or a difference that is known. */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '#pkg/clock/clock.ts';
import type { Family } from '#pkg/ip/address.ts';
import { pinnedBy, planChange, planInParts, type Step } from '#pkg/iptables/plan.ts';
import type {
  ObservedRuleset,
  Rules,
  Ruleset,
  TableChange,
  TableName,
} from '#pkg/iptables/ruleset.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { partsInSlices } from '#pkg/reconcile/slices.ts';

/** The two kernel calls this needs. */
export interface RulesDriver {
  observe(signal: AbortSignal): Promise<ObservedRuleset>;
  apply(steps: readonly Step[], signal: AbortSignal): Promise<unknown>;
}

export interface RulesWriterOptions {
  readonly family: Family;
  readonly driver: RulesDriver;
  /** The kernel is read again this often, against changes by others; less often where it is slow. */
  readonly observeIntervalMs: number;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface RulesWriter {
  /**
   * Reads the kernel and writes what is different. `expected` is what it should hold before that:
   * others are named for the difference. Logs why it had to, and how long it took. Rejects as the
   * driver does.
   *
   * @param onFound told what the kernel held, before anything is written
   */
  writeAll(
    want: Ruleset,
    expected: Ruleset | undefined,
    signal: AbortSignal,
    onFound?: (found: ObservedRuleset) => void,
  ): Promise<readonly Step[]>;
  /** Writes what became different since the last write, without reading. Rejects as the driver does. */
  writeChange(changes: readonly TableChange[], signal: AbortSignal): Promise<readonly Step[]>;
  /** Somebody else may have changed the rules: the next write should be a full one. */
  doubt(): void;
  /** Full after a failure, a doubt and the interval: then only `writeAll` may be called. */
  readonly nextKind: 'full' | 'partial';
  /** Whether the last write came to its end, so that what it wrote should be there. */
  readonly isKnown: boolean;
  /** What the last write wrote or failed to write. */
  readonly attempted: readonly Step[];
}

/** Comparing takes at most this part of the time: reading 20,000 Services takes a second or two. */
const observeShare = 50;

/** Why everything was compared: people ask when it takes seconds. */
type Cause = 'start' | 'failure' | 'change by others' | 'interval' | 'new options';

export function createRulesWriter(options: RulesWriterOptions): RulesWriter {
  const { clock, driver, family, log } = options;
  let isFirst = true;
  let isKnown = false;
  let dueAtMs = Number.NEGATIVE_INFINITY;
  let attempted: readonly Step[] = [];
  /** Chains that cannot be deleted, as last read. */
  let pinned: ReadonlyMap<TableName, ReadonlySet<string>> = new Map();
  /** What seemed left to do right after a write, since iptables prints it otherwise than given. */
  let unlike: ReadonlyMap<string, UnlikeStep> = new Map();

  const isUnlike = (step: Step, found: ObservedRuleset): boolean =>
    isDeepStrictEqual(unlike.get(placeOf(step)), { step, printed: rulesAt(step, found) });

  /**
   * Steps that are the same after they were written are what iptables prints otherwise than it was
   * given. Without this they would be written in each round, and somebody else blamed.
   */
  async function findUnlike(want: Ruleset, signal: AbortSignal): Promise<void> {
    const known = unlike;
    const found = await driver.observe(signal);
    unlike = new Map(
      (await planSteps(want, found))
        .filter((step) => mayBeUnlike(step, found))
        .map((step) => [placeOf(step), { step, printed: rulesAt(step, found) }]),
    );
    if (unlike.size === 0 || isDeepStrictEqual(known, unlike)) return;
    const shown = { count: unlike.size, first: [...unlike.values()][0] };
    log.warn({ family, ...shown }, 'iptables prints rules otherwise than they were given');
  }

  function reportDrift(steps: readonly Step[]): void {
    if (steps.length === 0) return;
    const chains = steps.map(placeOf);
    const shown = { count: chains.length, chains: chains.slice(0, 20) };
    log.warn({ family, ...shown }, 'Rules were changed by somebody else; put back');
  }

  function causeNow(): Cause {
    if (isFirst) return 'start';
    if (!isKnown) return 'failure';
    if (dueAtMs === Number.NEGATIVE_INFINITY) return 'change by others';
    return clock.monotonicMs() < dueAtMs ? 'new options' : 'interval';
  }

  async function writeAll(
    want: Ruleset,
    expected: Ruleset | undefined,
    signal: AbortSignal,
    onFound: (found: ObservedRuleset) => void = () => undefined,
  ): Promise<readonly Step[]> {
    const cause = causeNow();
    isKnown = false;
    attempted = [];
    const startedMs = clock.monotonicMs();
    // Before it is read: a doubt that comes meanwhile stands.
    dueAtMs = startedMs + options.observeIntervalMs;
    const found = await driver.observe(signal);
    const readMs = clock.monotonicMs() - startedMs;
    onFound(found);
    const isNew = (step: Step): boolean => !isUnlike(step, found);
    const planned = await planSteps(want, found);
    attempted = planned.filter(isNew);
    pinned = pinnedBy(want, found);
    const isDoubted = dueAtMs === Number.NEGATIVE_INFINITY;
    const costMs = clock.monotonicMs() - startedMs;
    if (!isDoubted)
      dueAtMs = startedMs + Math.max(options.observeIntervalMs, observeShare * costMs);
    await driver.apply(attempted, signal);
    // Only then: reading takes as long as all the rest, and changes wait for it.
    if (attempted.some((step) => mayBeUnlike(step, found))) await findUnlike(want, signal);
    if (expected !== undefined) {
      const drift = expected === want ? planned : await planSteps(expected, found);
      reportDrift(drift.filter(isNew));
    }
    isFirst = false;
    isKnown = true;
    const ms = clock.monotonicMs() - startedMs;
    const fields = { family, cause, chains: attempted.length, readMs, ms };
    if (cause === 'interval' && attempted.length === 0) log.debug(fields, 'All rules compared');
    else log.info(fields, 'All rules compared');
    return attempted;
  }

  async function writeChange(
    changes: readonly TableChange[],
    signal: AbortSignal,
  ): Promise<readonly Step[]> {
    isKnown = false;
    attempted = planChange(changes, pinned);
    await driver.apply(attempted, signal);
    isKnown = true;
    return attempted;
  }

  return {
    writeAll,
    writeChange,
    doubt: () => {
      dueAtMs = Number.NEGATIVE_INFINITY;
    },
    get nextKind() {
      return isKnown && clock.monotonicMs() < dueAtMs ? 'partial' : 'full';
    },
    get isKnown() {
      return isKnown;
    },
    get attempted() {
      return attempted;
    },
  };
}

function planSteps(want: Ruleset, found: ObservedRuleset): Promise<Step[]> {
  return partsInSlices(planInParts(want, found));
}

interface UnlikeStep {
  readonly step: Step;
  /** What the chain held then. */
  readonly printed: Rules | undefined;
}

function placeOf({ table, chain }: Step): string {
  return `${table} ${chain}`;
}

/**
 * Whether what a step would change may be there already in other words. Fewer or more rules are no
 * matter of spelling.
 */
function mayBeUnlike(step: Step, found: ObservedRuleset): boolean {
  switch (step.op) {
    case 'put-chain':
      return rulesAt(step, found)?.length === step.rules.length && step.rules.length > 0;
    case 'edit-chain':
      return step.remove.length === step.insert.length;
    case 'delete-chain':
      return false;
  }
}

function rulesAt({ table, chain }: Step, found: ObservedRuleset): Rules | undefined {
  return found.tables.find(({ name }) => name === table)?.chains.get(chain);
}
