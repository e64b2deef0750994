/**
 * Runs CNI plugins as a container runtime does (CNI spec 1.1.0, "Execution of Network
 * Configurations"; containerd's order of things): the first configuration of a directory by name,
 * each plugin a process in the node's network namespace, results chained, DEL in reverse.
 */
import { execa } from 'execa';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import { inNamespace, programEnv } from './processes.ts';

export interface CniHost {
  readonly runId: string;
  /** The node's network namespace. */
  readonly namespace: string;
  /** Where the node's agent puts its configuration. */
  readonly confDir: string;
  /** Where the plugins are, by their type. */
  readonly binDir: string;
}

export interface CniAttachment {
  readonly containerId: string;
  /** Path of the pod's network namespace. */
  readonly netns: string;
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string };
  /** Values by capability: passed to plugins that declare it. */
  readonly capabilityArgs: Readonly<Record<string, unknown>>;
}

export interface CniResult {
  readonly ips?: readonly { readonly address: string; readonly interface?: number }[];
}

/** A pod's network as made, kept for taking it down with the same configuration. */
export interface AttachedPod {
  readonly configuration: NetworkConfiguration;
  readonly result: CniResult;
}

interface PluginConfiguration {
  readonly type: string;
  readonly capabilities?: Readonly<Record<string, boolean>>;
}

/** What a plugin gets on standard input; its own further keys come along. */
interface PluginInput extends PluginConfiguration {
  readonly name: string;
  readonly cniVersion: string;
  readonly prevResult?: CniResult;
  readonly runtimeConfig?: Readonly<Record<string, unknown>>;
}

interface NetworkConfiguration {
  readonly cniVersion: string;
  readonly name: string;
  readonly plugins: readonly PluginConfiguration[];
}

/** containerd's own, for every pod beside the first network of the directory. */
const loopback: NetworkConfiguration = {
  cniVersion: '1.0.0',
  name: 'cni-loopback',
  plugins: [{ type: 'loopback' }],
};

const pluginTimeoutMs = 30_000;

/**
 * The node's network, undefined while its agent has not written any: then no pod can start.
 *
 * @throws {AgentError} WrongNetworkConfiguration
 */
export function readNetwork(confDir: string): NetworkConfiguration | undefined {
  const file = listFolder(confDir)
    .filter((name) => /\.(?:conf|conflist|json)$/.test(name))
    .toSorted()[0];
  if (file === undefined) return undefined;
  const path = join(confDir, file);
  try {
    const content = JSON.parse(readFileSync(path, 'utf8')) as
      | NetworkConfiguration
      | (NetworkConfiguration & PluginConfiguration);
    return 'type' in content ? { ...content, plugins: [content] } : content;
  } catch (cause) {
    throw new AgentError('WrongNetworkConfiguration', `Cannot read ${path}`, { cause });
  }
}

/**
 * Connects a pod: `eth0` by the node's network and `lo`, at the same time as containerd does.
 *
 * @throws {AgentError} The plugin's refusal; what was made is taken down again
 */
export async function attachPod(
  host: CniHost,
  configuration: NetworkConfiguration,
  attachment: CniAttachment,
): Promise<AttachedPod> {
  const [eth0, lo] = await Promise.allSettled([
    addNetwork(host, configuration, { ...attachment, ifname: 'eth0' }),
    addNetwork(host, loopback, { ...attachment, ifname: 'lo' }),
  ]);
  if (eth0.status === 'fulfilled' && lo.status === 'fulfilled') {
    return { configuration, result: eth0.value };
  }
  const failures = [eth0, lo].flatMap((r): unknown[] =>
    r.status === 'rejected' ? [r.reason] : [],
  );
  await detachPod(host, { configuration, result: undefined }, attachment);
  throw failures[0];
}

/** Takes a pod's network down. Works for what was made in part, and a second time. */
export async function detachPod(
  host: CniHost,
  attached: { configuration: NetworkConfiguration; result: CniResult | undefined },
  attachment: CniAttachment,
): Promise<void> {
  const { configuration, result } = attached;
  await deleteNetwork(host, configuration, { ...attachment, ifname: 'eth0', prevResult: result });
  await deleteNetwork(host, loopback, { ...attachment, ifname: 'lo', prevResult: undefined });
}

type Interface = CniAttachment & { readonly ifname: string };

async function addNetwork(
  host: CniHost,
  network: NetworkConfiguration,
  attachment: Interface,
): Promise<CniResult> {
  let prevResult: CniResult | undefined;
  for (const plugin of network.plugins) {
    const input = pluginInput(network, plugin, { ...attachment, prevResult });
    prevResult = JSON.parse(await runPlugin('ADD', host, attachment, input)) as CniResult;
  }
  return prevResult ?? {};
}

async function deleteNetwork(
  host: CniHost,
  network: NetworkConfiguration,
  attachment: Interface & { prevResult: CniResult | undefined },
): Promise<void> {
  for (const plugin of network.plugins.toReversed()) {
    await runPlugin('DEL', host, attachment, pluginInput(network, plugin, attachment));
  }
}

function pluginInput(
  { name, cniVersion }: NetworkConfiguration,
  plugin: PluginConfiguration,
  attachment: CniAttachment & { prevResult: CniResult | undefined },
): PluginInput {
  const declared = Object.entries(attachment.capabilityArgs).filter(
    ([capability]) => plugin.capabilities?.[capability] === true,
  );
  const { capabilities: _, ...own } = plugin;
  return {
    ...own,
    name,
    cniVersion,
    ...(declared.length === 0 ? {} : { runtimeConfig: Object.fromEntries(declared) }),
    ...(attachment.prevResult === undefined ? {} : { prevResult: attachment.prevResult }),
  };
}

async function runPlugin(
  command: 'ADD' | 'DEL',
  host: CniHost,
  attachment: Interface,
  input: PluginInput,
): Promise<string> {
  const { containerId, netns, ifname, pod } = attachment;
  const [file, ...args] = inNamespace(host.namespace, [join(host.binDir, input.type)]);
  const { stdout, stderr, exitCode, message } = await execa(file, args, {
    cwd: '/',
    extendEnv: false,
    env: {
      ...programEnv(host.runId),
      CNI_COMMAND: command,
      CNI_CONTAINERID: containerId,
      CNI_NETNS: netns,
      CNI_IFNAME: ifname,
      CNI_PATH: host.binDir,
      CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${pod.namespace};K8S_POD_NAME=${pod.name};K8S_POD_INFRA_CONTAINER_ID=${containerId};K8S_POD_UID=${pod.uid}`,
    },
    input: JSON.stringify(input),
    timeout: pluginTimeoutMs,
    reject: false,
  });
  if (exitCode === 0) return stdout;
  // A plugin explains itself on standard output (CNI spec, "Error").
  const reason = [stdout, stderr].map((text) => text.trim()).find((text) => text !== '') ?? message;
  throw new AgentError(
    'CniFailed',
    `Cannot ${command} network ${input.type} for pod ${pod.namespace}/${pod.name}: ${reason}`,
  );
}

function listFolder(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}
