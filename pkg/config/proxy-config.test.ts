import { describe, expect, it } from 'vitest';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { parseDuration } from './duration.ts';
import { parseProxyConfigFile } from './proxy-config-file.ts';
import { proxyConfig, type ProxyConfig } from './proxy-config.ts';

const head = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n';

function read(yaml: string): ProxyConfig & { readonly warnings: readonly string[] } {
  const { file, warnings } = parseProxyConfigFile(head + yaml, 'config.conf');
  return { ...proxyConfig(file), warnings };
}

/** As kubeadm 1.30 and newer writes it. */
const kubeadm = `
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
`;

it("kubeadm's file is read without a warning; its empty values are defaults", () => {
  const { clusterCIDRs, warnings, ...config } = read(kubeadm);
  expect(warnings).toEqual([]);
  expect(clusterCIDRs.map(formatPrefix)).toEqual(['10.244.0.0/16', 'fd00:10:244::/56']);
  expect(config).toEqual({
    kubeconfig: '/var/lib/kube-proxy/kubeconfig.conf',
    master: undefined,
    hostnameOverride: undefined,
    healthzBindAddress: { host: '0.0.0.0', port: 10256 },
    metricsBindAddress: { host: '127.0.0.1', port: 10249 },
    mode: 'iptables',
    iptables: {
      layout: 'compatible',
      masqueradeBit: 14,
      masqueradeAll: false,
      localhostNodePorts: true,
      syncPeriodMs: 30_000,
      minSyncPeriodMs: 1_000,
    },
    detectLocalMode: 'ClusterCIDR',
    bridgeInterface: '',
    interfaceNamePrefix: '',
    nodePortAddresses: [],
    verbosity: 0,
  });
});

it('values that are given are used', () => {
  const config = read(`
hostnameOverride: " Node-One "
bindAddress: "::"
mode: nftables
iptables: { masqueradeBit: 0, localhostNodePorts: false, syncPeriod: 1m30s, minSyncPeriod: 250ms }
detectLocalMode: BridgeInterface
detectLocal: { bridgeInterface: cni0 }
nodePortAddresses: [primary]
`);
  expect(config).toMatchObject({
    hostnameOverride: 'node-one',
    healthzBindAddress: { host: '::', port: 10256 },
    metricsBindAddress: { host: '::1', port: 10249 },
    mode: 'nftables',
    iptables: {
      masqueradeBit: 0,
      localhostNodePorts: false,
      syncPeriodMs: 90_000,
      minSyncPeriodMs: 250,
    },
    detectLocalMode: 'BridgeInterface',
    bridgeInterface: 'cni0',
    nodePortAddresses: 'primary',
  });
});

it('unknown fields are warnings, and do not stop the others', () => {
  const config = read('clusterCIDRs: x\niptables: { masqueradeAl: true }\nmode: ipvs\n');
  expect(config.mode).toBe('ipvs');
  expect(config.warnings).toEqual([
    'unknown field iptables.masqueradeAl',
    'unknown field clusterCIDRs, did you mean clusterCIDR?',
  ]);
});

describe('a wrong value is refused, and named', () => {
  it.each([
    ['mode: userspace', /mode "userspace": expected one of iptables, ipvs, nftables/],
    ['iptables: { masqueradeBit: 32 }', /iptables\.masqueradeBit 32: expected a number from 0/],
    ['iptables: { masqueradeBit: "14" }', /iptables\.masqueradeBit: /],
    ['iptables: { syncPeriod: 30 }', /iptables\.syncPeriod: /],
    ['iptables: { syncPeriod: soon }', /iptables\.syncPeriod: expected a duration/],
    ['iptables: { minSyncPeriod: 1m }', /iptables\.minSyncPeriod "60000ms": expected at most/],
    ['clusterCIDR: 10.0.0.0', /clusterCIDR "10\.0\.0\.0": expected address\/length/],
    ['clusterCIDR: 10.0.0.0/8,11.0.0.0/8', /clusterCIDR .*one of IPv4 and one of IPv6/],
    ['nodePortAddresses: [primary, 10.0.0.0/8]', /"primary" alone/],
    ['detectLocalMode: BridgeInterface', /detectLocal\.bridgeInterface/],
    ['healthzBindAddress: localhost:1', /healthzBindAddress/],
    ['hostnameOverride: 5', /hostnameOverride: /],
    ['a: [', /expected YAML/],
  ])('%s', (yaml, message) => {
    expect(() => read(yaml)).toThrow(message);
  });

  it('so is another kind or version', () => {
    const other = head.replace('v1alpha1', 'v1alpha2');
    expect(() => parseProxyConfigFile(other, 'config.conf')).toThrow(/config\.conf: apiVersion: /);
    expect(() => parseProxyConfigFile('', 'config.conf')).toThrow(/Cannot use config\.conf/);
  });
});

it.each([
  ['0', 0],
  ['300ms', 300],
  ['1.5h', 5_400_000],
  ['2h45m', 9_900_000],
  ['-1s', -1_000],
  ['30', undefined],
  ['s', undefined],
  ['1d', undefined],
  ['', undefined],
])('parseDuration(%j) is %s', (text, ms) => {
  expect(parseDuration(text)).toBe(ms);
});
