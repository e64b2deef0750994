/** Reads the kernel's present sets through `ipset save`. */
import type { runCommand } from '#pkg/exec/run.ts';
import type { ObservedIpSet } from './ip-set.ts';
import { parseIpSetSave, parseIpSetSizes } from './parse.ts';

/**
 * The sets whose name starts with `prefix`, by name.
 *
 * @throws {AgentError} CommandFailed, CommandMissing
 */
export async function observeIpSets(
  run: typeof runCommand,
  prefix: string,
  signal: AbortSignal,
): Promise<Map<string, ObservedIpSet>> {
  const { stdout } = await run('ipset', ['save'], { timeoutMs: 60_000, signal });
  return parseIpSetSave(stdout, prefix);
}

/**
 * How many members each set has, by name: at the same cost however many there are.
 *
 * @throws {AgentError} CommandFailed, CommandMissing
 */
export async function observeIpSetSizes(
  run: typeof runCommand,
  signal: AbortSignal,
): Promise<Map<string, number>> {
  const { stdout } = await run('ipset', ['list', '-terse'], { timeoutMs: 60_000, signal });
  return parseIpSetSizes(stdout);
}
