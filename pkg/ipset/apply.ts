/** Writes planned steps to the kernel through `ipset restore`. */
import type { runCommand } from '#pkg/exec/run.ts';
import type { IpSetStep } from './plan.ts';
import { renderIpSetRestore } from './render.ts';

/**
 * All steps in one call. It ends at the first that the kernel refuses; those before it stay.
 *
 * @throws {AgentError} CommandFailed, naming the line
 */
export async function applyIpSets(
  run: typeof runCommand,
  steps: readonly IpSetStep[],
  signal: AbortSignal,
): Promise<void> {
  if (steps.length === 0) return;
  const input = renderIpSetRestore(steps);
  await run('ipset', ['restore', '-exist'], { input, timeoutMs: 120_000, signal });
}
