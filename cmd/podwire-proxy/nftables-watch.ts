/**
 * Notices that somebody else changed our tables. Once a second it asks the kernel for the number of
 * its last transaction, which costs microseconds; only when that is not our own it looks at rules,
 * and at how many elements there are. Listening to the kernel's events instead would make it tell of
 * each element we write ourselves.
 */
import type { Clock } from '#pkg/clock/clock.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { TableStructure } from '#pkg/nfnetlink/table-structure.ts';
import { compareStructure } from '#pkg/proxy/nftables-structure.ts';
import type { NftablesDriver } from './nftables-driver.ts';
import type { Generations } from './nftables-generations.ts';
import type { ExpectedTable, NftablesWriter } from './nftables-writer.ts';

export interface WatchedFamily {
  readonly driver: NftablesDriver;
  readonly writer: NftablesWriter;
}

export interface NftablesWatchParts {
  readonly families: ReadonlyMap<Family, WatchedFamily>;
  readonly generations: Generations;
  readonly clock: Clock;
  readonly log: Logger;
  /** A table is not as we left it. */
  readonly onDrift: () => void;
}

const intervalMs = 1_000;

/**
 * A change that keeps rules and counts shows only to who reads everything: so often, if anybody
 * changed anything. Kernels before 6.16 do not count: there any other's transaction is a suspicion.
 */
const deepIntervalMs = 3_600_000;
const deepIntervalWithoutCountsMs = 300_000;

/** Runs until the signal aborts. */
export async function watchNftablesDrift(
  parts: NftablesWatchParts,
  signal: AbortSignal,
): Promise<void> {
  const { clock, families, generations, log } = parts;
  const deepAtMs = new Map([...families.keys()].map((family) => [family, clock.monotonicMs()]));
  for (;;) {
    await clock.sleep(intervalMs, signal).catch(() => undefined);
    if (signal.aborted) return;
    try {
      for (const { writer } of families.values()) await writer.forgetAgain();
      const { isFamiliar, number } = generations.look();
      if (isFamiliar) continue;
      const looks = [...families].map(([family, watched]) => look(family, watched));
      if (looks.every((isWell) => isWell)) generations.trust(number);
    } catch (err) {
      log.debug({ err }, 'Cannot ask whether tables are as they were');
    }
  }

  /** Whether the family's table is as it was left; false also while that cannot be told. */
  function look(family: Family, { driver, writer }: WatchedFamily): boolean {
    const { expected } = writer;
    if (expected === undefined) return false;
    const structure = driver.structure();
    const finding = differs(expected, structure);
    const knowsCounts = [...(structure?.sets.values() ?? [])].some((n) => n !== undefined);
    const patienceMs = knowsCounts ? deepIntervalMs : deepIntervalWithoutCountsMs;
    const isDue = clock.monotonicMs() - (deepAtMs.get(family) ?? 0) > patienceMs;
    if (finding === undefined && !isDue) return true;
    if (finding !== undefined) log.warn({ family, finding }, 'Somebody changed our table');
    deepAtMs.set(family, clock.monotonicMs());
    writer.doubt();
    parts.onDrift();
    return false;
  }
}

/** What differs, in words; undefined when all that is cheap to see is as it should be. */
export function differs(
  expected: ExpectedTable,
  structure: TableStructure | undefined,
): string | undefined {
  if (structure === undefined) return 'the table is gone';
  const verdict = compareStructure(expected.skeleton, structure);
  if (verdict.kind === 'replace') return 'rules, chains or sets differ';
  if (verdict.chains.length > 0) return 'a chain is gone';
  for (const [set, count] of expected.counts) {
    const found = structure.sets.get(set);
    if (found !== undefined && found !== count) {
      return `${set} has ${found} elements instead of ${count}`;
    }
  }
  return undefined;
}
