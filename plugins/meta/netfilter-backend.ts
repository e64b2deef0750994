/** Which packet filter a plugin uses, and what it means that one does not work. */
import { AgentError, isErrno, messageOf } from '#pkg/errors/agent-error.ts';
import type { Family } from '#pkg/ip/address.ts';
import { CniError, cniCode } from '#pkg/cni/cni-error.ts';
import type { RunNetfilter } from './run-netfilter.ts';

export type NetfilterBackend = 'iptables' | 'nftables';

/**
 * iptables where it works, as the reference has it; else nft.
 *
 * @param purpose what cannot be done without: "map host ports"
 * @throws {CniError}
 */
export function chooseBackend(
  run: RunNetfilter,
  family: Family,
  purpose: string,
): NetfilterBackend {
  const failures: unknown[] = [];
  for (const backend of ['iptables', 'nftables'] as const) {
    try {
      tryBackend(run, backend, family);
      return backend;
    } catch (error) {
      failures.push(error);
    }
  }
  throw new CniError(
    cniCode.internal,
    `Cannot ${purpose}: neither iptables nor nftables is usable`,
    { hint: failures.map(messageOf).join('; ') },
  );
}

/**
 * For STATUS.
 *
 * @throws {CniError} code 50 when the backend, or any where none is configured, does not work here
 */
export function requireBackend(
  run: RunNetfilter,
  backend: NetfilterBackend | undefined,
  purpose: string,
): void {
  try {
    if (backend === undefined) chooseBackend(run, 'ip', purpose);
    else tryBackend(run, backend, 'ip');
  } catch (cause) {
    throw new CniError(cniCode.notAvailable, `Cannot ${purpose}`, { cause });
  }
}

function tryBackend(run: RunNetfilter, backend: NetfilterBackend, family: Family): void {
  if (backend === 'nftables') run('nft', ['list', 'tables']);
  else run(family === 'ip' ? 'iptables' : 'ip6tables', ['-w', '5', '-t', 'nat', '-S', 'OUTPUT']);
}

/** A backend that could not be asked what it has. */
export interface RemovalFailure {
  readonly error: AgentError;
  /** A program is there and does not work; else there is none at all. */
  readonly installed: boolean;
}

/**
 * Why a table cannot even be read; undefined when `remove` did its work.
 *
 * @param remove calls `whenRead` once it has read: what fails later is thrown
 */
export function unlessUnusable(remove: (whenRead: () => void) => void): AgentError | undefined {
  let read = false;
  try {
    remove(() => (read = true));
    return undefined;
  } catch (error) {
    const unusable = isErrno(error, 'CommandMissing') || isErrno(error, 'CommandFailed');
    if (read || !unusable || !(error instanceof AgentError)) throw error;
    return error;
  }
}

/**
 * Of backends that a removal tried: undefined when all there may be is removed. One family that
 * works is enough for a backend, as a kernel without IPv6 has no rules for it; and so is one backend
 * where the other is not installed.
 *
 * @param backends what `unlessUnusable` said for each table of each backend
 */
export function removalFailure(
  backends: readonly (readonly (AgentError | undefined)[])[],
  what: string,
): RemovalFailure | undefined {
  const failed = backends.filter((outcomes) => !outcomes.includes(undefined));
  const errors = failed.flat().filter((error) => error !== undefined);
  const installed = errors.some((error) => isErrno(error, 'CommandFailed'));
  if (!installed && failed.length < backends.length) return undefined;
  const text = errors.map(messageOf).join('; ');
  return {
    error: new AgentError('NetfilterUnusable', `Cannot remove ${what}: ${text}`),
    installed,
  };
}
