/** What the service proxy needs to know, from a KubeProxyConfiguration or from kube-proxy's flags. */
import type { ConntrackConfig } from '#pkg/conntrack/sysctls.ts';
import { AgentError, messageOf } from '#pkg/errors/agent-error.ts';
import { parseBindAddress, type BindAddress } from '#pkg/health/bind-address.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';
import { schedulerFlags } from '#pkg/ipvs/scheduler-flags.ts';
import { canonicalAddress, prefixFromApi } from '#pkg/proxy/address-text.ts';
import { checkProxyConfig, formatProblem, type FieldProblem } from './proxy-config-checks.ts';
import { completeProxyConfig, type CompleteProxyConfig } from './proxy-config-defaults.ts';
import type { ProxyConfigFile } from './proxy-config-file.ts';

export type ProxyMode = 'iptables' | 'ipvs' | 'nftables';
export type DetectLocalMode =
  | 'ClusterCIDR'
  | 'NodeCIDR'
  | 'BridgeInterface'
  | 'InterfaceNamePrefix';

/** How often a mode writes: not more often than one, and unasked after the other. */
export interface SyncPeriods {
  readonly syncPeriodMs: number;
  readonly minSyncPeriodMs: number;
}

export interface IptablesConfig extends SyncPeriods {
  readonly masqueradeBit: number;
  readonly masqueradeAll: boolean;
  readonly localhostNodePorts: boolean;
  readonly layout: 'compatible' | 'tree';
}

export interface IpvsConfig extends SyncPeriods {
  /** A kernel's scheduler: "rr", "lc", "mh". */
  readonly scheduler: string;
  /** Of the scheduler, as ipvsadm takes them: "sh-fallback,sh-port"; empty = none. */
  readonly schedulerFlags: string;
  /** Virtual servers with these addresses are not ours to delete. */
  readonly excludeCIDRs: readonly Prefix[];
  readonly strictARP: boolean;
  /** 0 = as the kernel has it, for all three. */
  readonly tcpTimeoutMs: number;
  readonly tcpFinTimeoutMs: number;
  readonly udpTimeoutMs: number;
}

export interface NftablesConfig extends SyncPeriods {
  readonly counters: 'none' | 'services' | 'endpoints';
  /** Of so many Services /metrics tells what is counted: those with most connections. */
  readonly serviceMetrics: number;
  /** Packets and bytes of Services and endpoints are counted, by connection tracking. */
  readonly traffic: boolean;
  readonly masqueradeBit: number;
  readonly masqueradeAll: boolean;
}

export interface ProxyConfig {
  /** Undefined = the Pod's ServiceAccount. */
  readonly kubeconfig: string | undefined;
  /** The API server's URL, where it differs from the kubeconfig's. */
  readonly master: string | undefined;
  /** Undefined = the name of the host. */
  readonly hostnameOverride: string | undefined;
  /** This node's address, canonical; undefined = those in the Node object. */
  readonly nodeAddress: string | undefined;
  /** Undefined = no such server. */
  readonly healthzBindAddress: BindAddress | undefined;
  readonly metricsBindAddress: BindAddress | undefined;
  /** A server that cannot listen ends the proxy. */
  readonly bindAddressHardFail: boolean;
  readonly enableProfiling: boolean;
  readonly featureGates: Readonly<Record<string, boolean>>;
  readonly mode: ProxyMode;
  readonly iptables: IptablesConfig;
  readonly ipvs: IpvsConfig;
  readonly nftables: NftablesConfig;
  readonly detectLocalMode: DetectLocalMode;
  readonly clusterCIDRs: readonly Prefix[];
  readonly bridgeInterface: string;
  readonly interfaceNamePrefix: string;
  /** Empty = every address. */
  readonly nodePortAddresses: 'primary' | readonly Prefix[];
  /** -1000 to 1000: how willingly the kernel kills this process when memory is short. */
  readonly oomScoreAdj: number;
  readonly conntrack: ConntrackConfig;
  readonly verbosity: number;
}

/**
 * The configuration that a file asks for, with kube-proxy's defaults for what it leaves out.
 *
 * @throws {AgentError} InvalidConfig, naming every field that is wrong and what was expected
 */
export function proxyConfig(file: ProxyConfigFile): ProxyConfig {
  return checkedProxyConfig(completeProxyConfig(file));
}

/**
 * The same of a file that has its defaults already, and what flags say beside.
 *
 * @param source what a person wrote it in, for the error; undefined = flags
 * @throws {AgentError} InvalidConfig, naming every field that is wrong and what was expected
 */
export function checkedProxyConfig(file: CompleteProxyConfig, source?: string): ProxyConfig {
  const problems = checkProxyConfig(file);
  const config = convert(file, problems);
  if (problems.length === 0) return config;
  const where = source === undefined ? '' : `${source}: `;
  throw new AgentError(
    'InvalidConfig',
    `Cannot use ${where}${problems.map(formatProblem).join('; ')}`,
  );
}

/** The periods of the mode in use. */
export function syncPeriods(config: ProxyConfig): SyncPeriods {
  return config[config.mode];
}

function convert(file: CompleteProxyConfig, problems: FieldProblem[]): ProxyConfig {
  const { conntrack, iptables, ipvs, nftables } = file;
  return {
    kubeconfig: given(file.clientConnection.kubeconfig),
    master: undefined,
    hostnameOverride: given(file.hostnameOverride.trim().toLowerCase()),
    nodeAddress: nodeAddress(file.bindAddress, problems),
    healthzBindAddress: server('healthzBindAddress', file, 10256, problems),
    metricsBindAddress: server('metricsBindAddress', file, 10249, problems),
    bindAddressHardFail: file.bindAddressHardFail,
    enableProfiling: file.enableProfiling,
    featureGates: file.featureGates,
    mode: file.mode as ProxyMode,
    iptables: {
      masqueradeBit: iptables.masqueradeBit,
      masqueradeAll: iptables.masqueradeAll,
      localhostNodePorts: iptables.localhostNodePorts,
      layout: iptables.layout as IptablesConfig['layout'],
      syncPeriodMs: iptables.syncPeriod,
      minSyncPeriodMs: iptables.minSyncPeriod,
    },
    ipvs: {
      syncPeriodMs: ipvs.syncPeriod,
      minSyncPeriodMs: ipvs.minSyncPeriod,
      scheduler: ipvs.scheduler || 'rr',
      schedulerFlags: schedulerFlags(ipvs.scheduler || 'rr', ipvs.schedulerFlags),
      // In any mode: what mode ipvs left is taken away by those that follow, and by --cleanup.
      excludeCIDRs: cidrs(
        'ipvs.excludeCIDRs',
        ipvs.excludeCIDRs,
        file.mode === 'ipvs' ? problems : [],
      ),
      strictARP: ipvs.strictARP,
      tcpTimeoutMs: ipvs.tcpTimeout,
      tcpFinTimeoutMs: ipvs.tcpFinTimeout,
      udpTimeoutMs: ipvs.udpTimeout,
    },
    nftables: {
      counters: nftables.counters as NftablesConfig['counters'],
      serviceMetrics: nftables.serviceMetrics,
      traffic: nftables.traffic,
      masqueradeBit: nftables.masqueradeBit,
      masqueradeAll: nftables.masqueradeAll,
      syncPeriodMs: nftables.syncPeriod,
      minSyncPeriodMs: nftables.minSyncPeriod,
    },
    detectLocalMode: file.detectLocalMode as DetectLocalMode,
    clusterCIDRs: clusterCIDRs(file.clusterCIDR, problems),
    bridgeInterface: file.detectLocal.bridgeInterface,
    interfaceNamePrefix: file.detectLocal.interfaceNamePrefix,
    nodePortAddresses: nodePortAddresses(file, problems),
    oomScoreAdj: file.oomScoreAdj,
    conntrack: {
      maxPerCore: conntrack.maxPerCore,
      min: conntrack.min,
      tcpEstablishedTimeoutMs: conntrack.tcpEstablishedTimeout,
      tcpCloseWaitTimeoutMs: conntrack.tcpCloseWaitTimeout,
      tcpBeLiberal: conntrack.tcpBeLiberal,
      udpTimeoutMs: conntrack.udpTimeout,
      udpStreamTimeoutMs: conntrack.udpStreamTimeout,
    },
    verbosity: file.logging.verbosity,
  };
}

/** The wildcard addresses mean what an absent one means. */
function nodeAddress(text: string, problems: FieldProblem[]): string | undefined {
  const canonical = canonicalAddress(text);
  if (canonical === undefined) {
    problems.push({ path: 'bindAddress', value: text, expected: 'an IP address as 192.0.2.1' });
  }
  return canonical === '0.0.0.0' || canonical === '::' ? undefined : canonical;
}

function server(
  path: 'healthzBindAddress' | 'metricsBindAddress',
  file: CompleteProxyConfig,
  port: number,
  problems: FieldProblem[],
): BindAddress | undefined {
  try {
    return parseBindAddress(path, file[path], port);
  } catch (error) {
    const expected = messageOf(error).replace(/^.*: expected /, '');
    problems.push({ path, value: file[path], expected });
    return undefined;
  }
}

/** One CIDR, or one of each family separated by a comma. */
function clusterCIDRs(text: string, problems: FieldProblem[]): readonly Prefix[] {
  if (text.trim() === '') return [];
  const prefixes = cidrs('clusterCIDR', text.split(','), problems);
  const [first, second] = prefixes;
  const sameFamily = second !== undefined && first?.address.family === second.address.family;
  if (text.split(',').length > 2 || sameFamily) {
    const expected = 'one CIDR, or one of IPv4 and one of IPv6';
    problems.push({ path: 'clusterCIDR', value: text, expected });
  }
  return prefixes;
}

/** The nftables mode serves the node's own address by default, the others every address. */
function nodePortAddresses(
  { mode, nodePortAddresses: entries }: CompleteProxyConfig,
  problems: FieldProblem[],
): 'primary' | readonly Prefix[] {
  if (entries.length === 0 && mode === 'nftables') return 'primary';
  if (!entries.includes('primary')) return cidrs('nodePortAddresses', entries, problems);
  if (entries.length > 1) {
    problems.push({ path: 'nodePortAddresses', value: entries, expected: '"primary" alone' });
  }
  return 'primary';
}

function cidrs(path: string, texts: readonly string[], problems: FieldProblem[]): Prefix[] {
  return texts.flatMap((text) => {
    const prefix = prefixFromApi(text);
    if (prefix !== undefined) return [prefix];
    problems.push({ path, value: text, expected: 'address/length as 10.244.0.0/16' });
    return [];
  });
}

function given(text: string): string | undefined {
  return text === '' ? undefined : text;
}
