import { describe, expect, it } from 'vitest';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { formatDuration, parseDuration } from './duration.ts';
import { proxyConfigz } from './proxy-configz.ts';
import { completeProxyConfig, type CompleteProxyConfig } from './proxy-config-defaults.ts';
import { parseProxyConfigFile } from './proxy-config-file.ts';
import { renderProxyConfig } from './proxy-config-render.ts';
import { proxyConfig, type ProxyConfig } from './proxy-config.ts';

const head = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n';

function read(yaml: string): ProxyConfig & { readonly warnings: readonly string[] } {
  const { file, warnings } = parseProxyConfigFile(head + yaml, 'config.conf');
  return { ...proxyConfig(file), warnings };
}

/** Values and spelling as of Kubernetes 1.36: its defaults, Go's durations, keys sorted, nil = null. */
const defaultsAsKubeProxyWritesThem = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 10
  contentType: application/vnd.kubernetes.protobuf
  kubeconfig: ""
  qps: 5
clusterCIDR: ""
configSyncPeriod: 15m0s
conntrack:
  maxPerCore: 32768
  min: 131072
  tcpBeLiberal: false
  tcpCloseWaitTimeout: 1h0m0s
  tcpEstablishedTimeout: 24h0m0s
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ClusterCIDR
enableProfiling: false
healthzBindAddress: 0.0.0.0:10256
hostnameOverride: ""
iptables:
  localhostNodePorts: true
  masqueradeAll: false
  masqueradeBit: 14
  minSyncPeriod: 1s
  syncPeriod: 30s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 30s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 5s
  format: text
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: 127.0.0.1:10249
mode: iptables
nftables:
  masqueradeAll: false
  masqueradeBit: 14
  minSyncPeriod: 1s
  syncPeriod: 30s
nodePortAddresses: null
oomScoreAdj: -999
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
`;

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
    nodeAddress: undefined,
    healthzBindAddress: { host: '0.0.0.0', port: 10256 },
    metricsBindAddress: { host: '127.0.0.1', port: 10249 },
    bindAddressHardFail: false,
    enableProfiling: false,
    featureGates: {},
    mode: 'iptables',
    iptables: {
      masqueradeBit: 14,
      masqueradeAll: false,
      localhostNodePorts: true,
      layout: 'compatible',
      syncPeriodMs: 30_000,
      minSyncPeriodMs: 1_000,
    },
    ipvs: {
      syncPeriodMs: 30_000,
      minSyncPeriodMs: 0,
      scheduler: 'rr',
      schedulerFlags: '',
      excludeCIDRs: [],
      strictARP: false,
      tcpTimeoutMs: 0,
      tcpFinTimeoutMs: 0,
      udpTimeoutMs: 0,
    },
    nftables: {
      counters: 'services',
      serviceMetrics: 0,
      traffic: false,
      masqueradeBit: 14,
      masqueradeAll: false,
      syncPeriodMs: 30_000,
      minSyncPeriodMs: 1_000,
    },
    detectLocalMode: 'ClusterCIDR',
    bridgeInterface: '',
    interfaceNamePrefix: '',
    nodePortAddresses: [],
    oomScoreAdj: -999,
    conntrack: {
      maxPerCore: 32_768,
      min: 131_072,
      tcpEstablishedTimeoutMs: 86_400_000,
      tcpCloseWaitTimeoutMs: 3_600_000,
      tcpBeLiberal: false,
      udpTimeoutMs: 0,
      udpStreamTimeoutMs: 0,
    },
    verbosity: 0,
  });
});

it('values that are given are used', () => {
  const config = read(`
hostnameOverride: " Node-One "
bindAddress: "fd00::1"
bindAddressHardFail: true
enableProfiling: true
featureGates: { AllowServiceExternalIPs: false }
mode: nftables
iptables: { masqueradeBit: 0, localhostNodePorts: false, syncPeriod: 1m30s, minSyncPeriod: 250ms, layout: tree, masqueradeAll: true }
nftables: { masqueradeBit: 7, masqueradeAll: true, syncPeriod: 10s, minSyncPeriod: 2s, counters: endpoints, serviceMetrics: 50, traffic: true }
ipvs: { syncPeriod: 1m, minSyncPeriod: 5s, scheduler: sh, schedulerFlags: [sh-port, sh-fallback], strictARP: true, tcpTimeout: 1s, tcpFinTimeout: 2s, udpTimeout: 3s }
detectLocalMode: BridgeInterface
detectLocal: { bridgeInterface: cni0, interfaceNamePrefix: veth }
nodePortAddresses: [primary]
oomScoreAdj: 0
conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 1m, tcpBeLiberal: true, udpTimeout: 4s, udpStreamTimeout: 5s }
logging: { verbosity: 4, format: json, flushFrequency: 5000000000, vmodule: [{ filePattern: x, verbosity: 1 }] }
`);
  expect(config).toEqual({
    kubeconfig: undefined,
    master: undefined,
    hostnameOverride: 'node-one',
    nodeAddress: 'fd00::1',
    healthzBindAddress: { host: '::', port: 10256 },
    metricsBindAddress: { host: '::1', port: 10249 },
    bindAddressHardFail: true,
    enableProfiling: true,
    featureGates: { AllowServiceExternalIPs: false },
    mode: 'nftables',
    iptables: {
      masqueradeBit: 0,
      masqueradeAll: true,
      localhostNodePorts: false,
      layout: 'tree',
      syncPeriodMs: 90_000,
      minSyncPeriodMs: 250,
    },
    nftables: {
      counters: 'endpoints',
      serviceMetrics: 50,
      traffic: true,
      masqueradeBit: 7,
      masqueradeAll: true,
      syncPeriodMs: 10_000,
      minSyncPeriodMs: 2_000,
    },
    ipvs: {
      syncPeriodMs: 60_000,
      minSyncPeriodMs: 5_000,
      scheduler: 'sh',
      schedulerFlags: 'sh-fallback,sh-port',
      excludeCIDRs: [],
      strictARP: true,
      tcpTimeoutMs: 1_000,
      tcpFinTimeoutMs: 2_000,
      udpTimeoutMs: 3_000,
    },
    detectLocalMode: 'BridgeInterface',
    clusterCIDRs: [],
    bridgeInterface: 'cni0',
    interfaceNamePrefix: 'veth',
    nodePortAddresses: 'primary',
    oomScoreAdj: 0,
    conntrack: {
      maxPerCore: 0,
      min: 0,
      tcpEstablishedTimeoutMs: 0,
      tcpCloseWaitTimeoutMs: 60_000,
      tcpBeLiberal: true,
      udpTimeoutMs: 4_000,
      udpStreamTimeoutMs: 5_000,
    },
    verbosity: 4,
    warnings: [],
  });
});

it.each([
  ['mode: ipvs', { mode: 'ipvs', nodePortAddresses: [] }],
  ['mode: nftables', { mode: 'nftables', nodePortAddresses: 'primary' }],
  ['bindAddress: "::"', { nodeAddress: undefined, healthzBindAddress: { host: '::' } }],
  ['healthzBindAddress: 127.0.0.1', { healthzBindAddress: { host: '127.0.0.1', port: 10256 } }],
  ['metricsBindAddress: "::1"', { metricsBindAddress: { host: '::1', port: 10249 } }],
  ['metricsBindAddress: 0.0.0.0:0', { metricsBindAddress: undefined }],
  ['clusterCIDR: 172.030.000.0/16', { clusterCIDRs: [{ address: { family: 'ip' } }] }],
])('%s', (yaml, expected) => {
  expect(read(yaml)).toMatchObject(expected);
});

it('an address of a CIDR may have leading zeros and host bits', () => {
  expect(read('clusterCIDR: 172.030.0.041/16').clusterCIDRs.map(formatPrefix)).toEqual([
    '172.30.0.0/16',
  ]);
});

it('unknown and repeated fields are warnings, and do not stop the others', () => {
  const config = read(
    'clusterCIDRs: x\niptables: { masqueradeAl: true }\nmode: nftables\nmode: ipvs\n',
  );
  expect(config.mode).toBe('ipvs');
  expect(config.warnings).toEqual([
    'repeated field in line 6, the last one counts',
    'unknown field iptables.masqueradeAl, did you mean masqueradeAll?',
    'unknown field clusterCIDRs, did you mean clusterCIDR?',
  ]);
});

describe('a wrong value is refused, and named', () => {
  it.each([
    ['mode: userspace', /mode "userspace": expected one of iptables, ipvs, nftables/],
    ['iptables: { masqueradeBit: 32 }', /iptables\.masqueradeBit 32: expected a number from 0/],
    ['nftables: { masqueradeBit: -1 }', /nftables\.masqueradeBit -1: expected a number from 0/],
    ['iptables: { masqueradeBit: "14" }', /iptables\.masqueradeBit: /],
    ['iptables: { layout: bush }', /iptables\.layout "bush": expected one of compatible, tree/],
    ['nftables: { counters: all }', /nftables\.counters "all": expected one of none, services/],
    [
      'mode: ipvs\nipvs: { scheduler: sh, schedulerFlags: [mh-port] }',
      /ipvs\.schedulerFlags \["mh-port"\]: expected sh-fallback, sh-port \(both or one\), or none, for scheduler sh$/,
    ],
    [
      'mode: ipvs\nipvs: { scheduler: mh, schedulerFlags: [none, mh-port] }',
      /ipvs\.schedulerFlags \["none","mh-port"\]: expected mh-fallback, mh-port \(both or one\), or none, for scheduler mh$/,
    ],
    [
      'mode: ipvs\nipvs: { schedulerFlags: [sh-port] }',
      /ipvs\.schedulerFlags \["sh-port"\]: expected none, for scheduler rr$/,
    ],
    ['nftables: { serviceMetrics: -1 }', /nftables\.serviceMetrics -1: expected a number from 0/],
    ['iptables: { syncPeriod: 30 }', /iptables\.syncPeriod: /],
    ['iptables: { syncPeriod: soon }', /iptables\.syncPeriod: expected a duration/],
    ['iptables: { syncPeriod: -1s }', /iptables\.syncPeriod "-1s": expected more than 0s/],
    [
      'iptables: { minSyncPeriod: 1m }',
      /iptables\.minSyncPeriod "1m0s": expected .* at most .*30s/,
    ],
    ['iptables: { minSyncPeriod: -1s }', /iptables\.minSyncPeriod "-1s": expected at least 0s/],
    ['mode: ipvs\nipvs: { minSyncPeriod: 1h }', /ipvs\.minSyncPeriod "1h0m0s"/],
    ['mode: ipvs\nipvs: { tcpTimeout: -1s }', /ipvs\.tcpTimeout "-1s": expected at least 0s/],
    ['mode: ipvs\nipvs: { tcpFinTimeout: -1s }', /ipvs\.tcpFinTimeout/],
    ['mode: ipvs\nipvs: { udpTimeout: -1s }', /ipvs\.udpTimeout/],
    ['mode: ipvs\nipvs: { excludeCIDRs: [1.2.3.4] }', /ipvs\.excludeCIDRs "1\.2\.3\.4"/],
    ['mode: nftables\nnftables: { syncPeriod: -1s }', /nftables\.syncPeriod/],
    ['oomScoreAdj: 1001', /oomScoreAdj 1001: expected a number from -1000 to 1000/],
    ['conntrack: { maxPerCore: -1 }', /conntrack\.maxPerCore -1: expected at least 0/],
    ['conntrack: { min: -1 }', /conntrack\.min -1/],
    ['conntrack: { tcpEstablishedTimeout: -1s }', /conntrack\.tcpEstablishedTimeout "-1s"/],
    ['conntrack: { tcpCloseWaitTimeout: -1s }', /conntrack\.tcpCloseWaitTimeout/],
    ['conntrack: { udpTimeout: -1s }', /conntrack\.udpTimeout/],
    ['conntrack: { udpStreamTimeout: -1s }', /conntrack\.udpStreamTimeout/],
    ['configSyncPeriod: -1s', /configSyncPeriod "-1s": expected more than 0s/],
    ['clientConnection: { burst: -1 }', /clientConnection\.burst -1/],
    ['logging: { format: xml }', /logging\.format "xml": expected one of text, json/],
    ['showHiddenMetricsForVersion: latest', /showHiddenMetricsForVersion "latest"/],
    ['clusterCIDR: 10.0.0.0', /clusterCIDR "10\.0\.0\.0": expected address\/length/],
    ['clusterCIDR: 10.0.0.0/8,11.0.0.0/8', /clusterCIDR .*one of IPv4 and one of IPv6/],
    ['clusterCIDR: "10.0.0.0/8,fd00::/8,fd01::/16"', /clusterCIDR .*one of IPv4 and one/],
    ['nodePortAddresses: [primary, 10.0.0.0/8]', /"primary" alone/],
    ['nodePortAddresses: [10.0.0.0/33]', /nodePortAddresses "10\.0\.0\.0\/33"/],
    ['detectLocalMode: Magic', /detectLocalMode "Magic": expected one of ClusterCIDR, NodeCIDR/],
    ['detectLocalMode: BridgeInterface', /detectLocal\.bridgeInterface/],
    ['detectLocalMode: InterfaceNamePrefix', /detectLocal\.interfaceNamePrefix/],
    ['bindAddress: here', /bindAddress "here": expected an IP address/],
    ['healthzBindAddress: localhost:1', /healthzBindAddress "localhost:1": expected IP:PORT/],
    ['metricsBindAddress: "127.0.0.1:x"', /metricsBindAddress/],
    ['hostnameOverride: 5', /hostnameOverride: /],
    ['a: [', /expected YAML/],
  ])('%s', (yaml, message) => {
    expect(() => read(yaml)).toThrow(message);
  });

  it.each([
    [
      'a: [',
      'Flow sequence in block collection must be sufficiently indented and end with a ] at line 3, column 5',
    ],
    ['a: *b', 'Unresolved alias (the anchor must be set before the alias): b'],
    ['---\na: b', 'another document at line 3, column 1, expected one'],
  ])('%j is no YAML, in one line', (yaml, reason) => {
    let message = '';
    try {
      read(yaml);
    } catch (error) {
      message = messageOf(error);
    }
    expect(message).toBe(`Cannot read config.conf: expected YAML: ${reason}`);
  });

  it('all of them at once', () => {
    expect(() => read('oomScoreAdj: 1001\nmode: fast\nclusterCIDR: x')).toThrow(
      /mode "fast".*; oomScoreAdj 1001.*; clusterCIDR "x"/,
    );
  });

  it('but not the periods of a mode that is not in use', () => {
    expect(read('ipvs: { syncPeriod: -1s, excludeCIDRs: [x], tcpTimeout: -1s }').mode).toBe(
      'iptables',
    );
  });

  it.each([
    ['mh', ''],
    ['rr', ''],
  ])('flags "none" of scheduler %s are no flags', (scheduler, flags) => {
    const { ipvs } = read(`mode: ipvs\nipvs: { scheduler: ${scheduler}, schedulerFlags: [none] }`);
    expect(ipvs.schedulerFlags).toBe(flags);
  });

  it('virtual servers of others are excluded in every mode: it may follow mode ipvs, or clean up', () => {
    for (const mode of ['ipvs', 'iptables', 'nftables']) {
      const config = read(`mode: ${mode}\nipvs: { excludeCIDRs: [192.0.2.0/24, "fd00::/64"] }`);
      expect(config.ipvs.excludeCIDRs.map(formatPrefix)).toEqual(['192.0.2.0/24', 'fd00::/64']);
    }
    const { excludeCIDRs } = read('ipvs: { excludeCIDRs: [192.0.2.0/24, x] }').ipvs;
    expect(excludeCIDRs.map(formatPrefix)).toEqual(['192.0.2.0/24']);
  });

  it('so is another kind or version', () => {
    const other = head.replace('v1alpha1', 'v1alpha2');
    const expected =
      /config\.conf: apiVersion .*: expected kubeproxy\.config\.k8s\.io\/v1alpha1, KubeProxyConf/;
    expect(() => parseProxyConfigFile(other, 'config.conf')).toThrow(expected);
    const kind = head.replace('KubeProxyConf', 'KubeletConf');
    expect(() => parseProxyConfigFile(kind, 'config.conf')).toThrow(expected);
    expect(() => parseProxyConfigFile('', 'config.conf')).toThrow(
      /apiVersion missing, kind missing/,
    );
  });
});

describe('a configuration written to a file', () => {
  const complete = (yaml: string): CompleteProxyConfig =>
    completeProxyConfig(parseProxyConfigFile(head + yaml, 'config.conf').file);

  it("is kube-proxy's own when all is at its default", () => {
    expect(renderProxyConfig(complete(''))).toBe(defaultsAsKubeProxyWritesThem);
  });

  it.each([
    '',
    kubeadm,
    'mode: nftables\nnodePortAddresses: [primary]\nfeatureGates: { AllowServiceExternalIPs: false }\n',
    'iptables: { layout: tree, syncPeriod: 1h30m, minSyncPeriod: 1500ms }\nwindowsRunAsService: true\n',
    'ipvs: { excludeCIDRs: [10.0.0.0/8], tcpTimeout: 1m, scheduler: sh, schedulerFlags: [sh-port] }\nlogging: { vmodule: [{ filePattern: a, verbosity: 2 }] }\n',
  ])('reads back as what it was: %j', (yaml) => {
    const written = complete(yaml);
    const { file, warnings } = parseProxyConfigFile(renderProxyConfig(written), 'written');
    expect(warnings).toEqual([]);
    expect(completeProxyConfig(file)).toEqual(written);
  });

  it("is shown by /configz under Go's names", () => {
    expect(proxyConfigz(complete('clusterCIDR: 10.0.0.0/8\nmode: ipvs'))).toMatchObject({
      'kubeproxy.config.k8s.io': {
        Linux: {
          Conntrack: { MaxPerCore: 32_768, TCPEstablishedTimeout: '24h0m0s' },
          OOMScoreAdj: -999,
        },
        Mode: 'ipvs',
        SyncPeriod: '30s',
        MinSyncPeriod: '0s',
        DetectLocal: { ClusterCIDRs: ['10.0.0.0/8'] },
        NodePortAddresses: null,
      },
    });
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

it.each([
  [0, '0s'],
  [900_000, '15m0s'],
  [3_600_000, '1h0m0s'],
  [86_400_000, '24h0m0s'],
  [30_000, '30s'],
  [1_500, '1.5s'],
  [250, '250ms'],
  [0.25, '250µs'],
  [0.000001, '1ns'],
  [-1_000, '-1s'],
])('formatDuration(%d) is %s, which reads back', (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
  expect(parseDuration(text)).toBeCloseTo(ms, 9);
});
