/** From configuration, Node and host to what the renderer asks. */
import { describe, expect, it } from 'vitest';
import type { ProxyConfigFile } from '#pkg/config/proxy-config-file.ts';
import { nodeRecord } from '#pkg/pod-network/testdata/vxlan-node.ts';
import { proxyConfig } from '#pkg/config/proxy-config.ts';
import { families, type Family } from '#pkg/ip/address.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { IptablesOptions } from '#pkg/proxy/iptables-options.ts';
import { localMatch, notLocalMatch } from '#pkg/proxy/local-detector.ts';
import { iptablesOptions } from './round-options.ts';

interface NodeFields {
  readonly internalIPs?: readonly string[];
  readonly podCIDRs?: readonly string[];
}

function optionsFor(file: ProxyConfigFile, family: Family, fields?: NodeFields): IptablesOptions {
  const node: NodeRecord | undefined = fields && nodeRecord('node-one', fields);
  const host = {
    addresses: () => ['192.0.2.1'],
    conntrackLiberal: () => false,
    allowRouteLocalnet: () => undefined,
  };
  return iptablesOptions({ config: proxyConfig(file), node, host }, { family, randomFully: true });
}

const both = { internalIPs: ['192.0.2.1', 'fd00::1', '192.0.2.2'] };

/** What is wanted: of IPv4, of IPv6. */
it.each<[string, string, NodeFields | undefined, readonly (string | undefined)[]]>([
  ['S128. the wildcard of IPv4', '0.0.0.0', both, ['192.0.2.1', 'fd00::1']],
  ['S128. the wildcard of IPv6', '::', both, ['192.0.2.1', 'fd00::1']],
  ['S128. an address of IPv4', '192.0.2.9', both, ['192.0.2.9', 'fd00::1']],
  ['S128. an address of IPv6', 'fd00:0::9', both, ['192.0.2.1', 'fd00::9']],
  ['S128. a Node of one family', '0.0.0.0', { internalIPs: ['fd00::1'] }, [undefined, 'fd00::1']],
  ['S128. a Node without addresses', '0.0.0.0', {}, [undefined, undefined]],
  ['S128. no Node', '0.0.0.0', undefined, [undefined, undefined]],
  ['S128. an address, and no Node', '192.0.2.9', undefined, ['192.0.2.9', undefined]],
])('%s', (_, bindAddress, node, wanted) => {
  const found = families.map((family) => optionsFor({ bindAddress }, family, node).nodeAddress);
  expect(found).toEqual(wanted);
});

describe('S129. pods are told', () => {
  const dual = { podCIDRs: ['10.1.0.7/24', 'fd00:10::/64'] };
  const cidrs = { clusterCIDR: '10.0.0.0/8,fd00:10::/48' };
  const bridge = {
    detectLocalMode: 'BridgeInterface',
    detectLocal: { bridgeInterface: 'cni0', interfaceNamePrefix: undefined },
  };
  const prefix = {
    detectLocalMode: 'InterfaceNamePrefix',
    detectLocal: { bridgeInterface: undefined, interfaceNamePrefix: 'veth' },
  };
  const nodeCIDR = { detectLocalMode: 'NodeCIDR' };
  const neither = [undefined, undefined];
  const ofNode = [{ source: '10.1.0.0/24' }, { source: 'fd00:10::/64' }];
  const ofCluster = [{ source: '10.0.0.0/8' }, { source: 'fd00:10::/48' }];
  const v4 = { clusterCIDR: '010.0.0.0/8' };
  const v6 = { clusterCIDR: 'fd00:10::/48' };
  const one = { podCIDRs: ['10.1.0.0/24'] };
  it.each<[string, ProxyConfigFile, NodeFields | undefined, readonly (object | undefined)[]]>([
    ['by the range of the cluster', cidrs, dual, ofCluster],
    ['in IPv4 only', v4, dual, [ofCluster[0], undefined]],
    ['in IPv6 only', v6, dual, [undefined, ofCluster[1]]],
    ['not at all without a range', {}, dual, neither],
    ["by the node's ranges", nodeCIDR, dual, ofNode],
    ["by the node's one range", nodeCIDR, one, [ofNode[0], undefined]],
    ["by the node's, whatever the cluster has", { ...cidrs, ...nodeCIDR }, dual, ofNode],
    ['not at all while the node has no range', nodeCIDR, {}, neither],
    ['not at all without a Node', nodeCIDR, undefined, neither],
    ['by a bridge', bridge, dual, [{ inInterface: 'cni0' }, { inInterface: 'cni0' }]],
    ['by names', prefix, dual, [{ inInterface: 'veth+' }, { inInterface: 'veth+' }]],
  ])('%s', (_, file, node, wanted) => {
    for (const [i, family] of families.entries()) {
      const match = wanted[i];
      const { localDetector } = optionsFor(file, family, node);
      expect(localMatch(localDetector, family)).toEqual(match);
      const negated = Object.entries(match ?? {}).map(([name, value]) => [name, `! ${value}`]);
      expect(notLocalMatch(localDetector, family)).toEqual(
        match === undefined ? undefined : Object.fromEntries(negated),
      );
    }
  });
});
