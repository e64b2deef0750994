import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CniError } from '#pkg/cni/cni-error.ts';
import { parseNetworkConfig, type NetworkConfig } from '#pkg/cni/config.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { openNodeSys } from '#pkg/sys/node-ffi.ts';
import { parseNodeFacts } from './node-facts.ts';
import type { AttachmentRecord } from './podwire/attachment-record.ts';
import { hostPortMaps } from './podwire/pod-elements.ts';
import { bridgeConfigOf, parsePodwireConfig } from './podwire/podwire-config.ts';
import { podwirePlugin } from './podwire.ts';

function configOf(more: object): NetworkConfig {
  return parseNetworkConfig(JSON.stringify({ cniVersion: '1.1.0', name: 'pods', ...more }));
}

const facts = parseNodeFacts(
  '{"podCIDRs":["10.244.1.0/24","fd00:10:244:1::/64"],"mtuBytes":1450,"backend":"vxlan"}',
  'node.json',
);
const ranges = [[{ subnet: '10.244.1.0/24' }], [{ subnet: 'fd00:10:244:1::/64' }]];

describe('bridgeConfigOf() says in the words of the bridge plugin', () => {
  it.each([
    [
      'all that a bare entry leaves to us',
      {},
      {
        isDefaultGateway: true,
        hairpinMode: true,
        mtu: 1450,
        ipam: { type: 'host-local', ranges },
      },
    ],
    [
      'where leases are kept',
      { ipam: { dataDir: '/x' } },
      { ipam: { type: 'host-local', dataDir: '/x', ranges } },
    ],
    [
      'what the entry sets itself',
      { mtu: 1300, hairpinMode: false, isDefaultGateway: false, bridge: 'br1' },
      { mtu: 1300, hairpinMode: false, isDefaultGateway: false, bridge: 'br1' },
    ],
    ['an MTU of 0 as none', { mtu: 0 }, { mtu: 1450 }],
    [
      'ranges of its own',
      { ipam: { ranges: [[{ subnet: '10.9.0.0/24' }]] } },
      { ipam: { type: 'host-local', ranges: [[{ subnet: '10.9.0.0/24' }]] } },
    ],
    ['another IPAM plugin', { ipam: { type: 'static' } }, { ipam: { type: 'static' } }],
  ])('%s', (_, entry, expected) => {
    expect(bridgeConfigOf(configOf(entry), facts).fields.values).toMatchObject(expected);
  });

  it('the same to plugins we delegate to', () => {
    const config = bridgeConfigOf(configOf({ ipam: { type: 'static' } }), facts);
    expect(JSON.parse(config.text)).toEqual(config.fields.values);
  });

  it('no ranges when nobody knows the node: DEL needs none', () => {
    expect(bridgeConfigOf(configOf({}), undefined).fields.values['ipam']).toEqual({
      type: 'host-local',
    });
  });
});

describe('parseNodeFacts()', () => {
  it.each([
    ['{', 'not JSON'],
    ['[]', 'field "f": expected an object'],
    ['{"mtuBytes":1450}', 'field "f.podCIDRs": expected at least one subnet'],
    ['{"podCIDRs":["x"],"mtuBytes":1450}', 'field "f.podCIDRs[0]": expected a subnet'],
    ['{"podCIDRs":["10.0.0.1/24"],"mtuBytes":1450}', 'field "f.podCIDRs[0]": expected a subnet'],
    ['{"podCIDRs":["10.0.0.0/24"]}', 'field "f.mtuBytes": expected a whole number'],
    ['{"podCIDRs":["10.0.0.0/24"],"mtuBytes":"1450"}', 'field "f.mtuBytes"'],
  ])('refuses %s', (text, message) => {
    expect(() => parseNodeFacts(text, 'f')).toThrow(message);
  });
});

it('parsePodwireConfig() puts the name of an interface in the place of IFNAME as it is', () => {
  const config = configOf({ sysctl: { 'net.ipv4.conf.IFNAME.log_martians': '1' } });
  expect(parsePodwireConfig(config, 'a$&b').sysctls).toEqual([
    {
      name: 'net.ipv4.conf.IFNAME.log_martians',
      path: 'net/ipv4/conf/a$&b/log_martians',
      value: '1',
    },
  ]);
});

describe('STATUS when the IPAM plugin', () => {
  it.each([
    ['has code 51: pods may have limited connectivity', new CniError(51, 'no uplink'), 51],
    ['has code 50', new CniError(50, 'no uplink'), 50],
    ['fails otherwise', new Error('no uplink'), 50],
  ])('%s', (_, error, cniCode) => {
    const directory = mkdtempSync(join(tmpdir(), 'podwire-status-'));
    try {
      const nodeFile = join(directory, 'node.json');
      writeFileSync(nodeFile, '{"podCIDRs":["10.244.1.0/24"],"mtuBytes":1450}');
      const unused = (): never => expect.unreachable();
      const status = (): never => {
        throw error;
      };
      const delegates = new Map([['other', { about: '', add: unused, del: unused, status }]]);
      const system = { sys: openNodeSys(), runProgram: unused, delegates, die: unused };
      const ipam = { type: 'other' };
      const request = {
        config: configOf({ nodeFile, stateDir: directory, antiSpoofing: false, ipam }),
        containerId: '',
        ifName: '',
        netns: undefined,
        args: '',
        path: [],
        environment: {},
      };
      expect(() => podwirePlugin(system).status?.(request)).toThrow(
        expect.objectContaining({ cniCode, message: expect.stringContaining('no uplink') }),
      );
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe('a host port that a pod asks for twice', () => {
  const web = { protocol: 'tcp', hostPort: 80, containerPort: 8080 };
  const parse = (...portMappings: object[]) =>
    parsePodwireConfig(configOf({ runtimeConfig: { portMappings } }), 'eth0').hostPorts;

  it.each([
    ['of all addresses', [{}, {}]],
    ['of all addresses, and of all of a family', [{}, { hostIP: '0.0.0.0' }, { hostIP: '::' }]],
    ['of all of a family, and of all addresses', [{ hostIP: '0.0.0.0' }, {}]],
    ['of one address', [{ hostIP: '192.0.2.1' }, { hostIP: '192.0.2.1' }]],
  ])('%s is one element a family', (_, hostIps) => {
    const hostPorts = parse(...hostIps.map((hostIp) => ({ ...web, ...hostIp })));
    const addresses = ['10.244.1.2/24', 'fd00::2/64'].map(parsePrefix);
    const sets = hostPortMaps({ ...record, hostPorts, addresses }).map(({ set }) => set.set);
    expect(sets).toEqual([...new Set(sets)]);
    expect(sets.length).toBeGreaterThan(0);
  });

  it.each([
    [{}, {}],
    [{}, { hostIP: '0.0.0.0' }],
    [{ hostIP: '::' }, {}],
  ])('for %j and %j must lead to one port of the pod', (one, other) => {
    expect(() => parse({ ...web, ...one }, { ...web, ...other, containerPort: 9 })).toThrow(
      'one container port for host port tcp 80',
    );
  });

  it('of two addresses is two ports', () => {
    const other = { ...web, hostIP: '192.0.2.2', containerPort: 9 };
    expect(parse({ ...web, hostIP: '192.0.2.1' }, other, { ...web, hostPort: 81 })).toHaveLength(3);
  });
});

const record: AttachmentRecord = {
  network: 'pods',
  containerId: 'a',
  ifName: 'eth0',
  mode: 'bridge',
  hostLink: 'veth0',
  reachedBy: 'cni0',
  mac: '0a:58:0a:f4:01:02',
  addresses: [],
  hostPorts: [],
  antiSpoofing: false,
  iptables: false,
};
