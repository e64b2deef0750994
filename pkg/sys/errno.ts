/** Kernel error numbers as the names and texts people know. */
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';

/** The name of a positive errno: 17 is "EEXIST". */
export function errnoName(errno: number): string {
  return namesByErrno.get(errno) ?? `errno ${errno}`;
}

/** A positive errno in words: 17 is "file already exists"; its name where no text is known. */
export function errnoText(errno: number): string {
  return getSystemErrorMap().get(-errno)?.[1] ?? kernelOnly.get(errno)?.text ?? errnoName(errno);
}

/** Errors the kernel lets out though they are in no errno.h (include/linux/errno.h). */
const kernelOnly: ReadonlyMap<number, { readonly name: string; readonly text: string }> = new Map([
  [524, { name: 'ENOTSUPP', text: 'operation is not supported' }],
]);

/** Second names of one number; the other one is what everybody writes. */
const aliases: ReadonlySet<string> = new Set(['EWOULDBLOCK', 'ENOTSUP', 'EDEADLOCK']);

const namesByErrno: ReadonlyMap<number, string> = new Map([
  ...[...kernelOnly].map(([errno, { name }]): [number, string] => [errno, name]),
  ...Object.entries(constants.errno)
    .filter(([name]) => !aliases.has(name))
    .map(([name, errno]): [number, string] => [errno, name]),
]);
