import { describe, expect, it } from 'vitest';
import { completeProxyConfig } from '#pkg/config/proxy-config-defaults.ts';
import type { ProxyConfigFile } from '#pkg/config/proxy-config-file.ts';
import { checkedProxyConfig } from '#pkg/config/proxy-config.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import { localMatch, type LocalMatch } from '#pkg/proxy/local-detector.ts';
import { iptablesOptions } from './round-options.ts';

const host = {
  addresses: () => ['127.0.0.1', '192.0.2.1'],
  conntrackLiberal: () => false,
  allowRouteLocalnet: () => undefined,
};

function options(
  file: ProxyConfigFile,
  family: Family,
  node: Partial<NodeRecord> = {},
): ReturnType<typeof iptablesOptions> {
  const config = checkedProxyConfig(completeProxyConfig(file));
  const given = { config, host, node: { podCIDRs: [], internalIPs: [], ...node } as NodeRecord };
  return iptablesOptions(given as Parameters<typeof iptablesOptions>[0], {
    family,
    randomFully: true,
  });
}

const dual = '10.0.0.0/8,fd00:10::/32';
const bridge = { bridgeInterface: 'cni0', interfaceNamePrefix: '' };
const prefix = { bridgeInterface: '', interfaceNamePrefix: 'veth' };
const mode = (detectLocalMode: string, more: object = {}): ProxyConfigFile => ({
  detectLocalMode,
  ...more,
});
const podCIDRs = ['10.1.2.0/24', '10.1.3.0/24', 'fd00:1::/64'];

describe("this node's pods are told", () => {
  it.each<[ProxyConfigFile, Family, readonly string[], LocalMatch | undefined]>([
    [{}, 'ip', podCIDRs, undefined],
    [{ clusterCIDR: '10.0.0.0/8' }, 'ip', podCIDRs, { source: '10.0.0.0/8' }],
    [{ clusterCIDR: '10.0.0.0/8' }, 'ip6', podCIDRs, undefined],
    [{ clusterCIDR: 'fd00:10::/32' }, 'ip', podCIDRs, undefined],
    [{ clusterCIDR: 'fd00:10::/32' }, 'ip6', podCIDRs, { source: 'fd00:10::/32' }],
    [{ clusterCIDR: dual }, 'ip', [], { source: '10.0.0.0/8' }],
    [{ clusterCIDR: dual }, 'ip6', [], { source: 'fd00:10::/32' }],
    [mode('ClusterCIDR', { clusterCIDR: dual }), 'ip', [], { source: '10.0.0.0/8' }],
    [mode('NodeCIDR'), 'ip', podCIDRs, { source: '10.1.2.0/24' }],
    [mode('NodeCIDR'), 'ip6', podCIDRs, { source: 'fd00:1::/64' }],
    [mode('NodeCIDR', { clusterCIDR: dual }), 'ip', [], undefined],
    [mode('NodeCIDR'), 'ip6', ['10.1.2.0/24'], undefined],
    [mode('NodeCIDR'), 'ip', ['nonsense', '10.1.2.7/24'], { source: '10.1.2.0/24' }],
    [mode('BridgeInterface', { detectLocal: bridge }), 'ip', [], { inInterface: 'cni0' }],
    [mode('BridgeInterface', { detectLocal: bridge }), 'ip6', [], { inInterface: 'cni0' }],
    [mode('InterfaceNamePrefix', { detectLocal: prefix }), 'ip', [], { inInterface: 'veth+' }],
    [mode('InterfaceNamePrefix', { detectLocal: prefix }), 'ip6', [], { inInterface: 'veth+' }],
  ])('by %j in %s of a node with %j', (file, family, ofNode, expected) => {
    const { localDetector } = options(file, family, { podCIDRs: ofNode });
    expect(localMatch(localDetector, family)).toEqual(expected);
  });
});

describe('the address of the node', () => {
  it('is the configured one, else that of the Node object', () => {
    const node = { internalIPs: ['192.0.2.1', 'fd00::1'] };
    expect(options({}, 'ip', node).nodeAddress).toBe('192.0.2.1');
    expect(options({}, 'ip6', node).nodeAddress).toBe('fd00::1');
    expect(options({ bindAddress: '192.0.2.9' }, 'ip', node).nodeAddress).toBe('192.0.2.9');
    expect(options({ bindAddress: '192.0.2.9' }, 'ip6', node).nodeAddress).toBe('fd00::1');
  });

  it('is where node ports answer with "primary"', () => {
    const file = { nodePortAddresses: ['primary'], bindAddress: '192.0.2.9' };
    expect(options(file, 'ip').nodePortAddresses).toEqual(['192.0.2.9']);
    expect(options(file, 'ip6').nodePortAddresses).toEqual([]);
  });
});
