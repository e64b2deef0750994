/**
 * Addresses that were given back a moment ago. Others may still send to their old owners: kept
 * connections, caches of names, endpoints that a proxy elsewhere has not dropped yet. So an address
 * rests, if another is free.
 *
 * A lease that is given back is moved here in place of being deleted, which costs no more: into a
 * directory named after the time, in steps of the rest's length. Its inode's change time (ctime) says
 * when, also after a reboot. Only the two latest directories count; others are deleted when a new one
 * is made. All of it lies beside the networks' directories, because Go's host-local reads every file
 * it finds there.
 */
import { readdirSync, renameSync, rmSync, statSync, unlinkSync } from 'node:fs';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { makeDirectory } from '#pkg/files/make-directory.ts';

export interface RestingAddresses {
  /** Deletes the lease of an address that is given back; the address rests from now on. */
  retire(leaseFile: string, address: string): void;
  /** Milliseconds since the epoch; undefined for an address that does not rest. */
  retiredAt(address: string): number | undefined;
}

/** No rest at all: addresses are free at once. */
const none: RestingAddresses = {
  retire: (leaseFile) => unlinkSync(leaseFile),
  retiredAt: () => undefined,
};

/**
 * Opens those of one network. The caller holds the network's lock.
 *
 * @param now the wall clock, in milliseconds since the epoch
 */
export function openRestingAddresses(
  { dataDir, network, restMs }: { dataDir: string; network: string; restMs: number },
  now: () => number,
): RestingAddresses {
  if (restMs <= 0) return none;
  // A network's name starts with a letter or digit: this is none.
  const directory = `${dataDir}/.podwire-resting/${network}`;
  const period = (): number => Math.floor(now() / restMs);
  return {
    retire(leaseFile, address) {
      try {
        moveTo(directory, period(), { leaseFile, address });
      } catch {
        // No room, another file system: giving back must not fail for want of a rest.
        unlinkSync(leaseFile);
      }
    },
    retiredAt(address) {
      const latest = period();
      for (const at of [latest, latest - 1]) {
        const stats = statSync(`${directory}/${at}/${address}`, { throwIfNoEntry: false });
        if (stats === undefined) continue;
        const age = now() - stats.ctimeMs;
        // From the future: somebody set the clock back, and when it was nobody knows.
        if (age > -toleranceMs && age < restMs) return stats.ctimeMs;
      }
      return undefined;
    },
  };
}

/** The kernel takes a file's times from a clock that may be a tick behind or, rounded, ahead. */
const toleranceMs = 1000;

function moveTo(
  directory: string,
  period: number,
  { leaseFile, address }: { readonly leaseFile: string; readonly address: string },
): void {
  const move = (): void => renameSync(leaseFile, `${directory}/${period}/${address}`);
  try {
    move();
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
    makeDirectory(`${directory}/${period}`, 0o755);
    for (const name of readdirSync(directory)) {
      if (Number(name) !== period && Number(name) !== period - 1) {
        rmSync(`${directory}/${name}`, { recursive: true, force: true });
      }
    }
    move();
  }
}
