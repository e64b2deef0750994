/** The command line and environment of podwire-node. */
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { Command, CommanderError } from 'commander';
import { backendOf, ignoredKeys, parseNetConf, type NetConf } from '#pkg/config/net-conf.ts';
import { parseNodeConfig, type NodeConfig } from '#pkg/config/node-config.ts';
import { AgentError, messageOf } from '#pkg/errors/agent-error.ts';

export interface NodeOptions {
  /** Undefined = the Pod's ServiceAccount. */
  readonly kubeconfig: string | undefined;
  readonly nodeName: string;
  readonly config: NodeConfig;
  /** The same configuration with another network configuration of flannel's below it. */
  readonly withNetConf: (content: NetConf, source: string) => NodeConfig;
  /** For the log: what was read and means nothing. */
  readonly notices: readonly string[];
}

/** The person asked for help or the version, and has it. */
export interface Answered {
  readonly kind: 'answered';
}

/**
 * Reads flags, environment and configuration file.
 *
 * @throws {AgentError} WrongUsage or InvalidConfig
 */
export async function readOptions(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  version: string,
): Promise<NodeOptions | Answered> {
  const command = new Command('podwire-node')
    .description('Connects the pods of this node with those of every other node')
    .version(version)
    .option('--kubeconfig <file>', 'how to reach the API server; none = in-cluster')
    .option('--node-name <name>', 'name of this Node object; else the environment NODE_NAME')
    .option('--config <file>', 'configuration file (YAML)')
    .option('--net-conf <file>', "flannel's net-conf.json; else the configuration's netConf")
    .option('--annotation-prefix <name>', "else the configuration's annotationPrefix")
    .allowExcessArguments(false)
    .exitOverride()
    .configureOutput({ outputError: () => undefined });
  try {
    command.parse(argv, { from: 'user' });
  } catch (cause) {
    if (cause instanceof CommanderError && cause.exitCode === 0) return { kind: 'answered' };
    // Its suggestions stand in a line of their own.
    const said = messageOf(cause)
      .replace(/^error: /, '')
      .replaceAll(/\s*\n\s*/g, ' ');
    throw new AgentError('WrongUsage', `Cannot understand the command line: ${said}`);
  }
  const { kubeconfig, ...flags } = command.opts<Flags>();
  const { config, withNetConf, notices } = await readConfig(flags);
  // In etcd a node has no name but its subnet: this one is for the log.
  const nodeName =
    flags.nodeName ?? env['NODE_NAME'] ?? (config.etcd === undefined ? '' : hostname());
  if (nodeName === '') {
    throw new AgentError(
      'WrongUsage',
      'Cannot tell which Node this is: give --node-name, or NODE_NAME in the environment',
    );
  }
  return { kubeconfig, nodeName, config, withNetConf, notices };
}

interface Flags {
  readonly kubeconfig?: string;
  readonly nodeName?: string;
  readonly config?: string;
  readonly netConf?: string;
  readonly annotationPrefix?: string;
}

async function readConfig({
  config: path,
  netConf: netConfFile,
  annotationPrefix,
}: Flags): Promise<Pick<NodeOptions, 'config' | 'withNetConf' | 'notices'>> {
  const source = path ?? 'the defaults';
  const text = path === undefined ? '' : await readText(path, 'configuration');
  const flags = {
    ...(netConfFile === undefined ? {} : { netConf: netConfFile }),
    ...(annotationPrefix === undefined ? {} : { annotationPrefix }),
  };
  const withNetConf = (content: NetConf, from: string): NodeConfig =>
    parseNodeConfig(text, source, { content, source: from }, flags);
  const config = parseNodeConfig(text, source, undefined, flags);
  if (config.netConf === undefined) return { config, withNetConf, notices: [] };
  const netConf = parseNetConf(await readText(config.netConf, 'netConf'), config.netConf);
  const whole = withNetConf(netConf, config.netConf);
  const notices = netConfNotices(netConf, config.netConf, whole);
  return { config: whole, withNetConf, notices };
}

/** A sentence on keys that mean nothing, flannel's silence being no help to who mistyped one. */
export function netConfNotices(
  netConf: NetConf,
  source: string,
  { backend }: Pick<NodeConfig, 'backend'>,
): readonly string[] {
  const isOther = netConf.Backend !== undefined && backend !== backendOf(netConf);
  const keys = isOther ? [...netConf.unknownKeys, 'Backend'] : ignoredKeys(netConf);
  return keys.length === 0 ? [] : [`${source}: nobody reads ${keys.join(', ')}`];
}

function readText(path: string, what: string): Promise<string> {
  return readFile(path, 'utf8').catch((cause: unknown) => {
    throw new AgentError('InvalidConfig', `Cannot read ${what} ${path}`, { cause });
  });
}
