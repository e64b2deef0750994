import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { hostGatewayObjects } from './host-gateway.ts';
import type { NodeFacts } from './node-facts.ts';
import { noObjects } from './none.ts';
import { announce, onlyIp4, onlyIp6, peer, same, self, spell } from './testdata/nodes.ts';
import { vtepMac } from './vtep-mac.ts';
import { vxlanLinkName, vxlanObjects, type VxlanOptions } from './vxlan.ts';

const defaults: VxlanOptions = { vni: 1, port: 8472, directRouting: true };

const device4 = [
  `link podwire.1 vni 1 port 8472 mtu 1450 mac ${vtepMac('uid-a', 1, 'ip')} local 192.168.1.1 dev eth0`,
  'addr 10.244.1.0/32 dev podwire.1',
];
const device6 = [
  `link podwire-v6.1 vni 1 port 8472 mtu 1430 mac ${vtepMac('uid-a', 1, 'ip6')} local fd00:1::1 dev eth0`,
  'addr fd00:10:244:1::/128 dev podwire-v6.1',
];

describe('vxlanObjects()', () => {
  test('153. makes each family its own device; pods get the smaller MTU', () => {
    const result = vxlanObjects([], self, defaults);
    expect(spell(result.objects)).toEqual([...device4, ...device6]);
    expect(result.mtuBytes).toBe(1430);
    expect(result.problems).toEqual([]);
  });

  test('a peer behind a router costs a neighbour, an FDB entry and a route per family', () => {
    const result = vxlanObjects([peer('b', 2)], self, defaults);
    expect(spell(result.objects)).toEqual([
      ...device4,
      'neigh 10.244.2.0 lladdr 02:00:00:00:04:02 dev podwire.1',
      'fdb 02:00:00:00:04:02 dst 192.168.2.2 dev podwire.1',
      'route 10.244.2.0/24 via 10.244.2.0 dev podwire.1 onlink',
      ...device6,
      'neigh fe80::ff:fe00:602 lladdr 02:00:00:00:06:02 dev podwire-v6.1',
      'fdb 02:00:00:00:06:02 dst fd00:2::2 dev podwire-v6.1',
      'route fd00:10:244:2::/64 via fe80::ff:fe00:602 dev podwire-v6.1',
    ]);
  });

  test('a peer on our L2 gets a plain route', () => {
    const result = vxlanObjects([same('b', 2)], onlyIp4, defaults);
    expect(spell(result.objects)).toEqual([
      ...device4,
      'route 10.244.2.0/24 via 192.168.1.2 dev eth0',
    ]);
    expect(result.mtuBytes).toBe(1450);
  });

  test('a peer on our L2 is wrapped all the same without direct routing', () => {
    const result = vxlanObjects([same('b', 2)], onlyIp4, { ...defaults, directRouting: false });
    expect(spell(result.objects)).toEqual([
      ...device4,
      'neigh 10.244.2.0 lladdr 02:00:00:00:04:02 dev podwire.1',
      'fdb 02:00:00:00:04:02 dst 192.168.1.2 dev podwire.1',
      'route 10.244.2.0/24 via 10.244.2.0 dev podwire.1 onlink',
    ]);
  });

  test('a peer in our prefix is wrapped when a longer one leads to it through a router', () => {
    const underlay = { ...self.underlay, routedPrefixes: [parsePrefix('192.168.1.128/25')] };
    const near = peer('b', 2, 1);
    const announcements = { ip: announce('vxlan', '192.168.1.200', '02:00:00:00:04:02') };
    const routes = (peers: readonly NodeFacts[]): string[] =>
      spell(vxlanObjects(peers, { ...onlyIp4, underlay }, defaults).objects).filter((line) =>
        line.startsWith('route'),
      );
    expect(routes([near])).toEqual(['route 10.244.2.0/24 via 192.168.1.2 dev eth0']);
    expect(routes([{ ...near, announcements }])).toEqual([
      'route 10.244.2.0/24 via 10.244.2.0 dev podwire.1 onlink',
    ]);
  });

  test('one family may be direct and the other one wrapped', () => {
    const far6 = peer('b', 2).announcements.ip6;
    const near = same('b', 2);
    const mixed = { ...near, announcements: { ...near.announcements, ...(far6 && { ip6: far6 }) } };
    expect(spell(vxlanObjects([mixed], self, defaults).objects)).toEqual([
      ...device4,
      'route 10.244.2.0/24 via 192.168.1.2 dev eth0',
      ...device6,
      'neigh fe80::ff:fe00:602 lladdr 02:00:00:00:06:02 dev podwire-v6.1',
      'fdb 02:00:00:00:06:02 dst fd00:2::2 dev podwire-v6.1',
      'route fd00:10:244:2::/64 via fe80::ff:fe00:602 dev podwire-v6.1',
    ]);
  });

  test('an IPv6-only node has no IPv4 device', () => {
    const result = vxlanObjects([peer('b', 2)], onlyIp6, defaults);
    expect(spell(result.objects).slice(0, 2)).toEqual(device6);
    expect(spell(result.objects).join()).not.toContain('podwire.1 ');
    expect(result.announcements).toEqual({
      ip6: announce('vxlan', 'fd00:1::1', vtepMac('uid-a', 1, 'ip6')),
    });
  });

  test('a peer that has announced nothing yet is left out without a problem', () => {
    const silent = { ...peer('b', 2), announcements: {} };
    const result = vxlanObjects([silent], onlyIp4, defaults);
    expect(spell(result.objects)).toEqual(device4);
    expect(result.problems).toEqual([]);
  });

  test.each([
    [
      'its MAC',
      {
        ...peer('b', 2),
        announcements: { ip: announce('vxlan', '192.168.2.2', '02:00:00:00:04:0f') },
      },
      [
        'neigh 10.244.2.0 lladdr 02:00:00:00:04:0f dev podwire.1',
        'fdb 02:00:00:00:04:0f dst 192.168.2.2 dev podwire.1',
        'route 10.244.2.0/24 via 10.244.2.0 dev podwire.1 onlink',
      ],
    ],
    [
      'its address',
      {
        ...peer('b', 2),
        announcements: { ip: announce('vxlan', '192.168.2.9', '02:00:00:00:04:02') },
      },
      [
        'neigh 10.244.2.0 lladdr 02:00:00:00:04:02 dev podwire.1',
        'fdb 02:00:00:00:04:02 dst 192.168.2.9 dev podwire.1',
        'route 10.244.2.0/24 via 10.244.2.0 dev podwire.1 onlink',
      ],
    ],
    [
      'its podCIDR',
      { ...peer('b', 2), podCIDRs: { ip: parsePrefix('10.244.9.0/24') } },
      [
        'neigh 10.244.9.0 lladdr 02:00:00:00:04:02 dev podwire.1',
        'fdb 02:00:00:00:04:02 dst 192.168.2.2 dev podwire.1',
        'route 10.244.9.0/24 via 10.244.9.0 dev podwire.1 onlink',
      ],
    ],
    ['nothing but leaves', undefined, []],
  ])('follows a peer that changes %s', (_, changed, want) => {
    const peers = changed === undefined ? [] : [changed];
    expect(spell(vxlanObjects(peers, onlyIp4, defaults).objects)).toEqual([...device4, ...want]);
  });

  test('136. a VNI of more bits than flannel announces is known by those', () => {
    const vtep = { vni: 70_000 % 65_536, mac: '02:00:00:00:04:02' };
    const announcements = { ip: { ...announce('vxlan', '192.168.2.2'), vtep } };
    const flannelPeer = { ...peer('b', 2), announcements };
    const options = { ...defaults, vni: 70_000 };
    const { objects, problems } = vxlanObjects([flannelPeer], onlyIp4, options);
    expect(problems).toEqual([]);
    expect(spell(objects)).toContain(
      'route 10.244.2.0/24 via 10.244.2.0 dev podwire.x11170 onlink',
    );
  });

  test.each<[string, NodeFacts[], string]>([
    [
      'another VNI',
      [
        {
          ...peer('b', 2),
          announcements: {
            ip: { ...announce('vxlan', '192.168.2.2'), vtep: { vni: 7, mac: '02:00:00:00:04:02' } },
          },
        },
      ],
      'Cannot reach the node by VXLAN: it uses VNI 7, this node 1',
    ],
    [
      'another backend behind a router',
      [{ ...peer('b', 2), announcements: { ip: announce('host-gw', '192.168.2.2') } }],
      'Cannot reach the node by VXLAN: its agent runs the backend host-gw',
    ],
    [
      'our own address',
      [
        {
          ...peer('b', 2),
          announcements: { ip: announce('vxlan', '192.168.1.1', '02:00:00:00:04:02') },
        },
      ],
      'Cannot reach the node: it announces our own address 192.168.1.1',
    ],
    [
      'the MAC of another peer',
      [
        peer('c', 3),
        {
          ...peer('b', 2),
          announcements: { ip: announce('vxlan', '192.168.2.2', '02:00:00:00:04:03') },
        },
      ],
      'Cannot reach the node by VXLAN: its VTEP MAC 02:00:00:00:04:03 is that of node c',
    ],
  ])('reports a peer with %s and goes on', (_, peers, message) => {
    const result = vxlanObjects([...peers, peer('d', 4)], onlyIp4, defaults);
    expect(result.problems).toEqual([{ node: 'b', message }]);
    const text = spell(result.objects).join('\n');
    expect(text).not.toContain('10.244.2.0');
    expect(text).toContain('route 10.244.4.0/24');
  });

  test('a family the underlay has no address of is reported, the other one works', () => {
    const underlay = { ...self.underlay, addresses: { ip: parseAddress('192.168.1.1') } };
    const result = vxlanObjects([], { ...self, underlay }, defaults);
    expect(spell(result.objects)).toEqual(device4);
    expect(result.families).toEqual(['ip']);
    expect(result.problems).toEqual([
      {
        node: 'a',
        message: 'Cannot carry IPv6 pod traffic: link eth0 has no IPv6 address of this node',
      },
    ]);
  });

  test('an underlay too small for IPv6 is reported: the kernel would take IPv6 away silently', () => {
    const underlay = { ...self.underlay, mtuBytes: 1300 };
    const result = vxlanObjects([], { ...self, underlay }, defaults);
    expect(result.families).toEqual(['ip']);
    expect(result.mtuBytes).toBe(1250);
    expect(result.problems[0]?.message).toBe(
      'Cannot carry IPv6 pod traffic: an MTU of 1230 bytes is left for pods, IPv6 needs 1280',
    );
  });

  test('a configured MTU lowers the MTU and never raises it', () => {
    expect(vxlanObjects([], self, { ...defaults, mtuBytes: 1400 }).mtuBytes).toBe(1400);
    expect(vxlanObjects([], self, { ...defaults, mtuBytes: 9000 }).mtuBytes).toBe(1430);
  });
});

describe('what VXLAN can be told besides', () => {
  test('group policy makes another device, and is off by default', () => {
    const options = { ...defaults, groupPolicy: true };
    expect(vxlanObjects([], onlyIp4, options).objects[0]).toMatchObject({ groupPolicy: true });
    expect(vxlanObjects([], onlyIp4, defaults).objects[0]).not.toHaveProperty('groupPolicy');
  });

  test.each([
    [1, 'podwire.1', 'podwire-v6.1'],
    [9999, 'podwire.9999', 'podwire-v6.9999'],
    [10_000, 'podwire.x2710', 'podwire6x2710'],
    [16_777_215, 'podwire.xffffff', 'podwire6xffffff'],
  ])('the devices of VNI %i have names that fit', (vni, ip, ip6) => {
    expect([vxlanLinkName(vni, 'ip'), vxlanLinkName(vni, 'ip6')]).toEqual([ip, ip6]);
    expect(ip6.length).toBeLessThanOrEqual(15);
  });

  test('a peer that runs host-gw on our L2 gets plain packets without direct routing too', () => {
    const announcements = { ip: announce('host-gw', '192.168.1.2') };
    const options = { ...defaults, directRouting: false };
    const near = { ...same('b', 2), announcements };
    expect(spell(vxlanObjects([near], onlyIp4, options).objects)).toEqual([
      ...device4,
      'route 10.244.2.0/24 via 192.168.1.2 dev eth0',
    ]);
  });
});

describe('noObjects()', () => {
  test('leaves the routes to others, with the underlay’s own MTU', () => {
    const result = noObjects(self);
    expect(result).toMatchObject({ objects: [], families: ['ip', 'ip6'], mtuBytes: 1500 });
    expect(result.announcements).toEqual({
      ip: announce('none', '192.168.1.1'),
      ip6: announce('none', 'fd00:1::1'),
    });
    expect(noObjects(self, { mtuBytes: 1400 }).mtuBytes).toBe(1400);
  });
});

describe('hostGatewayObjects()', () => {
  test('routes each peer’s pods through the peer, with the underlay’s own MTU', () => {
    const result = hostGatewayObjects([same('b', 2)], self);
    expect(spell(result.objects)).toEqual([
      'route 10.244.2.0/24 via 192.168.1.2 dev eth0',
      'route fd00:10:244:2::/64 via fd00:1::2 dev eth0',
    ]);
    expect(result.mtuBytes).toBe(1500);
    expect(result.announcements).toEqual({
      ip: announce('host-gw', '192.168.1.1'),
      ip6: announce('host-gw', 'fd00:1::1'),
    });
  });

  test('needs no annotations: InternalIPs do, one on our L2 before the others', () => {
    const internalIPs = [parseAddress('172.16.0.2'), parseAddress('192.168.1.2')];
    const silent = { ...same('b', 2), internalIPs, announcements: {} };
    expect(spell(hostGatewayObjects([silent], onlyIp4).objects)).toEqual([
      'route 10.244.2.0/24 via 192.168.1.2 dev eth0',
    ]);
  });

  test('reports a peer behind a router, and goes on', () => {
    const result = hostGatewayObjects([peer('b', 2), same('c', 3)], onlyIp4);
    expect(spell(result.objects)).toEqual(['route 10.244.3.0/24 via 192.168.1.3 dev eth0']);
    expect(result.problems).toEqual([
      {
        node: 'b',
        message:
          'Cannot route IPv4 to the node: 192.168.2.2 is not on the L2 network of link eth0, which backend host-gw needs; use backend vxlan',
      },
    ]);
  });

  test('reports a peer without an address of the family', () => {
    const internalIPs = [parseAddress('192.168.1.2')];
    const result = hostGatewayObjects([{ ...same('b', 2), internalIPs, announcements: {} }], self);
    expect(spell(result.objects)).toEqual(['route 10.244.2.0/24 via 192.168.1.2 dev eth0']);
    expect(result.problems).toEqual([
      { node: 'b', message: 'Cannot route IPv6 to the node: it has no InternalIP of this family' },
    ]);
  });
});

describe('vtepMac()', () => {
  test('is stable, and differs by node, VNI and family', () => {
    expect(vtepMac('uid-a', 1, 'ip')).toBe(vtepMac('uid-a', 1, 'ip'));
    const macs = [
      vtepMac('uid-a', 1, 'ip'),
      vtepMac('uid-b', 1, 'ip'),
      vtepMac('uid-a', 2, 'ip'),
      vtepMac('uid-a', 1, 'ip6'),
    ];
    expect(new Set(macs).size).toBe(4);
  });

  test('is a locally administered unicast address', () => {
    for (let i = 0; i < 64; i++) {
      const first = Number.parseInt(vtepMac(`uid-${i}`, 1, 'ip').slice(0, 2), 16);
      expect(first & 0b11).toBe(0b10);
    }
  });
});
