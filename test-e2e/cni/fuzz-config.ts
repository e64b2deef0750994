/** The configuration that fuzz cases are made from. */
import type { PluginName } from '#plugins/plugin-names.ts';

/** Where a case may write. Everything else on the machine is read-only for it. */
export const fuzzDirectory = '/run/fuzz';

export type Json = Record<string, unknown>;

/** Every option of every plugin: each reads its own. */
export function fullConfig(type: PluginName): Json {
  return {
    cniVersion: '1.1.0',
    name: 'net',
    type,
    bridge: 'cni0',
    isGateway: true,
    isDefaultGateway: true,
    forceAddress: false,
    ipMasq: true,
    ipMasqBackend: 'nftables',
    mtu: 1400,
    hairpinMode: true,
    promiscMode: false,
    vlan: 100,
    vlanTrunk: [{ id: 101 }, { minID: 200, maxID: 210 }],
    preserveDefaultVlan: true,
    macspoofchk: true,
    enabledad: false,
    disableContainerInterface: false,
    portIsolation: true,
    mode: 'bridge',
    master: 'uplink',
    antiSpoofing: true,
    nodeFile: `${fuzzDirectory}/node.json`,
    stateDir: `${fuzzDirectory}/state`,
    dataDir: `${fuzzDirectory}/tuning`,
    sysctl: { 'net.ipv4.conf.IFNAME.log_martians': '1' },
    mac: '02:00:00:00:00:01',
    promisc: true,
    allmulti: true,
    txQLen: 1000,
    backend: 'nftables',
    snat: true,
    masqAll: false,
    markMasqBit: 13,
    conditionsV4: ['-s', '10.0.0.0/8'],
    conditionsV6: ['-s', 'fd00::/8'],
    ingressPolicy: 'same-bridge',
    iptablesAdminChainName: 'ADMIN',
    ingressRate: 8_000_000,
    ingressBurst: 8_000_000,
    egressRate: 8_000_000,
    egressBurst: 8_000_000,
    dns: { nameservers: ['10.96.0.10'], domain: 'local', search: ['svc'], options: ['ndots:5'] },
    capabilities: { portMappings: true, bandwidth: true, ips: true, mac: true, dns: true },
    args: { cni: { ips: ['10.9.0.7'], mac: '02:00:00:00:00:02', labels: [] } },
    runtimeConfig: {
      portMappings: [
        { hostPort: 8080, containerPort: 80, protocol: 'tcp', hostIP: '' },
        { HostPort: 8443, ContainerPort: 443, Protocol: 'TCP', HostIP: '127.0.0.1' },
      ],
      bandwidth: { ingressRate: 8_000_000, ingressBurst: 4_294_967_295 },
      ips: ['10.9.0.9/24'],
      mac: '02:00:00:00:00:03',
      dns: { Servers: ['10.96.0.10'], Searches: null, Options: null },
      ipRanges: [[{ subnet: '10.9.1.0/24' }]],
      'io.kubernetes.cri.pod-annotations': { a: 'b' },
    },
    ipam: {
      type: 'host-local',
      dataDir: `${fuzzDirectory}/networks`,
      resolvConf: `${fuzzDirectory}/resolv.conf`,
      ranges: [
        [
          {
            subnet: '10.9.0.0/24',
            rangeStart: '10.9.0.5',
            rangeEnd: '10.9.0.200',
            gateway: '10.9.0.1',
          },
        ],
        [{ subnet: 'fd00:9::/64' }],
      ],
      routes: [{ dst: '0.0.0.0/0', gw: '10.9.0.1', mtu: 1400, priority: 10, table: 0, scope: 0 }],
      addresses: [{ address: '10.9.0.8/24', gateway: '10.9.0.1' }],
    },
    prevResult: {
      cniVersion: '1.0.0',
      interfaces: [
        { name: 'cni0', mac: '0a:58:0a:09:00:01' },
        { name: 'veth0', mac: '0a:58:0a:09:00:03', mtu: 1400 },
        { name: 'eth0', mac: '0a:58:0a:09:00:02', sandbox: '/run/netns/pod-0' },
      ],
      ips: [{ address: '10.9.0.2/24', gateway: '10.9.0.1', interface: 2 }],
      routes: [{ dst: '0.0.0.0/0' }],
      dns: {},
    },
    'cni.dev/valid-attachments': [{ containerID: 'pod-1', ifname: 'eth0' }],
  };
}
