/** Reads the kernel's present virtual servers through ipvsadm. */
import type { runCommand } from '#pkg/exec/run.ts';
import { parseConnections, parseIpvsProc, parseIpvsSave } from './parse.ts';
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

/** For more virtual servers than these the list of all is read: one program, however many they are. */
const maxAskedApart = 4;

/**
 * The connections of virtual servers' real servers, by "address:port", for each server that is there.
 *
 * @param keys as serverKey() has them
 */
export async function observeConnections(
  run: typeof runCommand,
  keys: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<Map<string, ReadonlyMap<string, number>>> {
  const options = { timeoutMs: 60_000, signal };
  const found = new Map<string, ReadonlyMap<string, number>>();
  if (keys.size > maxAskedApart) {
    // By a program, in whose namespace the file is that of the namespace.
    const { stdout } = await run('cat', ['/proc/net/ip_vs'], options);
    for (const [key, { connections }] of parseIpvsProc(stdout)) {
      if (keys.has(key)) found.set(key, connections);
    }
    return found;
  }
  for (const key of keys) {
    const args = ['--list', '--numeric', ...key.split(' ')];
    found.set(key, parseConnections((await run('ipvsadm', args, options)).stdout));
  }
  return found;
}
