/** Reads the kernel's present virtual servers through ipvsadm. */
import type { runCommand } from '#pkg/exec/run.ts';
import { parseConnections, parseIpvsSave } from './parse.ts';
import type { VirtualServer } from './virtual-server.ts';

/**
 * All virtual servers of both families, by key.
 *
 * @throws {AgentError} CommandFailed where the kernel has no IPVS, CommandMissing
 */
export async function observeIpvs(
  run: typeof runCommand,
  signal: AbortSignal,
): Promise<Map<string, VirtualServer>> {
  const { stdout } = await run('ipvsadm', ['--save', '--numeric'], { timeoutMs: 60_000, signal });
  return parseIpvsSave(stdout);
}

/**
 * The connections of one virtual server's real servers, by "address:port".
 *
 * @param key as serverKey() has it
 */
export async function observeConnections(
  run: typeof runCommand,
  key: string,
  signal: AbortSignal,
): Promise<Map<string, number>> {
  const args = ['--list', '--numeric', ...key.split(' ')];
  const { stdout } = await run('ipvsadm', args, { timeoutMs: 60_000, signal });
  return parseConnections(stdout);
}
