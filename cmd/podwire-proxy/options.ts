/** The command line and environment of podwire-proxy; flags are spelled as kube-proxy's. */
import { readFile } from 'node:fs/promises';
import { Command, CommanderError } from 'commander';
import { parseDuration } from '#pkg/config/duration.ts';
import { parseProxyConfigFile, type ProxyConfigFile } from '#pkg/config/proxy-config-file.ts';
import { proxyConfig, type ProxyConfig } from '#pkg/config/proxy-config.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';

export interface ProxyOptions {
  readonly config: ProxyConfig;
  readonly nodeName: string;
  /** What was given but is not used: for the log. */
  readonly warnings: readonly string[];
}

/** The person asked for help or the version, and has it. */
export interface Answered {
  readonly kind: 'answered';
}

export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The host's name: the last resort for the Node's. */
  readonly hostname: string;
  readonly version: string;
}

/**
 * Reads flags, environment and configuration file.
 *
 * @throws {AgentError} WrongUsage or InvalidConfig
 */
export async function readOptions(
  argv: readonly string[],
  surroundings: Surroundings,
): Promise<ProxyOptions | Answered> {
  const command = commandLine(surroundings.version);
  try {
    command.parse(argv, { from: 'user' });
  } catch (cause) {
    if (cause instanceof CommanderError && cause.exitCode === 0) return { kind: 'answered' };
    const said = cause instanceof CommanderError ? cause.message.replace(/^error: /, '') : '';
    throw new AgentError('WrongUsage', `Cannot understand the command line: ${said}`, { cause });
  }
  const flags = command.opts<Flags>();
  const { config, warnings } = await readConfig(flags);
  if (config.mode !== 'iptables') {
    throw new AgentError(
      'InvalidConfig',
      `Cannot run in mode ${config.mode}: this version has mode iptables only`,
    );
  }
  return { config, nodeName: nodeName(flags, config, surroundings), warnings };
}

/** Texts as typed; undefined = not given. */
type Flags = Readonly<Partial<Record<FlagName, string | true>>>;
type FlagName =
  | 'config'
  | 'kubeconfig'
  | 'master'
  | 'apiserver'
  | 'hostnameOverride'
  | 'proxyMode'
  | 'clusterCidr'
  | 'detectLocalMode'
  | 'podBridgeInterface'
  | 'podInterfaceNamePrefix'
  | 'bindAddress'
  | 'healthzBindAddress'
  | 'metricsBindAddress'
  | 'nodeportAddresses'
  | 'masqueradeAll'
  | 'iptablesMasqueradeBit'
  | 'iptablesLocalhostNodeports'
  | 'iptablesSyncPeriod'
  | 'iptablesMinSyncPeriod'
  | 'v';

function commandLine(version: string): Command {
  return new Command('podwire-proxy')
    .description('Serves Kubernetes Services on this node, in place of kube-proxy')
    .version(version)
    .option(
      '--config <file>',
      'KubeProxyConfiguration; other flags then do not count, but for these',
    )
    .option('--hostname-override <name>', 'name of this Node object; else NODE_NAME, else the host')
    .option('--kubeconfig <file>', 'how to reach the API server; none = in-cluster')
    .option('--master <url>', "the API server, instead of the kubeconfig's")
    .option('--apiserver <url>', 'the same as --master')
    .option('-v, --v <level>', 'verbosity; 2 and more log details')
    .option('--proxy-mode <mode>', 'iptables')
    .option('--cluster-cidr <cidrs>', 'range of pods, one a family')
    .option('--detect-local-mode <mode>', 'how to tell pods of this node')
    .option('--pod-bridge-interface <name>', 'for detect-local-mode BridgeInterface')
    .option('--pod-interface-name-prefix <start>', 'for detect-local-mode InterfaceNamePrefix')
    .option('--bind-address <ip>', 'decides which family the servers below listen on')
    .option('--healthz-bind-address <address>', 'where /healthz and /livez answer (0.0.0.0:10256)')
    .option('--metrics-bind-address <address>', 'where /metrics answers (127.0.0.1:10249)')
    .option('--nodeport-addresses <cidrs>', 'addresses that node ports answer on; none = all')
    .option('--masquerade-all [bool]', 'masquerade all traffic to cluster addresses')
    .option('--iptables-masquerade-bit <bit>', 'bit of the packet mark that asks for masquerade')
    .option('--iptables-localhost-nodeports [bool]', 'node ports answer on 127.0.0.1 too')
    .option('--iptables-sync-period <duration>', 'how often rules are compared with the kernel')
    .option('--iptables-min-sync-period <duration>', 'least time between two changes of rules')
    .allowExcessArguments(false)
    .exitOverride()
    .configureOutput({ outputError: () => undefined });
}

/** As in kube-proxy, a file decides alone, but for the Node's name and the verbosity. */
const besideFile: ReadonlySet<string> = new Set([
  'config',
  'hostnameOverride',
  'kubeconfig',
  'master',
  'apiserver',
  'v',
]);

async function readConfig(
  flags: Flags,
): Promise<{ readonly config: ProxyConfig; readonly warnings: readonly string[] }> {
  const path = text(flags.config);
  if (path === undefined)
    return { config: withFlags(proxyConfig(fromFlags(flags)), flags), warnings: [] };
  const yaml = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new AgentError('InvalidConfig', `Cannot read configuration ${path}`, { cause });
  });
  const { file, warnings } = parseProxyConfigFile(yaml, path);
  const ignored = Object.keys(flags).filter((name) => !besideFile.has(name));
  return {
    config: withFlags(proxyConfig(file), flags),
    warnings: [
      ...warnings.map((warning) => `${path}: ${warning}`),
      ...ignored.map((name) => `flag ${name} does not count beside --config`),
    ],
  };
}

function withFlags(config: ProxyConfig, flags: Flags): ProxyConfig {
  return {
    ...config,
    kubeconfig: config.kubeconfig ?? text(flags.kubeconfig),
    master: master(text(flags.master) ?? text(flags.apiserver)),
    // Go's flags allow -v=2.
    verbosity: integer('-v', text(flags.v)?.replace(/^=/, '')) ?? config.verbosity,
  };
}

function master(given: string | undefined): string | undefined {
  if (given === undefined || /^https?:\/\/[^/]/.test(given)) return given?.replace(/\/+$/, '');
  throw wrong('--master', given, 'a URL as https://10.0.0.1:6443');
}

/** What a file with the same settings would say. */
function fromFlags(flags: Flags): ProxyConfigFile {
  return {
    bindAddress: text(flags.bindAddress),
    healthzBindAddress: text(flags.healthzBindAddress),
    metricsBindAddress: text(flags.metricsBindAddress),
    mode: text(flags.proxyMode),
    clusterCIDR: text(flags.clusterCidr),
    detectLocalMode: text(flags.detectLocalMode),
    detectLocal: {
      bridgeInterface: text(flags.podBridgeInterface),
      interfaceNamePrefix: text(flags.podInterfaceNamePrefix),
    },
    nodePortAddresses: text(flags.nodeportAddresses)
      ?.split(',')
      .filter((entry) => entry !== ''),
    iptables: {
      layout: undefined,
      masqueradeAll: boolean('--masquerade-all', flags.masqueradeAll),
      masqueradeBit: integer('--iptables-masquerade-bit', flags.iptablesMasqueradeBit),
      localhostNodePorts: boolean(
        '--iptables-localhost-nodeports',
        flags.iptablesLocalhostNodeports,
      ),
      syncPeriod: duration('--iptables-sync-period', flags.iptablesSyncPeriod),
      minSyncPeriod: duration('--iptables-min-sync-period', flags.iptablesMinSyncPeriod),
    },
  };
}

function nodeName(flags: Flags, config: ProxyConfig, { env, hostname }: Surroundings): string {
  const given = text(flags.hostnameOverride) ?? config.hostnameOverride ?? env['NODE_NAME'];
  const name = (given ?? hostname).trim().toLowerCase();
  if (name !== '') return name;
  throw new AgentError(
    'WrongUsage',
    'Cannot tell which Node this is: give --hostname-override, or NODE_NAME in the environment',
  );
}

function text(value: string | true | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function boolean(flag: string, value: string | true | undefined): boolean | undefined {
  if (value === undefined || value === true) return value;
  if (/^(?:1|t|true)$/i.test(value)) return true;
  if (/^(?:0|f|false)$/i.test(value)) return false;
  throw wrong(flag, value, 'true or false');
}

function integer(flag: string, value: string | true | undefined): number | undefined {
  const given = text(value);
  if (given === undefined) return undefined;
  if (!/^\d{1,9}$/.test(given)) throw wrong(flag, given, 'a number');
  return Number(given);
}

function duration(flag: string, value: string | true | undefined): number | undefined {
  const given = text(value);
  if (given === undefined) return undefined;
  const ms = parseDuration(given);
  if (ms === undefined) throw wrong(flag, given, 'a duration as 30s or 1m30s');
  return ms;
}

function wrong(flag: string, value: string, expected: string): AgentError {
  return new AgentError(
    'WrongUsage',
    `Cannot use ${flag} ${JSON.stringify(value)}: expected ${expected}`,
  );
}
