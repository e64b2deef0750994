import { describe, expect, test } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { backendKeys, ignoredKeys, parseNetConf } from './net-conf.ts';

function keysOf(backend: object | undefined): Readonly<Record<string, unknown>> {
  const text = JSON.stringify({ Network: '10.3.0.0/16', Backend: backend });
  return backendKeys(parseNetConf(text, 'net-conf.json'), 'net-conf.json');
}

describe('parseNetConf()', () => {
  test('136. takes what flannel ships in its manifest', () => {
    const text = `{
      "Network": "10.244.0.0/16",
      "EnableNFTables": false,
      "Backend": { "Type": "vxlan" }
    }`;
    const netConf = parseNetConf(text, 'net-conf.json');
    expect(netConf).toMatchObject({ EnableIPv4: true, EnableIPv6: false });
    expect(backendKeys(netConf, 'net-conf.json')).toEqual({
      backend: 'vxlan',
      directRouting: false,
    });
  });

  test('tells of no JSON without a word of the file, where a preshared key may be', () => {
    const text = '{"Backend":{"Type":"wireguard","PSK":c2VjcmV0}}';
    expect(() => parseNetConf(text, 'net-conf.json')).toThrow(
      new AgentError('InvalidConfig', 'Cannot read net-conf.json: expected JSON'),
    );
    const other = '{"Network" "10.0.0.0/8"}';
    expect(() => parseNetConf(other, 'net-conf.json')).toThrow(
      "expected JSON: Expected ':' after property name in JSON at position 11",
    );
  });

  test.each([
    ['{', 'Cannot read net-conf.json: expected JSON'],
    ['{"Network":"fd00::/48"}', 'Network: expected address/length as 10.244.0.0/16'],
    ['{"IPv6Network":"10.0.0.0/8"}', 'IPv6Network: expected address/length as fd00'],
    ['{"SubnetMin":"fd00::1"}', 'SubnetMin: expected an IPv4 address'],
    ['{"IPv6SubnetMax":"10.0.0.1"}', 'IPv6SubnetMax: expected an IPv6 address'],
    ['[]', 'Cannot use net-conf.json: '],
    ['{"EnableIPv4":false}', 'EnableIPv4 and EnableIPv6: expected one of them to be true'],
    ['{"Backend":"vxlan"}', 'Backend: expected an object with Type'],
    ['{"Backend":{"VNI":1}}', 'Backend.Type: '],
  ])('refuses %s', (text, message) => {
    expect(() => parseNetConf(text, 'net-conf.json')).toThrow(message);
  });
});

describe('names of keys', () => {
  test('136. are taken in any case, as Go takes them', () => {
    const text = `{
      "network": "10.244.0.0/16",
      "enableIPv6": true, "ipv6network": "fd00::/48",
      "backend": { "type": "VXLAN", "vni": 7, "Directrouting": true }
    }`;
    const netConf = parseNetConf(text, 'net-conf.json');
    expect(netConf).toMatchObject({ EnableIPv6: true });
    expect(netConf.IPv6Network?.length).toBe(48);
    expect(backendKeys(netConf, 'net-conf.json')).toEqual({
      backend: 'vxlan',
      vni: 7,
      directRouting: true,
    });
    expect(ignoredKeys(netConf)).toEqual([]);
  });

  test('136. of what neither flannel nor we know are left out and told', () => {
    const text = `{
      "_comment": "ours",
      "Netwrok": "10.244.0.0/16",
      "Backend": { "Type": "host-gw", "VNI": 1, "PersistentKeepalive": 5 }
    }`;
    const netConf = parseNetConf(text, 'net-conf.json');
    expect(backendKeys(netConf, 'net-conf.json')).toEqual({ backend: 'host-gw' });
    expect(ignoredKeys(netConf)).toEqual([
      '_comment',
      'Netwrok',
      'Backend.VNI',
      'Backend.PersistentKeepalive',
    ]);
  });
});

describe('backendKeys()', () => {
  test.each<[object, object]>([
    [
      { Type: 'vxlan', VNI: 7, Port: 4789, DirectRouting: true, MTU: 1400, GBP: false },
      { backend: 'vxlan', vni: 7, port: 4789, directRouting: true, mtu: 1350, gbp: false },
    ],
    [
      { Type: 'vxlan', Port: 0, Learning: false, MacPrefix: '0E-2A' },
      { backend: 'vxlan', directRouting: false },
    ],
    [{ Type: 'host-gw' }, { backend: 'host-gw' }],
    [{ Type: 'alloc' }, { backend: 'none' }],
    [
      { Type: 'vxlan', GBP: true },
      { backend: 'vxlan', directRouting: false, gbp: true },
    ],
    [
      { Type: 'udp', Port: 7890 },
      { backend: 'udp', port: 7890 },
    ],
    [
      {
        Type: 'wireguard',
        Mode: 'auto',
        ListenPort: 5000,
        PersistentKeepaliveInterval: 25,
        PSK: 'secret',
        MTU: 1500,
      },
      {
        backend: 'wireguard',
        wireguard: {
          mode: 'auto',
          listenPort: 5000,
          persistentKeepaliveSeconds: 25,
          presharedKey: 'secret',
        },
        mtu: 1420,
      },
    ],
  ])('%j', (backend, keys) => {
    expect(keysOf(backend)).toEqual(keys);
  });

  test("without a Backend it is flannel's default", () => {
    expect(keysOf(undefined)).toEqual({ backend: 'udp' });
  });

  test.each<[object, string]>([
    [{ Type: 'vxlan', Learning: true }, 'Backend.Learning: this agent fills'],
    [{ Type: 'vxlan', MTU: '1400' }, 'Backend.MTU: expected a number'],
    [{ Type: 'IPsec', PSK: 'x' }, 'Backend.Type ipsec: this agent has no IPsec'],
    [{ Type: 'extension' }, 'Backend.Type extension: this agent runs no commands'],
    [{ Type: 'aws-vpc' }, 'Backend.Type aws-vpc: this agent does not write'],
    [{ Type: 'vxlam' }, 'Backend.Type vxlam: expected one of vxlan, '],
  ])('refuses %j by name', (backend, message) => {
    expect(() => keysOf(backend)).toThrow(`Cannot use net-conf.json: ${message}`);
  });
});
