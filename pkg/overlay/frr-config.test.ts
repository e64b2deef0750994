import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { bgpRouting, type BgpOptions } from './bgp.ts';
import type { SelfNode } from './backend.ts';
import { frrSpeaker } from './frr-config.ts';
import type { NodeFacts } from './node-facts.ts';
import { announce, onlyIp4, onlyIp6, peer, same, self } from './testdata/nodes.ts';

const speaking = (node: NodeFacts, n: number, subnet: number): NodeFacts => ({
  ...node,
  announcements: {
    ip: announce('bgp', `192.168.${subnet}.${n}`),
    ip6: announce('bgp', `fd00:${subnet}::${n}`),
  },
});
const b = speaking(same('b', 2), 2, 1);
const c = speaking(peer('c', 3), 3, 2);
const mesh = { asNumber: 64_512, reflectors: [] };

function speak(peers: readonly NodeFacts[], node: SelfNode, options: BgpOptions) {
  const { routing } = bgpRouting(peers, node, options);
  if (routing === undefined) throw new Error('the test’s node has nothing to say');
  return frrSpeaker(routing);
}

/** Filters as FRR prints them: blocks with their lines indented. */
const spell = (speaker: ReturnType<typeof speak>): string[] =>
  speaker.filters.map(({ block, text }) => (block === '' ? text : ` ${text}`));

describe('frrSpeaker()', () => {
  test('golden: a node with one neighbour', () => {
    const speaker = speak([b], onlyIp4, mesh);
    expect(spell(speaker)).toEqual([
      'route-map PODWIRE-PODS permit 10',
      'ip prefix-list PODWIRE-OWN-4 seq 5 permit 10.244.1.0/24',
      'ip prefix-list PODWIRE-IN-4 seq 5 deny 10.244.1.0/24 le 32',
      'ip prefix-list PODWIRE-IN-4 seq 10 deny 0.0.0.0/0',
      'ip prefix-list PODWIRE-IN-4 seq 15 permit any',
      'route-map PODWIRE-IN-4 permit 10',
      ' match ip address prefix-list PODWIRE-IN-4',
      ' set tag 1960',
      'route-map PODWIRE-OUT-4 permit 10',
      ' match ip address prefix-list PODWIRE-OWN-4',
    ]);
    expect({ ...speaker, filters: [] }).toEqual({
      asNumber: 64_512,
      routerId: '192.168.1.1',
      filters: [],
      groups: [
        {
          name: 'PODWIRE-4',
          family: 'ip',
          settings: ['remote-as 64512', 'update-source 192.168.1.1', 'timers connect 5'],
          familySettings: ['route-map PODWIRE-IN-4 in', 'route-map PODWIRE-OUT-4 out'],
        },
      ],
      neighbors: [{ address: '192.168.1.2', group: 'PODWIRE-4' }],
      networks: [{ family: 'ip', prefix: '10.244.1.0/24', routeMap: 'PODWIRE-PODS' }],
    });
  });

  test('a full mesh in both families: each over its own', () => {
    const speaker = speak([b, c], self, mesh);
    expect(speaker.neighbors).toEqual([
      { address: '192.168.1.2', group: 'PODWIRE-4' },
      { address: '192.168.2.3', group: 'PODWIRE-4' },
      { address: 'fd00:1::2', group: 'PODWIRE-6' },
      { address: 'fd00:2::3', group: 'PODWIRE-6' },
    ]);
    expect(speaker.networks.map(({ prefix }) => prefix)).toEqual([
      '10.244.1.0/24',
      'fd00:10:244:1::/64',
    ]);
    expect(spell(speaker)).toContain(' set ipv6 next-hop prefer-global');
  });

  test('what a reflector hands on of nodes beyond our L2 goes by it', () => {
    const reflectors = [parseAddress('192.168.1.254'), parseAddress('192.168.2.254')];
    const routedPrefixes = [parsePrefix('192.168.1.128/26')];
    const node = { ...onlyIp4, underlay: { ...onlyIp4.underlay, routedPrefixes } };
    const speaker = speak([b], node, { asNumber: 64_512, reflectors });
    expect(speaker.neighbors).toEqual([
      { address: '192.168.1.254', group: 'PODWIRE-4-REFLECTORS' },
      // Nor is it itself on our L2: FRR must know the way.
      { address: '192.168.2.254', group: 'PODWIRE-4' },
    ]);
    expect(speaker.groups[0]?.familySettings).toContain('route-map PODWIRE-IN-4-REFLECTED in');
    const lines = spell(speaker);
    expect(lines).toEqual(
      expect.arrayContaining([
        'ip prefix-list PODWIRE-LINK-4 seq 5 deny 192.168.1.128/26 le 32',
        'ip prefix-list PODWIRE-LINK-4 seq 10 permit 192.168.1.0/24 le 32',
      ]),
    );
    const from = lines.indexOf('route-map PODWIRE-IN-4-REFLECTED permit 10');
    expect(lines.slice(from, from + 8)).toEqual([
      'route-map PODWIRE-IN-4-REFLECTED permit 10',
      ' match ip address prefix-list PODWIRE-IN-4',
      ' match ip next-hop prefix-list PODWIRE-LINK-4',
      ' set tag 1960',
      'route-map PODWIRE-IN-4-REFLECTED permit 20',
      ' match ip address prefix-list PODWIRE-IN-4',
      ' set ip next-hop peer-address',
      ' set tag 1960',
    ]);
    expect(lines).not.toContain(' match tag 1960');
  });

  test('a link-local next hop does not make a route one of our link', () => {
    const onLinkPrefixes = [...self.underlay.onLinkPrefixes, parsePrefix('fe80::/64')];
    const node = { ...onlyIp6, underlay: { ...self.underlay, onLinkPrefixes } };
    const options = { asNumber: 64_512, reflectors: [parseAddress('fd00:1::254')] };
    const lines = spell(speak([], node, options)).filter((line) =>
      line.includes('list PODWIRE-LINK'),
    );
    expect(lines[0]).toBe('ipv6 prefix-list PODWIRE-LINK-6 seq 5 permit fd00:1::/64 le 128');
    expect(lines.slice(1)).toEqual([' match ipv6 next-hop prefix-list PODWIRE-LINK-6']);
  });

  test('a node that is a reflector hands on what its neighbours tell, and nothing else', () => {
    const reflectors = ['192.168.1.1', '192.168.1.9'].map(parseAddress);
    const speaker = speak([b], onlyIp4, { asNumber: 64_512, reflectors });
    expect(speaker.neighbors).toEqual([
      { address: '192.168.1.9', group: 'PODWIRE-4-REFLECTORS' },
      { address: '192.168.1.2', group: 'PODWIRE-4-CLIENTS' },
    ]);
    const isClient = speaker.groups.map(({ familySettings }) =>
      familySettings.includes('route-reflector-client'),
    );
    expect(isClient).toEqual([false, true]);
    expect(spell(speaker).slice(-4)).toEqual([
      'route-map PODWIRE-OUT-4 permit 10',
      ' match ip address prefix-list PODWIRE-OWN-4',
      'route-map PODWIRE-OUT-4 permit 20',
      ' match tag 1960',
    ]);
  });

  test.each([
    ['the IPv4 address, also of IPv6 pods', onlyIp6, '192.168.1.1'],
    [
      'without one the end of the other',
      {
        ...onlyIp6,
        underlay: { ...self.underlay, addresses: { ip6: parseAddress('fd00::a01:2') } },
      },
      '10.1.0.2',
    ],
    [
      'never zero',
      { ...onlyIp6, underlay: { ...self.underlay, addresses: { ip6: parseAddress('fd00::') } } },
      '0.0.0.1',
    ],
  ])('the BGP Identifier: %s', (_, node, routerId) => {
    expect(speak([], node, mesh).routerId).toBe(routerId);
  });

  test('a pod range of one address', () => {
    const podCIDRs = { ip: parsePrefix('10.244.1.7/32') };
    expect(spell(speak([], { ...onlyIp4, podCIDRs }, mesh))).toContain(
      'ip prefix-list PODWIRE-IN-4 seq 5 deny 10.244.1.7/32',
    );
  });
});
