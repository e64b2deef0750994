/**
 * Tables that somebody began to make anew, and was killed. A pod whose DEL ran meanwhile may be back in
 * them, and that DEL has ended: nobody but the one who was killed would have taken it out again.
 */
import { closeSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { makeDirectory } from '#pkg/files/make-directory.ts';
import { LOCK_EX, LOCK_NB } from '#pkg/sys/constants.ts';
import type { Sys } from '#pkg/sys/sys.ts';

interface Place {
  readonly sys: Sys;
  /** Where the note may be. */
  readonly directory: string;
}

/**
 * Makes tables, one caller at a time. Until that is done a file says who was put in; the kernel unlocks
 * it when its process dies, and the next ADD reads it.
 *
 * @param make tells its argument the owners of what it is about to put in
 */
export function notingOwners(
  { sys, directory }: Place,
  make: (note: (owners: readonly string[]) => void) => void,
): void {
  makeDirectory(directory, 0o700);
  const file = fileOf(directory);
  const fd = openSync(file, 'a', 0o600);
  try {
    sys.flock(fd, LOCK_EX);
    const before = readFileSync(file, 'utf8');
    make((owners) => write(file, [...new Set([...linesOf(before), ...owners])].join('\n')));
    // What was there is for the one who looks after it.
    write(file, before);
  } finally {
    closeSync(fd);
  }
}

/**
 * Does what makes tables if it must, and takes out what an abandoned maker may have left: before, since
 * it may be in the way, and after, when no program that the maker had started can make a table any more.
 *
 * @param sweep takes out what belongs to those of these owners that are no pods any more
 */
export function sweepingAround(
  place: Place,
  work: () => void,
  sweep: (owners: ReadonlySet<string>) => void,
): void {
  const owners = abandonedOwners(place);
  if (owners === undefined) return work();
  sweep(owners);
  work();
  sweep(owners);
  // Unless another has begun meanwhile: then it is the next one's.
  if (abandonedOwners(place) !== undefined) write(fileOf(place.directory), '');
}

/** Who was put in by somebody who did not come to an end; undefined for nobody: one look at a file. */
function abandonedOwners({ sys, directory }: Place): ReadonlySet<string> | undefined {
  const file = fileOf(directory);
  if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) === 0) return undefined;
  const fd = openSync(file, 'a', 0o600);
  try {
    sys.flock(fd, LOCK_EX | LOCK_NB);
    return new Set(linesOf(readFileSync(file, 'utf8')));
  } catch (error) {
    // Somebody is at it.
    if (isErrno(error, 'EAGAIN')) return undefined;
    throw error;
  } finally {
    closeSync(fd);
  }
}

function write(file: string, text: string): void {
  writeFileSync(file, text, { mode: 0o600 });
}

function linesOf(text: string): readonly string[] {
  return text === '' ? [] : text.split('\n');
}

/** No network's name starts with a dot. */
function fileOf(directory: string): string {
  return join(directory, '.making-tables');
}
