import { describe, expect, test } from 'vitest';
import { formatAddress } from '#pkg/ip/address.ts';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { announce, onlyIp4, peer, self, spell } from './testdata/nodes.ts';
import { udpObjects } from './udp.ts';

const b = {
  ...peer('b', 2),
  announcements: { ip: announce('udp', '192.168.2.2'), ip6: announce('udp', 'fd00:2::2') },
};

describe('udpObjects()', () => {
  test('one TUN device for both families, and where each peer’s packets go', () => {
    const result = udpObjects([b], self, { port: 8285 });
    expect(spell(result.objects)).toEqual([
      'link podwire.udp mtu 1452',
      'addr 10.244.1.0/32 dev podwire.udp',
      'route 10.244.2.0/24 dev podwire.udp',
      'addr fd00:10:244:1::/128 dev podwire.udp',
      'route fd00:10:244:2::/64 dev podwire.udp',
    ]);
    const { link, port, locals, peers } = result.forwarding ?? {};
    expect({ link, port, locals: locals?.map(formatAddress) }).toEqual({
      link: 'podwire.udp',
      port: 8285,
      locals: ['192.168.1.1', 'fd00:1::1'],
    });
    expect(peers?.map((p) => `${formatPrefix(p.podCIDR)} ${formatAddress(p.remote)}`)).toEqual([
      '10.244.2.0/24 192.168.2.2',
      'fd00:10:244:2::/64 fd00:2::2',
    ]);
  });

  test('IPv4 alone leaves pods what flannel leaves them', () => {
    expect(udpObjects([], onlyIp4, { port: 8285 }).mtuBytes).toBe(1472);
  });

  test('a peer of another backend is reported and gets no route', () => {
    const result = udpObjects([peer('b', 2)], onlyIp4, { port: 8285 });
    expect(result.problems).toEqual([
      { node: 'b', message: 'Cannot reach the node by UDP: its agent runs the backend vxlan' },
    ]);
    expect(result.forwarding?.peers).toEqual([]);
  });
});
