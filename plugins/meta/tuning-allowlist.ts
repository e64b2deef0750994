/** The list by which a node's administrator limits which sysctls a network may set. */
import { readFileSync } from 'node:fs';
import { isErrno, messageOf } from '#pkg/errors/agent-error.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import type { Sysctl } from './tuning-config.ts';

const allowlistFile = '/etc/cni/tuning/allowlist.conf';

/**
 * Without the file everything is allowed.
 *
 * @throws {CniError} for a sysctl that is not on the list
 */
export function checkAllowed(sysctls: readonly Sysctl[]): void {
  if (sysctls.length === 0) return;
  let text: string;
  try {
    text = readFileSync(allowlistFile, 'utf8');
  } catch (cause) {
    if (isErrno(cause, 'ENOENT') || isErrno(cause, 'ENOTDIR')) return;
    throw new CniError(cniCode.internal, `Cannot read ${allowlistFile}: ${messageOf(cause)}`, {
      cause,
    });
  }
  const refused = notAllowed(text, sysctls);
  if (refused === undefined) return;
  throw new CniError(
    cniCode.invalidConfig,
    `Sysctl ${refused} is not allowed. Only the following sysctls are allowed: ${patternsOf(text).join(', ')}`,
    { hint: allowlistFile },
  );
}

/**
 * The first key that no line matches, as configured. A line is a regular expression for the whole
 * key: "net.ipv4.conf.all.log_martians" is not to allow what merely contains it.
 */
export function notAllowed(text: string, sysctls: readonly Sysctl[]): string | undefined {
  const patterns = patternsOf(text).map(compile);
  return sysctls.find(({ key }) => !patterns.some((pattern) => pattern.test(key)))?.key;
}

function patternsOf(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

function compile(line: string): RegExp {
  try {
    return new RegExp(`^(?:${line})$`);
  } catch (cause) {
    throw new CniError(
      cniCode.invalidConfig,
      `Cannot read ${allowlistFile}: "${line}" is no regular expression`,
      { cause },
    );
  }
}
