/**
 * Finds out soon that somebody else changed virtual servers, sets or addresses of Services: the
 * kernel tells nobody, so it is asked. One file of /proc and one child process for all of it.
 */
import type { Clock } from '#pkg/clock/clock.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { ListedServer } from '#pkg/ipvs/parse.ts';
import { endpointText, type VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import type { Logger } from '#pkg/log/logger.ts';
import type { IpvsKnown, IpvsWriter } from './ipvs-writer.ts';

/** What is in the kernel now, as far as it is cheap to ask. */
export interface IpvsSight {
  /** Of both families, by serverKey(). */
  readonly servers: ReadonlyMap<string, ListedServer>;
  /** How many members each set has. */
  readonly sets: ReadonlyMap<string, number>;
  /** On the device for Services. */
  readonly addresses: ReadonlySet<string>;
}

export type IpvsLook = (signal: AbortSignal) => Promise<(family: Family) => IpvsSight>;

export interface IpvsDriftParts {
  readonly look: IpvsLook;
  readonly writers: ReadonlyMap<Family, Pick<IpvsWriter, 'doubt' | 'known'>>;
  /** Whether an unknown virtual server may be deleted. */
  readonly isOurs: (server: Pick<VirtualServer, 'address'>) => boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The kernel is asked this often, and never more than a twentieth of the time. */
const lookIntervalMs = 2_000;
const lookShare = 20;
/** Somebody who changes things again and again is not answered ever faster. */
const maxLookIntervalMs = 60_000;

/** Puts a family's writer in doubt and calls `request` after changes by others, until the signal. */
export async function watchIpvs(
  { clock, isOurs, log, look, writers }: IpvsDriftParts,
  request: () => void,
  signal: AbortSignal,
): Promise<void> {
  let alarms = 0;
  let waitMs = lookIntervalMs;
  for (;;) {
    await clock.sleep(waitMs, signal).catch(() => undefined);
    if (signal.aborted) return;
    const before = new Map([...writers].map(([family, { known }]) => [family, known]));
    const startedMs = clock.monotonicMs();
    let differing = false;
    try {
      const sightOf = await look(signal);
      for (const [family, writer] of writers) {
        const known = before.get(family);
        // Written meanwhile: what was seen may be of before.
        if (known === undefined || writer.known !== known) continue;
        const sight = sightOf(family);
        const differences = differencesBetween(known, sight, family, isOurs);
        if (differences.length === 0) continue;
        differing = true;
        const shown = { family, count: differences.length, first: differences.slice(0, 5) };
        log.warn(shown, 'IPVS was changed by somebody else; putting it back');
        writer.doubt();
        request();
      }
    } catch (err) {
      if (signal.aborted) return;
      log.debug({ err }, 'Cannot ask what IPVS has');
    }
    alarms = differing ? alarms + 1 : 0;
    const patientMs = Math.min(maxLookIntervalMs, lookIntervalMs * 2 ** Math.max(0, alarms - 1));
    waitMs = Math.max(patientMs, lookShare * (clock.monotonicMs() - startedMs));
  }
}

/** What others changed, in words; sets by their sizes only. */
export function differencesBetween(
  known: IpvsKnown,
  seen: IpvsSight,
  family: Family,
  isOurs: IpvsDriftParts['isOurs'],
): string[] {
  const found: string[] = [];
  for (const [key, server] of known.servers) {
    const there = seen.servers.get(key);
    if (there === undefined) found.push(`virtual server ${key} is gone`);
    else if (!isSame(server, there)) found.push(`virtual server ${key} is another one`);
  }
  if (found.length > 0 || seen.servers.size > known.servers.size) {
    for (const [key, server] of seen.servers) {
      if (known.servers.has(key) || !isOurs(server)) continue;
      const isOfFamily = server.address.includes(':') === (family === 'ip6');
      if (isOfFamily) found.push(`virtual server ${key} is new`);
    }
  }
  for (const [name, size] of known.sets) {
    const there = seen.sets.get(name);
    if (there !== size) found.push(`set ${name} has ${there ?? 'gone'} of ${size} members`);
  }
  const { addresses } = known;
  for (const address of addresses) {
    if (!seen.addresses.has(address)) found.push(`address ${address} is gone`);
  }
  for (const address of seen.addresses) {
    if (!addresses.has(address)) found.push(`address ${address} is new`);
  }
  return found;
}

function isSame(known: VirtualServer, seen: ListedServer): boolean {
  if (known.scheduler !== seen.scheduler) return false;
  if (known.persistenceSeconds > 0 !== seen.isPersistent) return false;
  if (isForeign(seen, known)) return false;
  if (known.realServers.length !== seen.realServers.length) return false;
  const there = new Map(seen.realServers.map((real) => [endpointText(real), real]));
  return known.realServers.every((real) => {
    const found = there.get(endpointText(real));
    return found?.weight === real.weight && !isForeign(found, real);
  });
}

type Told = Pick<VirtualServer, 'foreign'>;

/** Something was told to it that this proxy never says. The file has other words than ipvsadm. */
function isForeign(seen: Told, known: Told): boolean {
  return seen.foreign !== undefined && known.foreign === undefined;
}
