import { expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { announceAs, parseAddressWishes } from './address-wishes.ts';

test('136. reads what people set, each family by itself', () => {
  const annotations = {
    'x/public-ip-overwrite': '203.0.113.9',
    'x/node-public-ip': '10.0.0.5',
    'x/node-public-ipv6': 'fd00::5',
    'y/public-ipv6-overwrite': '2001:db8::9',
  };
  expect(parseAddressWishes(annotations, 'x/')).toEqual({
    local: { ip: parseAddress('10.0.0.5'), ip6: parseAddress('fd00::5') },
    announced: { ip: parseAddress('203.0.113.9') },
    problems: [],
  });
});

test.each([
  ['x/public-ip-overwrite', 'fd00::1', 'IPv4'],
  ['x/public-ipv6-overwrite', '1.2.3.4', 'IPv6'],
  ['x/node-public-ip', 'node1', 'IPv4'],
])('names annotation %s when it is %s', (key, text, expected) => {
  const { problems, ...rest } = parseAddressWishes({ [key]: text }, 'x/');
  expect(rest).toEqual({ local: {}, announced: {} });
  expect(problems).toEqual([
    `Cannot use annotation ${key} "${text}": expected an ${expected} address`,
  ]);
});

test('136. the announced address is the one set, the rest stays', () => {
  const vtep = { vni: 1, mac: '02:00:00:00:00:01' };
  const ip = { backend: 'vxlan', publicIP: parseAddress('10.0.0.5'), vtep };
  const ip6 = { backend: 'vxlan', publicIP: parseAddress('fd00::5') };
  expect(announceAs({ ip, ip6 }, { ip: parseAddress('203.0.113.9') })).toEqual({
    ip: { ...ip, publicIP: parseAddress('203.0.113.9') },
    ip6,
  });
});
