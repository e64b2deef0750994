import { describe, expect, test } from 'vitest';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { parseNetConf } from './net-conf.ts';
import { parseNodeConfig } from './node-config.ts';

describe('parseNodeConfig()', () => {
  test('an empty file is all defaults', () => {
    expect(parseNodeConfig('', 'node.yaml')).toEqual({
      backend: 'vxlan',
      vni: 1,
      gbp: false,
      directRouting: true,
      wireguard: {
        mode: 'separate',
        listenPort: 51_820,
        listenPortV6: 51_821,
        persistentKeepaliveSeconds: 0,
      },
      bgp: {
        daemon: 'bird',
        asNumber: 64_512,
        reflectors: [],
        configFile: '/etc/bird/podwire.conf',
        controlSocket: '/run/bird/bird.ctl',
        vtySocket: '/run/frr/bgpd.vty',
      },
      masquerade: true,
      masqueradeRandomFully: true,
      forwardAccept: true,
      nonMasqueradeCIDRs: [],
      clusterCIDRs: [],
      ipFamilies: ['ip', 'ip6'],
      iface: [],
      ifaceRegex: [],
      annotationPrefix: 'podwire.dev/',
      runDir: '/run/podwire',
      cniConfDir: '/etc/cni/net.d',
      cniDataDir: '/var/lib/cni/networks',
      stateDir: '/var/lib/podwire',
      conflist: true,
      mode: 'bridge',
      antiSpoofing: true,
      hostPorts: true,
      bandwidth: true,
      addressCooldownSeconds: 60,
      replaceReferencePlugins: false,
      healthBindAddress: { host: '127.0.0.1', port: 9964 },
      logLevel: 'info',
    });
  });

  test('reads prefixes, host bits dropped', () => {
    const config = parseNodeConfig('nonMasqueradeCIDRs: [10.1.2.3/8, "fd00::/8"]', 'node.yaml');
    expect(config.nonMasqueradeCIDRs.map(formatPrefix)).toEqual(['10.0.0.0/8', 'fd00::/8']);
  });

  test.each([
    ['bakend: vxlan', 'unknown key "bakend", did you mean "backend"?'],
    ['nonMasqueradeCidr: []', 'did you mean "nonMasqueradeCIDRs"?'],
    ['backend: vlan', 'backend: '],
    ['vni: 16777216', 'vni: '],
    ['wireguard: { mod: auto }', 'unknown key "wireguard.mod", did you mean "mode"?'],
    ['wireguard: { presharedKey: secret }', 'wireguard.presharedKey: expected 32 bytes in base64'],
    ['bgp: { daemon: quagga }', 'bgp.daemon: '],
    ['bgp: { reflectors: [host] }', 'bgp.reflectors.0: expected an IP address'],
    ['port: 0', 'port: '],
    ['nonMasqueradeCIDRs: [10.0.0.0]', 'nonMasqueradeCIDRs.0: expected address/length'],
    ['mode: ipvlan', 'mode: '],
    ['addressCooldownSeconds: -1', 'addressCooldownSeconds: '],
    ['antiSpofing: false', 'did you mean "antiSpoofing"?'],
    ['cniBinDir: bin', 'cniBinDir: expected an absolute path'],
    ['runDir: run', 'runDir: expected an absolute path'],
    ['annotationPrefix: Podwire/', 'annotationPrefix: expected a DNS name'],
    ['annotationPrefix: a/b/c', 'annotationPrefix: expected a DNS name'],
    ['etcd: { endpoints: [localhost] }', 'etcd.endpoints.0: expected http(s)://HOST:PORT'],
    ['etcd: { publicIP: fd00::1 }', 'etcd.publicIP: expected an IPv4 address'],
    ['etcd: { publicIPv6: 192.0.2.1 }', 'etcd.publicIPv6: expected an IPv6 address'],
    ['etcd: { certFile: /a }', 'etcd: certFile and keyFile go together'],
    ['etcd: { prefix: /a/ }', 'etcd.prefix: expected a slash at the start and none at the end'],
    ['iface: "a b"', 'iface: '],
    ['ifaceRegex: "("', 'ifaceRegex: '],
    ['ifaceCanReach: host', 'ifaceCanReach: expected an IP address'],
    ['subnetFile: /run/flannel/subnet.env', 'subnetFile: needs clusterCIDRs'],
    ['healthBindAddress: "9964"', 'healthBindAddress: expected IP:PORT'],
    ['[1', 'Cannot read node.yaml: expected YAML'],
    ['etcd: { endpoint: [a] }', 'unknown key "etcd.endpoint", did you mean "endpoints"?'],
    ['iface: {}', 'iface: expected one or a list: the name of a link or an IP address'],
    ['ifaceRegex: 5', 'ifaceRegex: expected one or a list: a regular expression'],
    ['- a', 'Cannot use node.yaml: '],
  ])('refuses %s', (text, message) => {
    expect(() => parseNodeConfig(text, 'node.yaml')).toThrow(message);
  });

  test.each(['healthBindAddress: ""', 'healthBindAddress: 127.0.0.1:0'])(
    '%s turns the server off',
    (text) => {
      expect(parseNodeConfig(text, 'node.yaml').healthBindAddress).toBeUndefined();
    },
  );

  test.each([
    ['surprise: 1', 'Cannot use node.yaml: unknown key "surprise"'],
    ['bgp: { port: 1 }', 'Cannot use node.yaml: unknown key "bgp.port"'],
    [
      'vni: 1\nvni: 2',
      'Cannot read node.yaml: expected YAML: Map keys must be unique at line 2, column 1',
    ],
    [
      'vni: 1\n---\nvni: 2',
      'Cannot read node.yaml: expected YAML: another document at line 2, column 1, expected one',
    ],
    [
      'vni: *one',
      'Cannot read node.yaml: expected YAML: Unresolved alias (the anchor must be set before the alias): one',
    ],
  ])(
    'of %j nothing more is told, and no line of the file: it may hold a secret',
    (text, message) => {
      expect(failure(() => parseNodeConfig(text, 'node.yaml'))).toBe(message);
    },
  );

  test('names all that is wrong at once', () => {
    expect(() => parseNodeConfig('vni: 0\nport: 0', 'node.yaml')).toThrow(/vni: .*; port: /);
  });

  test('130. one link or several, by name, address or pattern', () => {
    expect(parseNodeConfig('iface: eth1', 'node.yaml').iface).toEqual(['eth1']);
    const text = 'iface: [eth1, "fd00::1"]\nifaceRegex: "^ens"\nifaceCanReach: 10.0.0.1';
    expect(parseNodeConfig(text, 'node.yaml')).toMatchObject({
      iface: ['eth1', 'fd00::1'],
      ifaceRegex: ['^ens'],
      ifaceCanReach: { family: 'ip' },
    });
  });

  test.each([
    ['flannel.alpha.coreos.com', 'flannel.alpha.coreos.com/'],
    ['flannel.alpha.coreos.com/', 'flannel.alpha.coreos.com/'],
    ['example.com/net', 'example.com/net-'],
    ['example.com/net-', 'example.com/net-'],
  ])('134. the annotation prefix %s is %s', (text, prefix) => {
    expect(parseNodeConfig(`annotationPrefix: ${text}`, 'node.yaml').annotationPrefix).toBe(prefix);
  });

  test('etcd is where flannel looks for it', () => {
    expect(parseNodeConfig('etcd: {}', 'node.yaml').etcd).toEqual({
      endpoints: ['http://127.0.0.1:2379'],
      prefix: '/coreos.com/network',
      renewMarginMinutes: 60,
    });
  });

  test("keys of our own win over flannel's configuration", () => {
    const json = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":7,"MTU":1450}}';
    const netConf = { content: parseNetConf(json, 'net-conf.json'), source: 'net-conf.json' };
    const config = parseNodeConfig('vni: 9', 'node.yaml', netConf);
    expect(config).toMatchObject({ backend: 'vxlan', vni: 9, mtu: 1400, directRouting: false });
    expect(config.clusterCIDRs.map(formatPrefix)).toEqual(['10.5.0.0/16']);
  });

  test("a setting of flannel's stands where its mapping of ours does not have it", () => {
    const json = '{"Backend":{"Type":"wireguard","PSK":"","Mode":"auto","ListenPort":5000}}';
    const netConf = { content: parseNetConf(json, 'net-conf.json'), source: 'net-conf.json' };
    const config = parseNodeConfig('wireguard: { listenPort: 6000 }', 'node.yaml', netConf);
    expect(config.wireguard).toMatchObject({ mode: 'auto', listenPort: 6000 });
  });

  test.each([
    ['udp', '{"Type":"vxlan","VNI":7,"Port":4789,"MTU":1450}', { vni: 1 }],
    ['vxlan', '{"Type":"udp","Port":8285}', {}],
    ['ipip', '{"Type":"vxlan","DirectRouting":false}', { directRouting: true }],
    ['wireguard', '{"Type":"ipsec","PSK":"secret"}', { wireguard: { mode: 'separate' } }],
    ['vxlan', '{"Type":"VXLAN","Port":4789}', { port: 4789, directRouting: false }],
  ])("backend: %s takes no settings of flannel's for another: %s", (backend, block, expected) => {
    const json = `{"Network":"10.5.0.0/16","Backend":${block}}`;
    const netConf = { content: parseNetConf(json, 'net-conf.json'), source: 'net-conf.json' };
    const config = parseNodeConfig(`backend: ${backend}`, 'node.yaml', netConf);
    expect({ port: undefined, mtu: undefined, ...config }).toMatchObject({
      backend,
      port: undefined,
      mtu: undefined,
      ...expected,
    });
    expect(config.clusterCIDRs.map(formatPrefix)).toEqual(['10.5.0.0/16']);
  });

  test('what is wrong is named as it is where it was given', () => {
    const json = '{"Backend":{"Type":"wireguard","ListenPort":0,"Mode":"fast"}}';
    const netConf = { content: parseNetConf(json, 'net-conf.json'), source: 'net-conf.json' };
    const text = 'vni: 0\nwireguard: { listenPort: 6000, listenPortV6: 0 }';
    const flags = { annotationPrefix: 'A B' };
    expect(failure(() => parseNodeConfig(text, 'node.yaml', netConf, flags))).toBe(
      'Cannot use node.yaml: vni: Too small: expected number to be >=1; ' +
        'wireguard.listenPortV6: Too small: expected number to be >=1; ' +
        'nor net-conf.json: Backend.Mode: Invalid option: expected one of "separate"|"auto"|"ipv4"|"ipv6"; ' +
        'nor the command line: --annotation-prefix: expected a DNS name',
    );
  });

  test("136. families that flannel's configuration leaves out are left out, their network too", () => {
    // As k3s writes it.
    const json =
      '{"Network":"10.42.0.0/16","EnableIPv6":false,"EnableIPv4":true,"IPv6Network":"::/0","Backend":{"Type":"vxlan"}}';
    const netConf = { content: parseNetConf(json, 'net-conf.json'), source: 'net-conf.json' };
    const config = parseNodeConfig('', 'node.yaml', netConf);
    expect(config.ipFamilies).toEqual(['ip']);
    expect(config.clusterCIDRs.map(formatPrefix)).toEqual(['10.42.0.0/16']);
    const six = '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:1::/48"}';
    const content = parseNetConf(six, 'net-conf.json');
    const config6 = parseNodeConfig('', 'node.yaml', { content, source: 'net-conf.json' });
    expect(config6.ipFamilies).toEqual(['ip6']);
  });

  test.each([
    ['', ['ip', 'ip6']],
    ['ipFamilies: [IPv6]', ['ip6']],
  ])('families: %j', (text, families) => {
    expect(parseNodeConfig(text, 'node.yaml').ipFamilies).toEqual(families);
  });
});

function failure(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return messageOf(error);
  }
  return 'nothing was thrown';
}
