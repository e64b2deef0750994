/** Writes planned steps to the kernel through `iptables-restore`. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { partsInSlices } from '#pkg/reconcile/slices.ts';
import type { IptablesTool } from './detect.ts';
import type { Step } from './plan.ts';
import { renderInParts } from './render.ts';

/**
 * All steps in one call; each table is one kernel transaction, so a refused table changes nothing
 * in it. -w waits for other users of the xtables lock; the flags are the ones kube-proxy uses.
 *
 * @throws {AgentError} IptablesRestoreFailed; details name the failing line and those around it
 */
export async function applyIptables(
  tool: IptablesTool,
  steps: readonly Step[],
  signal: AbortSignal,
): Promise<void> {
  if (steps.length === 0) return;
  const input = await partsInSlices(renderInParts(steps));
  try {
    await tool.run(tool.restore, ['--noflush', '-w', '5', '--counters'], {
      input,
      timeoutMs: 120_000,
      signal,
    });
  } catch (cause) {
    signal.throwIfAborted();
    throw restoreError(tool, input, cause);
  }
}

/** How many transactions the kernel counts when {@link applyIptables} has written these steps. */
export function transactionsOf(steps: readonly Step[]): number {
  return new Set(steps.map(({ table }) => table)).size;
}

/** Both backends say "line N" of their input: "line 7 failed", "line 7: RULE_APPEND failed". */
function restoreError(tool: IptablesTool, input: string, cause: unknown): AgentError {
  const text = cause instanceof AgentError ? `${cause.message} ${stderrOf(cause)}` : String(cause);
  const number = Number(/\bline:? (\d+)/.exec(text)?.[1]);
  const lines = input.split('\n');
  const at = Number.isInteger(number) && number > 0 ? lines[number - 1] : undefined;
  const where = at === undefined ? '' : ` at line ${number}: ${at}`;
  return new AgentError(
    'IptablesRestoreFailed',
    `Cannot write rules with ${tool.restore}${where}`,
    {
      cause,
      details: {
        family: tool.family,
        ...(at === undefined ? {} : { near: lines.slice(Math.max(0, number - 4), number + 3) }),
      },
    },
  );
}

function stderrOf(error: AgentError): string {
  const stderr = error.details?.['stderr'];
  return typeof stderr === 'string' ? stderr : '';
}
