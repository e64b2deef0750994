/** Making directories where a path may lead anywhere. */
import { mkdirSync, statSync } from 'node:fs';
import { isErrno } from '#pkg/errors/agent-error.ts';

/**
 * Makes a directory, and those above it that are missing; one that is there is no error. In place of
 * mkdirSync's `recursive`, with which Node never returns where the kernel says ENOENT for a child of
 * a directory that is there, as it does below /proc.
 *
 * @param mode of all that it makes
 * @throws {Error} as mkdirSync: EEXIST where there is something else, ENOENT, EACCES, ENOSPC
 */
export function makeDirectory(path: string, mode = 0o777): void {
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    if (isErrno(error, 'EEXIST') && isDirectory(path)) return;
    const parent = parentOf(path);
    if (!isErrno(error, 'ENOENT') || parent === undefined) throw error;
    makeDirectory(parent, mode);
    makeChild(path, mode);
  }
}

/** The parent is there now. */
function makeChild(path: string, mode: number): void {
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    // Somebody else was faster.
    if (!isErrno(error, 'EEXIST') || !isDirectory(path)) throw error;
  }
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** Undefined for a name without a directory. Not node:path, which the CNI path does without. */
function parentOf(path: string): string | undefined {
  const plain = path.replace(/\/+$/, '');
  const at = plain.lastIndexOf('/');
  return at < 1 ? undefined : plain.slice(0, at);
}
