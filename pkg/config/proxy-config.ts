/** What the service proxy needs to know, from a KubeProxyConfiguration or from kube-proxy's flags. */
import { parseBindAddress, type BindAddress } from '#pkg/health/bind-address.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { networkOf, tryParsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import type { ProxyConfigFile } from './proxy-config-file.ts';

export type ProxyMode = 'iptables' | 'ipvs' | 'nftables';
export type DetectLocalMode =
  | 'ClusterCIDR'
  | 'NodeCIDR'
  | 'BridgeInterface'
  | 'InterfaceNamePrefix';

export interface ProxyConfig {
  /** Undefined = the Pod's ServiceAccount. */
  readonly kubeconfig: string | undefined;
  /** The API server's URL, where it differs from the kubeconfig's. */
  readonly master: string | undefined;
  /** Undefined = the name of the host. */
  readonly hostnameOverride: string | undefined;
  /** Undefined = no such server. */
  readonly healthzBindAddress: BindAddress | undefined;
  readonly metricsBindAddress: BindAddress | undefined;
  readonly mode: ProxyMode;
  readonly iptables: {
    readonly layout: 'compatible' | 'tree';
    readonly masqueradeBit: number;
    readonly masqueradeAll: boolean;
    readonly localhostNodePorts: boolean;
    readonly syncPeriodMs: number;
    readonly minSyncPeriodMs: number;
  };
  readonly detectLocalMode: DetectLocalMode;
  readonly clusterCIDRs: readonly Prefix[];
  readonly bridgeInterface: string;
  readonly interfaceNamePrefix: string;
  /** Empty = every address. */
  readonly nodePortAddresses: 'primary' | readonly Prefix[];
  readonly verbosity: number;
}

/**
 * The configuration with kube-proxy's defaults for what the file leaves out (empty, null or zero).
 *
 * @throws {AgentError} InvalidConfig, naming the field and what was expected
 */
export function proxyConfig(file: ProxyConfigFile): ProxyConfig {
  const { iptables } = file;
  const v6 = file.bindAddress?.includes(':') === true;
  const config: ProxyConfig = {
    kubeconfig: given(file.clientConnection?.kubeconfig),
    master: undefined,
    hostnameOverride: given(file.hostnameOverride?.trim().toLowerCase()),
    healthzBindAddress: parseBindAddress(
      'healthzBindAddress',
      given(file.healthzBindAddress) ?? (v6 ? '[::]' : '0.0.0.0'),
      10256,
    ),
    metricsBindAddress: parseBindAddress(
      'metricsBindAddress',
      given(file.metricsBindAddress) ?? (v6 ? '[::1]' : '127.0.0.1'),
      10249,
    ),
    mode: oneOf('mode', file.mode, ['iptables', 'ipvs', 'nftables']),
    iptables: {
      layout: oneOf('iptables.layout', iptables?.layout, ['compatible', 'tree']),
      masqueradeBit: iptables?.masqueradeBit ?? 14,
      masqueradeAll: iptables?.masqueradeAll ?? false,
      localhostNodePorts: iptables?.localhostNodePorts ?? true,
      syncPeriodMs: iptables?.syncPeriod || 30_000,
      minSyncPeriodMs: iptables?.minSyncPeriod || 1_000,
    },
    detectLocalMode: oneOf('detectLocalMode', file.detectLocalMode, [
      'ClusterCIDR',
      'NodeCIDR',
      'BridgeInterface',
      'InterfaceNamePrefix',
    ]),
    clusterCIDRs: clusterCIDRs(file.clusterCIDR ?? ''),
    bridgeInterface: file.detectLocal?.bridgeInterface ?? '',
    interfaceNamePrefix: file.detectLocal?.interfaceNamePrefix ?? '',
    nodePortAddresses: nodePortAddresses(file.nodePortAddresses ?? []),
    verbosity: file.logging?.verbosity ?? 0,
  };
  check(config);
  return config;
}

function check(config: ProxyConfig): void {
  const { masqueradeBit, minSyncPeriodMs, syncPeriodMs } = config.iptables;
  if (!Number.isInteger(masqueradeBit) || masqueradeBit < 0 || masqueradeBit > 31) {
    throw invalid('iptables.masqueradeBit', masqueradeBit, 'a number from 0 to 31');
  }
  if (syncPeriodMs < 0) throw invalid('iptables.syncPeriod', `${syncPeriodMs}ms`, 'more than 0');
  if (minSyncPeriodMs < 0 || minSyncPeriodMs > syncPeriodMs) {
    throw invalid('iptables.minSyncPeriod', `${minSyncPeriodMs}ms`, 'at most syncPeriod');
  }
  const { bridgeInterface, detectLocalMode, interfaceNamePrefix } = config;
  const name = /^[^\s/"'\\+!]{1,15}$/;
  if (detectLocalMode === 'BridgeInterface' && !name.test(bridgeInterface)) {
    throw invalid('detectLocal.bridgeInterface', bridgeInterface, 'the name of an interface');
  }
  if (detectLocalMode === 'InterfaceNamePrefix' && !name.test(interfaceNamePrefix)) {
    throw invalid('detectLocal.interfaceNamePrefix', interfaceNamePrefix, 'a start of names');
  }
}

/** One CIDR, or one of each family separated by a comma. */
function clusterCIDRs(text: string): Prefix[] {
  if (text.trim() === '') return [];
  const prefixes = text.split(',').map((part) => cidr('clusterCIDR', part.trim()));
  const [first, second] = prefixes;
  const sameFamily = second !== undefined && first?.address.family === second.address.family;
  if (prefixes.length > 2 || sameFamily) {
    throw invalid('clusterCIDR', text, 'one CIDR, or one of IPv4 and one of IPv6');
  }
  return prefixes;
}

function nodePortAddresses(entries: readonly string[]): 'primary' | Prefix[] {
  if (!entries.includes('primary')) return entries.map((e) => cidr('nodePortAddresses', e));
  if (entries.length > 1) throw invalid('nodePortAddresses', entries, '"primary" alone');
  return 'primary';
}

function cidr(field: string, text: string): Prefix {
  const prefix = tryParsePrefix(text.trim());
  if (prefix === undefined) throw invalid(field, text, 'address/length as 10.244.0.0/16');
  return networkOf(prefix);
}

/** The first choice is what an absent or empty value means. */
function oneOf<const C extends string>(
  field: string,
  value: string | undefined,
  choices: readonly [C, ...C[]],
): C {
  if (value === undefined || value === '') return choices[0];
  const found = choices.find((choice) => choice === value);
  if (found === undefined) throw invalid(field, value, `one of ${choices.join(', ')}`);
  return found;
}

function given(text: string | undefined): string | undefined {
  return text === undefined || text === '' ? undefined : text;
}

function invalid(field: string, value: unknown, expected: string): AgentError {
  return new AgentError(
    'InvalidConfig',
    `Cannot use ${field} ${JSON.stringify(value)}: expected ${expected}`,
  );
}
