/** From configuration, Node and host to what the renderer asks. */
import { describe, expect, it } from 'vitest';
import type { ProxyConfigFile } from '#pkg/config/proxy-config-file.ts';
import { proxyConfig } from '#pkg/config/proxy-config.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { IptablesOptions } from '#pkg/proxy/iptables-options.ts';
import { localMatch, notLocalMatch } from '#pkg/proxy/local-detector.ts';
import { iptablesOptions } from './round-options.ts';

interface NodeFields {
  readonly internalIPs?: readonly string[];
  readonly podCIDRs?: readonly string[];
}

function optionsFor(file: ProxyConfigFile, family: Family, fields?: NodeFields): IptablesOptions {
  const node: NodeRecord | undefined = fields && {
    namespace: '',
    name: 'node-one',
    uid: '1',
    resourceVersion: '1',
    createdAt: '',
    annotations: {},
    labels: {},
    podCIDRs: [],
    internalIPs: [],
    taintKeys: [],
    deleting: false,
    ...fields,
  };
  const host = {
    addresses: () => ['192.0.2.1'],
    conntrackLiberal: () => false,
    allowRouteLocalnet: () => undefined,
  };
  return iptablesOptions({ config: proxyConfig(file), node, host }, { family, randomFully: true });
}

const both = { internalIPs: ['192.0.2.1', 'fd00::1', '192.0.2.2'] };

it.each<[string, string, NodeFields | undefined, string | undefined, string | undefined]>([
  ['S128. the wildcard of IPv4', '0.0.0.0', both, '192.0.2.1', 'fd00::1'],
  ['S128. the wildcard of IPv6', '::', both, '192.0.2.1', 'fd00::1'],
  ['S128. an address of IPv4', '192.0.2.9', both, '192.0.2.9', 'fd00::1'],
  ['S128. an address of IPv6', 'fd00:0::9', both, '192.0.2.1', 'fd00::9'],
  ['S128. a Node of one family', '0.0.0.0', { internalIPs: ['fd00::1'] }, undefined, 'fd00::1'],
  ['S128. a Node without addresses', '0.0.0.0', {}, undefined, undefined],
  ['S128. no Node', '0.0.0.0', undefined, undefined, undefined],
  ['S128. an address, and no Node', '192.0.2.9', undefined, '192.0.2.9', undefined],
])('%s', (_, bindAddress, node, ip, ip6) => {
  expect(optionsFor({ bindAddress }, 'ip', node).nodeAddress).toBe(ip);
  expect(optionsFor({ bindAddress }, 'ip6', node).nodeAddress).toBe(ip6);
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
  it.each<
    [string, ProxyConfigFile, NodeFields | undefined, object | undefined, object | undefined]
  >([
    [
      'by the range of the cluster',
      cidrs,
      dual,
      { source: '10.0.0.0/8' },
      { source: 'fd00:10::/48' },
    ],
    [
      'in one family only',
      { clusterCIDR: '010.0.0.0/8' },
      dual,
      { source: '10.0.0.0/8' },
      undefined,
    ],
    ['in IPv6 only', { clusterCIDR: 'fd00:10::/48' }, dual, undefined, { source: 'fd00:10::/48' }],
    ['not at all without a range', {}, dual, undefined, undefined],
    ["by the node's ranges", nodeCIDR, dual, { source: '10.1.0.0/24' }, { source: 'fd00:10::/64' }],
    [
      "by the node's one range",
      nodeCIDR,
      { podCIDRs: ['10.1.0.0/24'] },
      { source: '10.1.0.0/24' },
      undefined,
    ],
    [
      'by its ranges, whatever the cluster has',
      { ...cidrs, ...nodeCIDR },
      dual,
      { source: '10.1.0.0/24' },
      { source: 'fd00:10::/64' },
    ],
    ['not at all while the node has no range', nodeCIDR, {}, undefined, undefined],
    ['not at all without a Node', nodeCIDR, undefined, undefined, undefined],
    ['by a bridge', bridge, dual, { inInterface: 'cni0' }, { inInterface: 'cni0' }],
    ['by names of interfaces', prefix, dual, { inInterface: 'veth+' }, { inInterface: 'veth+' }],
  ])('%s', (_, file, node, ip, ip6) => {
    for (const [family, match] of [
      ['ip', ip],
      ['ip6', ip6],
    ] as const) {
      const { localDetector } = optionsFor(file, family, node);
      expect(localMatch(localDetector, family)).toEqual(match);
      const negated = Object.entries(match ?? {}).map(([name, value]) => [name, `! ${value}`]);
      expect(notLocalMatch(localDetector, family)).toEqual(
        match === undefined ? undefined : Object.fromEntries(negated),
      );
    }
  });
});
