import { describe, expect, test } from 'vitest';
import { ipipObjects } from './ipip.ts';
import type { NodeFacts } from './node-facts.ts';
import { announce, onlyIp4, peer, same, self, spell } from './testdata/nodes.ts';

const defaults = { directRouting: true };

function ipip(node: NodeFacts): NodeFacts {
  const { ip, ip6 } = node.announcements;
  return {
    ...node,
    announcements: {
      ...(ip && { ip: { backend: 'ipip', publicIP: ip.publicIP } }),
      ...(ip6 && { ip6: { backend: 'ipip', publicIP: ip6.publicIP } }),
    },
  };
}

const device4 = [
  'link podwire.ipip mtu 1480 local 192.168.1.1',
  'addr 10.244.1.0/32 dev podwire.ipip',
];

describe('ipipObjects()', () => {
  test('one device a family; a peer behind a router is one route to its own address', () => {
    const result = ipipObjects([ipip(peer('b', 2))], self, defaults);
    expect(spell(result.objects)).toEqual([
      ...device4,
      'route 10.244.2.0/24 via 192.168.2.2 dev podwire.ipip onlink',
      'link podwire-v6.ipip mtu 1460 external',
      'addr fd00:10:244:1::/128 dev podwire-v6.ipip',
      'route fd00:10:244:2::/64 dev podwire-v6.ipip src fd00:1::1 dst fd00:2::2',
    ]);
    expect(result.mtuBytes).toBe(1460);
    expect(result.announcements).toEqual({
      ip: announce('ipip', '192.168.1.1'),
      ip6: announce('ipip', 'fd00:1::1'),
    });
  });

  test.each([
    [true, 'route 10.244.2.0/24 via 192.168.1.2 dev eth0'],
    [false, 'route 10.244.2.0/24 via 192.168.1.2 dev podwire.ipip onlink'],
  ])('a peer on our L2, with direct routing %s', (directRouting, route) => {
    const { objects } = ipipObjects([ipip(same('b', 2))], onlyIp4, { directRouting });
    expect(spell(objects)).toEqual([...device4, route]);
  });

  test.each<[string, NodeFacts, string | undefined]>([
    ['nothing yet', { ...peer('b', 2), announcements: {} }, undefined],
    ['VXLAN', peer('b', 2), 'Cannot reach the node by IP in IP: its agent runs the backend vxlan'],
    [
      'our own address',
      { ...peer('b', 2), announcements: { ip: announce('ipip', '192.168.1.1') } },
      'Cannot reach the node: it announces our own address 192.168.1.1',
    ],
  ])('a peer that announces %s gets no route, and others do', (_, node, message) => {
    const result = ipipObjects([node, ipip(peer('c', 3))], onlyIp4, defaults);
    expect(spell(result.objects)).toEqual([
      ...device4,
      'route 10.244.3.0/24 via 192.168.2.3 dev podwire.ipip onlink',
    ]);
    expect(result.problems).toEqual(message === undefined ? [] : [{ node: 'b', message }]);
  });
});
