/** From configuration, Node and host to what the renderer asks. */
import type { ProxyConfig } from '#pkg/config/proxy-config.ts';
import type { Family } from '#pkg/ip/address.ts';
import { networkOf, tryParsePrefix, type Prefix } from '#pkg/ip/prefix.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { IptablesOptions } from '#pkg/proxy/iptables-options.ts';
import type { LocalDetector } from '#pkg/proxy/local-detector.ts';
import type { NftablesOptions } from '#pkg/proxy/nftables-options.ts';
import { nodeAddresses } from '#pkg/proxy/node-addresses.ts';
import { nodePortTargets } from '#pkg/proxy/node-port-addresses.ts';
import type { ProxyHost } from './host.ts';

interface Given {
  readonly config: ProxyConfig;
  readonly node: NodeRecord | undefined;
  readonly host: ProxyHost;
}

export function iptablesOptions(
  { config, node, host }: Given,
  of: { readonly family: Family; readonly randomFully: boolean },
): IptablesOptions {
  const { layout, localhostNodePorts, masqueradeAll, masqueradeBit } = config.iptables;
  const primary = nodeAddress({ config, node }, of.family);
  return {
    ...of,
    layout,
    masqueradeBit,
    masqueradeAll,
    localhostNodePorts,
    localDetector: localDetector(config, node),
    nodePortAddresses: nodePortAddresses({ config, node, host }, of.family),
    nodeAddress: primary,
    conntrackLiberal: host.conntrackLiberal(),
  };
}

export function nftablesOptions(
  given: Given & { readonly serviceCIDRs: readonly Prefix[] },
  family: Family,
): NftablesOptions {
  const { config, node, serviceCIDRs } = given;
  const { counters, masqueradeAll, masqueradeBit } = config.nftables;
  return {
    family,
    masqueradeBit,
    masqueradeAll,
    localDetector: localDetector(config, node),
    nodePortAddresses: nodePortAddresses(given, family),
    nodeAddress: nodeAddress(given, family),
    serviceCIDRs,
    counters,
  };
}

/** Where node ports of a family answer. */
export function nodePortAddresses(
  { config, node, host }: Given,
  family: Family,
): 'all' | readonly string[] {
  const primary = nodeAddress({ config, node }, family);
  return nodePortTargets(config.nodePortAddresses, family, { all: host.addresses(), primary });
}

/** Whether load balancers may send new traffic here (KEP-3836). */
export function isEligible(node: NodeRecord | undefined): boolean {
  if (node === undefined || node.deleting) return false;
  return !node.taintKeys.includes('ToBeDeletedByClusterAutoscaler');
}

function localDetector(config: ProxyConfig, node: NodeRecord | undefined): LocalDetector {
  switch (config.detectLocalMode) {
    case 'ClusterCIDR':
      if (config.clusterCIDRs.length === 0) return { kind: 'none' };
      return { kind: 'cluster-cidr', prefixes: config.clusterCIDRs };
    case 'NodeCIDR': {
      const prefixes = (node?.podCIDRs ?? [])
        .map(tryParsePrefix)
        .filter((prefix) => prefix !== undefined)
        .map(networkOf);
      return prefixes.length === 0 ? { kind: 'none' } : { kind: 'cluster-cidr', prefixes };
    }
    case 'BridgeInterface':
      return { kind: 'bridge-interface', name: config.bridgeInterface };
    case 'InterfaceNamePrefix':
      return { kind: 'interface-name-prefix', prefix: config.interfaceNamePrefix };
  }
}

function nodeAddress(
  { config, node }: Pick<Given, 'config' | 'node'>,
  family: Family,
): string | undefined {
  return nodeAddresses(config.nodeAddress, node?.internalIPs ?? []).byFamily.get(family);
}
