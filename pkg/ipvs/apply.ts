/** Writes planned steps to the kernel through `ipvsadm --restore`. */
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import type { runCommand } from '#pkg/exec/run.ts';
import type { IpvsStep } from './plan.ts';
import { renderIpvsRestore } from './render.ts';

/**
 * All steps in one call. ipvsadm goes on after a step that the kernel refuses, and forgets it in its
 * exit code: what it says on standard error tells.
 *
 * @throws {AgentError} IpvsRestoreFailed; CommandMissing, CommandTimedOut
 */
export async function applyIpvs(
  run: typeof runCommand,
  steps: readonly IpvsStep[],
  signal: AbortSignal,
): Promise<void> {
  if (steps.length === 0) return;
  const input = renderIpvsRestore(steps);
  let said: string;
  try {
    const options = { input, timeoutMs: 120_000, signal };
    said = (await run('ipvsadm', ['--restore'], options)).stderr.trim();
  } catch (cause) {
    if (!isErrno(cause, 'CommandFailed')) throw cause;
    throw new AgentError('IpvsRestoreFailed', 'Cannot write virtual servers', { cause });
  }
  if (said === '') return;
  throw new AgentError('IpvsRestoreFailed', `Cannot write virtual servers: ${said}`);
}

/** Connection timeouts in seconds, for all virtual servers; 0 leaves one as it is. */
export async function setTimeouts(
  run: typeof runCommand,
  seconds: { readonly tcp: number; readonly tcpFin: number; readonly udp: number },
  signal: AbortSignal,
): Promise<void> {
  const { tcp, tcpFin, udp } = seconds;
  if (tcp === 0 && tcpFin === 0 && udp === 0) return;
  const args = ['--set', ...[tcp, tcpFin, udp].map(String)];
  await run('ipvsadm', args, { timeoutMs: 60_000, signal });
}
