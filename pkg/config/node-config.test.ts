import { describe, expect, test } from 'vitest';
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
    ['etcd: { certFile: /a }', 'etcd: certFile and keyFile go together'],
    ['etcd: { prefix: /a/ }', 'etcd.prefix: expected a slash at the start and none at the end'],
    ['iface: "a b"', 'iface: '],
    ['ifaceRegex: "("', 'ifaceRegex: '],
    ['ifaceCanReach: host', 'ifaceCanReach: expected an IP address'],
    ['subnetFile: /run/flannel/subnet.env', 'subnetFile: needs clusterCIDRs'],
    ['healthBindAddress: "9964"', 'healthBindAddress: expected IP:PORT'],
    ['[1', 'Cannot read node.yaml: expected YAML'],
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
