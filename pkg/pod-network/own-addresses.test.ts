import { expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { ownAddresses } from './own-addresses.ts';

const addresses = ['192.168.1.1/24', 'fd00::99/64', 'fd00::1/64'].map(parsePrefix);
const host = {
  links: [{ name: 'eth0', mtuBytes: 1500, addresses, onLinkPrefixes: [] }],
  defaultLinks: ['eth0'],
};
const wishes = { links: [], patterns: [], canReach: undefined };
const ip = parseAddress('192.168.1.1');

test.each([
  ['fd00::1', 'fd00::1'],
  ['fd00::7', 'fd00::99'],
])('a host that was known as %s is known as %s', (before, after) => {
  expect(ownAddresses(host, wishes, { ip6: parseAddress(before) })).toEqual({
    ip,
    ip6: parseAddress(after),
  });
});
