/** Writes planned steps to the kernel through `iptables-restore`. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { Parts } from '#pkg/reconcile/parts.ts';
import { partsInSlices } from '#pkg/reconcile/slices.ts';
import type { IptablesTool } from './detect.ts';
import type { Step } from './plan.ts';
import { sectionsOf } from './plan-sections.ts';
import { renderInParts } from './render.ts';

/** A busy node needs minutes for 20,000 Services at once; what was written until then stays. */
const restoreTimeoutMs = 600_000;

/**
 * All steps in one call. Each table is one kernel transaction, so a refused table changes nothing in
 * it; a very large one is several ({@link sectionsOf}). -w waits for other users of the xtables lock;
 * the flags are the ones kube-proxy uses.
 *
 * @returns how many transactions it was
 * @throws {AgentError} IptablesRestoreFailed; details name the failing line and those around it
 */
export async function applyIptables(
  tool: IptablesTool,
  steps: readonly Step[],
  signal: AbortSignal,
): Promise<number> {
  if (steps.length === 0) return 0;
  const { input, transactions } = await partsInSlices(inputOf(tool, steps));
  try {
    await tool.run(tool.restore, ['--noflush', '-w', '5', '--counters'], {
      input,
      timeoutMs: restoreTimeoutMs,
      signal,
    });
    return transactions;
  } catch (cause) {
    signal.throwIfAborted();
    throw restoreError(tool, input, cause);
  }
}

/** The legacy backend writes a whole table in each transaction, however small. */
function* inputOf(
  { backend }: IptablesTool,
  steps: readonly Step[],
): Parts<{ readonly input: string; readonly transactions: number }> {
  if (backend === 'legacy') {
    const transactions = new Set(steps.map(({ table }) => table)).size;
    return { input: yield* renderInParts(steps), transactions };
  }
  const sections = yield* sectionsOf(steps);
  let input = '';
  for (const section of sections) input += yield* renderInParts(section, 'as given');
  return { input, transactions: sections.length };
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
