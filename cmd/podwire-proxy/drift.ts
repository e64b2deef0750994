/** Finds out soon that somebody else changed our rules, whichever packet filter the node uses. */
import type { Clock } from '#pkg/clock/clock.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { IptablesTool } from '#pkg/iptables/detect.ts';
import { probeIptables } from '#pkg/iptables/probe.ts';
import { watchIptables, type IptablesWatch } from '#pkg/iptables/watch.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { IptablesWriter } from './iptables-writer.ts';

export interface DriftWatch extends IptablesWatch {
  /** No change by others stays unnoticed, so that comparing all rules now and then is not needed. */
  readonly tellsAll: boolean;
}

export interface DriftParts {
  readonly tools: ReadonlyMap<Family, IptablesTool>;
  readonly writers: ReadonlyMap<Family, Pick<IptablesWriter, 'doubt' | 'written'>>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The legacy filter is asked this often, and never more than a twentieth of the time. */
const probeIntervalMs = 2_000;
const maxProbeIntervalMs = 60_000;
const probeShare = 20;

/**
 * Puts a family's writer in doubt and calls `request` after changes by others; until disposed of,
 * for the legacy filter until the signal aborts. Where the kernel cannot tell, a warning says that
 * changes are found only when the rules are compared next.
 */
export async function watchDrift(
  parts: DriftParts,
  request: () => void,
  signal: AbortSignal,
): Promise<DriftWatch> {
  const { log, tools, writers } = parts;
  const onChange = (family: Family): void => {
    writers.get(family)?.doubt();
    request();
  };
  const tellsChanges = [...tools.values()].some((tool) => tool.backend === 'nf_tables');
  if (!tellsChanges) {
    for (const tool of tools.values()) void probeOften(parts, tool, onChange, signal);
    return unwatched;
  }
  try {
    return { ...watchIptables(await openSys(), tools.values(), onChange), tellsAll: true };
  } catch (err) {
    log.warn({ err }, 'Changes of rules by others will be noticed late');
    return unwatched;
  }
}

async function probeOften(
  { clock, log, writers }: DriftParts,
  tool: IptablesTool,
  onChange: (family: Family) => void,
  signal: AbortSignal,
): Promise<void> {
  let waitMs = probeIntervalMs;
  let alarms = 0;
  for (;;) {
    await clock.sleep(waitMs, signal).catch(() => undefined);
    if (signal.aborted) return;
    const writer = writers.get(tool.family);
    const written = writer?.written;
    if (written === undefined) continue;
    const startedMs = clock.monotonicMs();
    try {
      const isThere = await probeIptables(tool, written, signal);
      // What was asked for may have been replaced meanwhile: then the answer says nothing.
      if (!isThere && writer?.written === written) onChange(tool.family);
      alarms = isThere ? 0 : alarms + 1;
    } catch (err) {
      if (signal.aborted) return;
      log.debug({ err, family: tool.family }, 'Cannot ask whether rules are there');
    }
    // Somebody who takes the rules away again and again is not answered ever faster.
    const patientMs = Math.min(maxProbeIntervalMs, probeIntervalMs * 2 ** Math.max(0, alarms - 1));
    waitMs = Math.max(patientMs, probeShare * (clock.monotonicMs() - startedMs));
  }
}

const unwatched: DriftWatch = {
  tellsAll: false,
  exempt: async (write) => void (await write()),
  [Symbol.dispose]: () => undefined,
};
