/**
 * Kernel settings under /proc/sys. Synchronous on purpose: the kernel answers for the network
 * namespace of the thread that opens the file, and asynchronous fs runs on other threads.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';

/**
 * A setting's value, with runs of blanks as one space ("4096 131072 6291456"); undefined when the
 * kernel has no such setting.
 *
 * @param path with slashes, below /proc/sys: "net/ipv4/ip_forward"
 * @throws {AgentError} SysctlInvalid for a path that leads elsewhere; EACCES where it may not be read
 */
export function readSysctl(path: string): string | undefined {
  try {
    return normalizeSysctl(readFileSync(fileOf(path), 'utf8'));
  } catch (cause) {
    if (isErrno(cause, 'ENOENT')) return undefined;
    throw failure('read', path, cause);
  }
}

/**
 * Sets a value.
 *
 * @throws {AgentError} SysctlInvalid for a path that leads elsewhere; ENOENT when the kernel has no
 *   such setting; EROFS, EACCES, EPERM where this process may not change it; EINVAL for a value the
 *   kernel refuses
 */
export function writeSysctl(path: string, value: string): void {
  const file = fileOf(path);
  try {
    // No O_CREAT: /proc would answer EACCES for a setting it does not have.
    writeFileSync(file, value, { flag: 'r+' });
  } catch (cause) {
    throw failure('write', path, cause, value);
  }
}

/** Values as they compare: the kernel separates numbers by tabs and ends with a newline. */
export function normalizeSysctl(value: string): string {
  return value.trim().replaceAll(/\s+/g, ' ');
}

function fileOf(path: string): string {
  // One plain name after another. Interface names may hold dots and colons, but "." and ".." are
  // steps to elsewhere.
  const segments = path.split('/');
  const plain = (s: string): boolean => s !== '' && s !== '.' && s !== '..' && !s.includes('\0');
  if (!segments.every(plain)) {
    throw new AgentError(
      'SysctlInvalid',
      `Cannot use sysctl ${JSON.stringify(path)}: expected a path below /proc/sys as net/ipv4/ip_forward`,
    );
  }
  return `/proc/sys/${path}`;
}

const reasons: ReadonlyMap<string, string> = new Map([
  ['ENOENT', 'this kernel, or this network namespace, does not have it'],
  ['EROFS', '/proc/sys is mounted read-only here'],
  ['EACCES', 'this process has no permission'],
  ['EPERM', 'this process has no permission'],
  ['EINVAL', 'the kernel does not accept the value'],
]);

function failure(verb: string, path: string, cause: unknown, value?: string): AgentError {
  const code =
    cause instanceof Error && 'code' in cause && typeof cause.code === 'string'
      ? cause.code
      : 'SysctlFailed';
  const to = value === undefined ? '' : ` = ${JSON.stringify(value)}`;
  const reason = reasons.get(code);
  const said = reason === undefined ? code : `${reason} (${code})`;
  return new AgentError(code, `Cannot ${verb} sysctl ${path}${to}: ${said}`, { cause });
}
