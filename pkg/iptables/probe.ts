/** Asks the kernel in one cheap call whether the rules that everything hangs on are still there. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { IptablesTool } from './detect.ts';
import { isServiceChain, type Ruleset, type Table } from './ruleset.ts';

/**
 * Whether all jumps, and the last rule of each chain that is not of a single Service, are there: a
 * flush takes them all. Only for the legacy backend, whose kernel tells nobody of changes: the other
 * one's `iptables-restore` checks nothing under --test.
 *
 * @throws {AgentError} when the tool does not run to its end
 */
export async function probeIptables(
  tool: IptablesTool,
  want: Ruleset,
  signal: AbortSignal,
): Promise<boolean> {
  const input = want.tables.map(probeTable).join('');
  try {
    const args = ['--noflush', '--test', '-w', '5'];
    await tool.run(tool.restore, args, { input, timeoutMs: 30_000, signal });
    return true;
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof AgentError && /\bline \d+ failed/.test(error.message)) return false;
    throw error;
  }
}

function probeTable({ chains, jumps, name, tails = new Map() }: Table): string {
  const checks = [...jumps, ...tails].flatMap(([chain, rules]) =>
    rules.map((rule) => `-C ${chain} ${rule}`),
  );
  for (const [chain, rules] of chains) {
    const last = rules.at(-1);
    if (last !== undefined && !isServiceChain(chain)) checks.push(`-C ${chain} ${last}`);
  }
  return checks.length === 0 ? '' : `${[`*${name}`, ...checks, 'COMMIT'].join('\n')}\n`;
}
