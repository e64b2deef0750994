/** The network namespaces of a run: made and joined, found by their names, removed. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { runCommand } from '#pkg/exec/run.ts';
import { inNamespace } from './processes.ts';
import { namespacePrefix, wiringOf, type Topology } from './topology.ts';

const netnsFolder = '/run/netns';

/**
 * Until a link-local address has passed duplicate detection, which takes a second or two, a router
 * cannot ask for its neighbours: what it forwards would be lost.
 */
const routerSysctls = [
  ['net/ipv4/ip_forward', '1'],
  ['net/ipv6/conf/all/forwarding', '1'],
  ['net/ipv6/conf/all/accept_dad', '0'],
  ['net/ipv6/conf/default/accept_dad', '0'],
] as const;

/** Makes every namespace of the topology and joins them. */
export async function createNetwork(topology: Topology, signal?: AbortSignal): Promise<void> {
  for (const namespace of topology.namespaces) await addNamespace(namespace, signal);
  // Before it has links: they take these settings over when they are made.
  for (const [path, value] of routerSysctls) await writeSysctl(topology.router, path, value);
  for (const { namespace, lines } of wiringOf(topology)) await ipBatch(namespace, lines, signal);
}

export async function addNamespace(namespace: string, signal?: AbortSignal): Promise<void> {
  await runCommand('ip', ['netns', 'add', namespace], options(signal));
}

/** Removes a namespace's name; the kernel ends it with its last process. Gone is fine. */
export async function deleteNamespace(namespace: string): Promise<void> {
  if (!listNamespaces(namespace).includes(namespace)) return;
  await runCommand('ip', ['netns', 'delete', namespace], options());
}

/** Removes every namespace of a run, also those of its pods. */
export async function deleteNetwork(runId: string): Promise<void> {
  for (const namespace of listNamespaces(namespacePrefix(runId))) await deleteNamespace(namespace);
}

/** Names that start with `prefix`. */
export function listNamespaces(prefix: string): string[] {
  try {
    return readdirSync(netnsFolder).filter((name) => name.startsWith(prefix));
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

export function namespacePath(namespace: string): string {
  return join(netnsFolder, namespace);
}

/** Runs `ip` commands in a namespace, in one process; the first that fails ends it. */
export async function ipBatch(
  namespace: string,
  lines: readonly string[],
  signal?: AbortSignal,
): Promise<void> {
  const input = `${lines.join('\n')}\n`;
  await runCommand('ip', ['-netns', namespace, '-batch', '-'], { ...options(signal), input });
}

/** Runs a command in a namespace and returns what it printed. */
export async function runIn(
  namespace: string,
  command: readonly [string, ...string[]],
  signal?: AbortSignal,
): Promise<string> {
  const [file, ...args] = inNamespace(namespace, command);
  return (await runCommand(file, args, options(signal))).stdout;
}

/** Every address of a namespace, without prefix lengths. */
export async function addressesIn(namespace: string): Promise<string[]> {
  const links = JSON.parse(await runIn(namespace, ['ip', '-json', 'address'])) as {
    addr_info: { local: string }[];
  }[];
  return links.flatMap((link) => link.addr_info.map((address) => address.local));
}

async function writeSysctl(namespace: string, path: string, value: string): Promise<void> {
  // /proc/sys/net shows the namespace of whoever opens it.
  const [file, ...args] = inNamespace(namespace, ['tee', join('/proc/sys', path)]);
  await runCommand(file, args, { ...options(), input: value });
}

function options(signal?: AbortSignal): { timeoutMs: number; signal?: AbortSignal } {
  return { timeoutMs: 20_000, ...(signal === undefined ? {} : { signal }) };
}
