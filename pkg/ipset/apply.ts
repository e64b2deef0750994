/** Writes planned steps to the kernel through `ipset restore`. */
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import type { runCommand } from '#pkg/exec/run.ts';
import type { IpSetStep } from './plan.ts';
import { renderIpSetRestore } from './render.ts';

/**
 * All steps in one call. It ends at the first that the kernel refuses; those before it stay.
 *
 * @throws {AgentError} IpSetRestoreFailed, naming the line
 */
export async function applyIpSets(
  run: typeof runCommand,
  steps: readonly IpSetStep[],
  signal: AbortSignal,
): Promise<void> {
  if (steps.length === 0) return;
  const input = renderIpSetRestore(steps);
  try {
    await run('ipset', ['restore', '-exist'], { input, timeoutMs: 120_000, signal });
  } catch (cause) {
    if (!isErrno(cause, 'CommandFailed')) throw cause;
    throw new AgentError('IpSetRestoreFailed', 'Cannot write sets', { cause });
  }
}
