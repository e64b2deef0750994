import { describe, expect, test } from 'vitest';
import { parseNetConf } from '#pkg/config/net-conf.ts';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { subnetsOf } from './open-etcd-source.ts';

function firstSubnets(netConf: object): readonly string[] {
  const { ip, ip6 } = subnetsOf(parseNetConf(JSON.stringify(netConf), 'the test'));
  return [ip, ip6 ?? []].flat().map(({ first }) => formatPrefix(first));
}

const [Network, IPv6Network] = ['10.3.0.0/16', 'fd00:3::/48'];

describe('subnetsOf()', () => {
  test.each([
    [{ Network }, ['10.3.1.0/24']],
    // flannel ignores the network of a family that is off.
    [{ Network, IPv6Network }, ['10.3.1.0/24']],
    [{ Network, IPv6Network, EnableIPv6: true }, ['10.3.1.0/24', 'fd00:3:0:1::/64']],
    // As flannel takes what a template leaves empty.
    [{ Network, SubnetLen: 0, SubnetMin: '0.0.0.0', SubnetMax: '0.0.0.0' }, ['10.3.1.0/24']],
    [
      { Network, IPv6Network, EnableIPv6: true, IPv6SubnetLen: 0, IPv6SubnetMin: '::' },
      ['10.3.1.0/24', 'fd00:3:0:1::/64'],
    ],
  ])('125. %j: from %j', (netConf, first) => {
    expect(firstSubnets(netConf)).toEqual(first);
  });

  test.each([
    [{ IPv6Network, EnableIPv6: true }, /expected Network, .*IPv6 alone takes nodes from Kube/],
    [{ Network, IPv6Network, EnableIPv4: false, EnableIPv6: true }, /EnableIPv4 not false/],
    [{ Network, EnableIPv6: true }, /EnableIPv6 needs IPv6Network/],
  ])('126. refuses %j', (netConf, message) => {
    expect(() => subnetsOf(parseNetConf(JSON.stringify(netConf), 'the test'))).toThrow(message);
  });
});
