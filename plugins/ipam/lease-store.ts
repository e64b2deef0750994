/**
 * Addresses in use, in host-local's directory format so that its Go program and this one can take
 * turns on a node: `<dataDir>/<network>/<address>` holds "containerID\r\nifname",
 * `last_reserved_ip.<set>` the address given out last, `lock` is flock(2)ed by whoever works there.
 */
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { makeDirectory } from '#pkg/files/make-directory.ts';
import { formatAddress, tryParseAddress, type Address } from '#pkg/ip/address.ts';
import type { Attachment } from '#pkg/cni/environment.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { LOCK_EX } from '#pkg/sys/constants.ts';
import { openLeaseIndex, type LeaseIndex } from './lease-index.ts';
import { overwriteFile } from './overwrite-file.ts';
import { openRestingAddresses, type RestingAddresses } from './resting-addresses.ts';

/** One network's leases, locked against everyone else until disposed. */
export interface LeaseStore extends Disposable {
  /** The addresses this attachment holds. */
  addressesOf(attachment: Attachment): readonly Address[];
  /** Every attachment that holds an address; `ifName` is "" in leases of host-local before 0.8. */
  attachments(): readonly Attachment[];
  /** Every address in use, as text: one reading of the directory. */
  takenAddresses(): ReadonlySet<string>;
  /** When an address was given back that should not be taken yet: milliseconds since the epoch. */
  restsSince(address: Address): number | undefined;
  /** Takes an address, whether it rests or not; false when it is in use. */
  take(address: Address, attachment: Attachment): boolean;
  /** Gives back all the attachment holds; none is no error. */
  release(attachment: Attachment): void;
  /** The address of this range set given out last. */
  lastReserved(setIndex: number): Address | undefined;
  setLastReserved(setIndex: number, address: Address): void;
}

export interface LeasePlace {
  readonly dataDir: string;
  readonly network: string;
  readonly create: boolean;
  /** How long an address rests before it is given out again. */
  readonly restMs: number;
  /** The wall clock, in milliseconds since the epoch. */
  readonly now: () => number;
}

/**
 * Waits for the network's lock and opens its leases. With `create` false, undefined for a network
 * that never had a lease.
 */
export function openLeaseStore(sys: Sys, place: LeasePlace & { readonly create: true }): LeaseStore;
export function openLeaseStore(sys: Sys, place: LeasePlace): LeaseStore | undefined;
export function openLeaseStore(sys: Sys, place: LeasePlace): LeaseStore | undefined {
  const directory = `${place.dataDir}/${place.network}`;
  if (place.create) makeDirectory(directory, 0o755);
  else if (statSync(directory, { throwIfNoEntry: false }) === undefined) return undefined;
  const lockFd = openSync(`${directory}/lock`, 'a', 0o644);
  try {
    sys.flock(lockFd, LOCK_EX);
    return leaseStore({
      directory,
      index: openLeaseIndex(place.dataDir, place.network),
      resting: openRestingAddresses(place, place.now),
      // Closing the only descriptor of the open file gives the lock back.
      unlock: () => closeSync(lockFd),
    });
  } catch (error) {
    closeSync(lockFd);
    throw error;
  }
}

function leaseStore({
  directory,
  index,
  resting,
  unlock,
}: {
  readonly directory: string;
  readonly index: LeaseIndex;
  readonly resting: RestingAddresses;
  readonly unlock: () => void;
}): LeaseStore {
  // Nobody else changes it while we hold the lock: it is read once.
  const last = readAllLast(directory);
  if (!index.isComplete(stampOf(directory, last))) rebuildIndex(directory, last, index);
  let changed = false;
  const owned = (attachment: Attachment): readonly string[] =>
    index
      .get(attachment)
      // Go's program releases without telling the index; the address may be someone else's now.
      .filter((file) => sameAttachment(readLease(`${directory}/${file}`), attachment));
  return {
    addressesOf: (attachment) =>
      [...owned(attachment), ...owned(legacyOf(attachment))].flatMap(
        (file) => tryParseAddress(file) ?? [],
      ),
    attachments: () =>
      leaseFiles(directory).flatMap((file) => readLease(`${directory}/${file}`) ?? []),
    takenAddresses: () => new Set(leaseFiles(directory)),
    restsSince: (address) => resting.retiredAt(formatAddress(address)),
    take(address, attachment) {
      const file = formatAddress(address);
      if (!createLease(`${directory}/${file}`, attachment)) return false;
      changed = true;
      index.set(attachment, [...owned(attachment), file]);
      return true;
    },
    release(attachment) {
      const exact = owned(attachment);
      const legacy = legacyOf(attachment);
      changed = true;
      for (const file of exact.length > 0 ? exact : owned(legacy)) {
        resting.retire(`${directory}/${file}`, file);
      }
      index.delete(attachment);
      if (exact.length === 0) index.delete(legacy);
    },
    lastReserved: (setIndex) => tryParseAddress(last[setIndex] ?? ''),
    setLastReserved(setIndex, address) {
      changed = true;
      const text = formatAddress(address);
      overwriteFile(lastFile(directory, setIndex), text, 0o600);
      // Further files than the next one are none that readAllLast() would find.
      if (setIndex <= last.length) last[setIndex] = text;
    },
    [Symbol.dispose]() {
      try {
        if (changed) index.seal(stampOf(directory, last));
      } finally {
        unlock();
      }
    },
  };
}

/**
 * Reads every lease once. A lease without content is what a crash of the machine leaves of one that
 * was being written: nobody holds that address, and nobody would ever give it back.
 */
function rebuildIndex(directory: string, last: readonly string[], index: LeaseIndex): void {
  index.clear();
  const held = new Map<string, { attachment: Attachment; files: string[] }>();
  for (const file of leaseFiles(directory)) {
    const attachment = readLease(`${directory}/${file}`);
    if (attachment === undefined) {
      unlinkSync(`${directory}/${file}`);
      continue;
    }
    const key = `${attachment.containerId}:${attachment.ifName}`;
    const entry = held.get(key);
    if (entry === undefined) held.set(key, { attachment, files: [file] });
    else entry.files.push(file);
  }
  for (const { attachment, files } of held.values()) index.set(attachment, files);
  index.seal(stampOf(directory, last));
}

/**
 * What the directory looks like. Its modification time moves whenever a lease comes or goes, but in
 * steps of a clock tick (4 ms, before Linux 6.13); a lease that Go's program adds within the tick
 * of our own change still shows in `last_reserved_ip.*`.
 */
function stampOf(directory: string, last: readonly string[]): string {
  const { mtimeNs } = statSync(directory, { bigint: true });
  return [String(mtimeNs), ...last].join(' ');
}

/** The contents of `last_reserved_ip.0` and those that follow it. */
function readAllLast(directory: string): string[] {
  const contents: string[] = [];
  for (;;) {
    const last = readIfThere(lastFile(directory, contents.length));
    if (last === undefined) return contents;
    contents.push(last);
  }
}

function leaseFiles(directory: string): readonly string[] {
  return readdirSync(directory).filter((name) => tryParseAddress(name) !== undefined);
}

/** Who holds the lease; undefined when there is none, or an empty one. */
function readLease(file: string): Attachment | undefined {
  const text = readIfThere(file)?.replaceAll('\0', '').trim() ?? '';
  if (text === '') return undefined;
  const [containerId = '', ifName = ''] = text.split(/\r?\n/);
  return { containerId: containerId.trim(), ifName: ifName.trim() };
}

/** One file created exclusively: also safe against a program that does not take the lock. */
function createLease(file: string, attachment: Attachment): boolean {
  const content = `${attachment.containerId}\r\n${attachment.ifName}`;
  try {
    writeFileSync(file, content, { flag: 'wx', mode: 0o600 });
    return true;
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error;
    if (readLease(file) !== undefined) return false;
  }
  writeFileSync(file, content, { mode: 0o600 });
  return true;
}

function lastFile(directory: string, setIndex: number): string {
  return `${directory}/last_reserved_ip.${setIndex}`;
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** host-local before 0.8 wrote the container's ID only. */
function legacyOf({ containerId }: Attachment): Attachment {
  return { containerId, ifName: '' };
}

function sameAttachment(a: Attachment | undefined, b: Attachment): boolean {
  return a?.containerId === b.containerId && a.ifName === b.ifName;
}
