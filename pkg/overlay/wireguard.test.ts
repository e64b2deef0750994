import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import type { NodeFacts } from './node-facts.ts';
import { onlyIp4, peer, self, spell } from './testdata/nodes.ts';
import { wireguardObjects, type WireguardOptions } from './wireguard.ts';

const ownKey = key('A');
const defaults: WireguardOptions = {
  mode: 'separate',
  publicKey: ownKey,
  port: 51_820,
  portV6: 51_821,
  keepaliveSeconds: 0,
  presharedKey: undefined,
};

function key(letter: string): string {
  return `${letter.repeat(42)}A=`;
}

/** A peer of this key, announced for the families it has addresses of. */
function keyed(node: NodeFacts, publicKey: string): NodeFacts {
  const { ip, ip6 } = node.announcements;
  return {
    ...node,
    announcements: {
      ...(ip && { ip: { backend: 'wireguard', publicIP: ip.publicIP, publicKey } }),
      ...(ip6 && { ip6: { backend: 'wireguard', publicIP: ip6.publicIP, publicKey } }),
    },
  };
}

const b = keyed(peer('b', 2), key('B'));

describe('wireguardObjects()', () => {
  test('separate: a device per family, each over its own family', () => {
    const result = wireguardObjects([b], self, defaults);
    expect(spell(result.objects)).toEqual([
      `link podwire-wg mtu 1420 port 51820 key ${ownKey}`,
      'addr 10.244.1.0/32 dev podwire-wg',
      `peer ${key('B')} at 192.168.2.2 51820 ips 10.244.2.0/24 dev podwire-wg`,
      'route 10.244.2.0/24 dev podwire-wg',
      `link podwire-wg-v6 mtu 1420 port 51821 key ${ownKey}`,
      'addr fd00:10:244:1::/128 dev podwire-wg-v6',
      `peer ${key('B')} at fd00:2::2 51821 ips fd00:10:244:2::/64 dev podwire-wg-v6`,
      'route fd00:10:244:2::/64 dev podwire-wg-v6',
    ]);
    expect(result).toMatchObject({ mtuBytes: 1420, problems: [], families: ['ip', 'ip6'] });
    expect(result.announcements.ip6).toEqual({
      backend: 'wireguard',
      publicIP: parseAddress('fd00:1::1'),
      publicKey: ownKey,
    });
  });

  test.each([
    ['auto', '192.168.2.2 51820'],
    ['ipv4', '192.168.2.2 51820'],
    ['ipv6', 'fd00:2::2 51820'],
  ] as const)('%s: one device carries both families', (mode, endpoint) => {
    const result = wireguardObjects([b], self, { ...defaults, mode });
    expect(spell(result.objects)).toEqual([
      `link podwire-wg mtu 1420 port 51820 key ${ownKey}`,
      'addr 10.244.1.0/32 dev podwire-wg',
      'addr fd00:10:244:1::/128 dev podwire-wg',
      `peer ${key('B')} at ${endpoint} ips 10.244.2.0/24,fd00:10:244:2::/64 dev podwire-wg`,
      'route 10.244.2.0/24 dev podwire-wg',
      'route fd00:10:244:2::/64 dev podwire-wg',
    ]);
  });

  test('auto: a peer without IPv4 is reached over IPv6, its pods’ IPv4 too', () => {
    const { ip6 } = b.announcements;
    const result = wireguardObjects([{ ...b, announcements: { ...(ip6 && { ip6 }) } }], self, {
      ...defaults,
      mode: 'auto',
    });
    expect(spell(result.objects)).toContain(
      `peer ${key('B')} at fd00:2::2 51820 ips 10.244.2.0/24,fd00:10:244:2::/64 dev podwire-wg`,
    );
  });

  test('ipv4: pods have IPv6 on an underlay without it', () => {
    const underlay = { ...self.underlay, addresses: { ip: parseAddress('192.168.1.1') } };
    const result = wireguardObjects([b], { ...self, underlay }, { ...defaults, mode: 'ipv4' });
    expect(result).toMatchObject({ families: ['ip', 'ip6'], problems: [] });
    expect(Object.keys(result.announcements)).toEqual(['ip']);
  });

  test('ipv6 on an underlay without IPv6 is our own problem', () => {
    const underlay = { ...self.underlay, addresses: { ip: parseAddress('192.168.1.1') } };
    const result = wireguardObjects([b], { ...self, underlay }, { ...defaults, mode: 'ipv6' });
    expect(result).toMatchObject({ objects: [], mtuBytes: undefined });
    expect(result.problems).toEqual([
      {
        node: 'a',
        message:
          'Cannot carry pod traffic by WireGuard: link eth0 has no IPv6 address of this node',
      },
    ]);
  });

  test('keepalive and preshared key are every peer’s', () => {
    const options = { ...defaults, keepaliveSeconds: 25, presharedKey: 'name' };
    expect(wireguardObjects([b], onlyIp4, options).objects[2]).toMatchObject({
      kind: 'wireguard-peer',
      keepaliveSeconds: 25,
      presharedKey: 'name',
    });
  });

  test.each<[string, NodeFacts, string]>([
    [
      'another backend',
      peer('b', 2),
      'Cannot reach the node by WireGuard: its agent runs the backend vxlan',
    ],
    [
      'the key of another peer',
      keyed(peer('b', 2), key('C')),
      `Cannot reach the node by WireGuard: its public key ${key('C')} is that of node c`,
    ],
    [
      'our own key',
      keyed(peer('b', 2), ownKey),
      `Cannot reach the node by WireGuard: its public key ${ownKey} is that of node a`,
    ],
    [
      'our own address',
      {
        ...b,
        announcements: {
          ip: { backend: 'wireguard', publicIP: parseAddress('192.168.1.1'), publicKey: key('B') },
        },
      },
      'Cannot reach the node: it announces our own address 192.168.1.1',
    ],
    [
      'no address of the family',
      { ...b, announcements: { ...(b.announcements.ip6 && { ip6: b.announcements.ip6 }) } },
      'Cannot reach the node by WireGuard: it announces no address of a family we use',
    ],
  ])('reports a peer with %s and goes on', (_, node, message) => {
    const result = wireguardObjects([keyed(peer('c', 3), key('C')), node], onlyIp4, defaults);
    expect(result.problems).toEqual([{ node: 'b', message }]);
    expect(spell(result.objects)).toContain('route 10.244.3.0/24 dev podwire-wg');
    expect(spell(result.objects)).not.toContain('route 10.244.2.0/24 dev podwire-wg');
  });

  test('a peer that has announced nothing yet is left out without a problem', () => {
    const result = wireguardObjects([{ ...b, announcements: {} }], onlyIp4, defaults);
    expect(result.problems).toEqual([]);
    expect(result.objects).toHaveLength(2);
  });
});
