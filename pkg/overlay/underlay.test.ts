import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { chooseUnderlay, type HostLink } from './underlay.ts';

function link(name: string, ...addresses: string[]): HostLink {
  return { name, mtuBytes: 1500, addresses: addresses.map(parsePrefix), onLinkPrefixes: [] };
}

const links = [
  link('lo', '127.0.0.1/8', '::1/128'),
  link('eth0', '172.16.0.5/24'),
  link('eth1', '10.0.0.5/24', '10.0.0.99/24', 'fe80::1/64', 'fd00::5/64'),
];
const eth1 = { ip: parseAddress('10.0.0.5'), ip6: parseAddress('fd00::5') };

describe('chooseUnderlay()', () => {
  test('takes the link that holds the InternalIP, with both families', () => {
    const internalIPs = ['10.0.0.5', 'fd00::5'].map(parseAddress);
    expect(chooseUnderlay(links, { internalIPs, link: undefined })).toMatchObject({
      link: 'eth1',
      addresses: eth1,
    });
  });

  test('takes the InternalIP among several addresses of the link', () => {
    const internalIPs = [parseAddress('10.0.0.99')];
    const choice = chooseUnderlay(links, { internalIPs, link: undefined });
    expect(choice).toMatchObject({ addresses: { ip: parseAddress('10.0.0.99') } });
  });

  test('finds the second family on the link when the Node reports only the first', () => {
    const internalIPs = [parseAddress('10.0.0.5')];
    expect(chooseUnderlay(links, { internalIPs, link: undefined })).toMatchObject({
      addresses: eth1,
    });
  });

  test('takes the link the configuration names, and its first address', () => {
    const internalIPs = [parseAddress('10.0.0.5')];
    expect(chooseUnderlay(links, { internalIPs, link: 'eth0' })).toMatchObject({
      link: 'eth0',
      addresses: { ip: parseAddress('172.16.0.5') },
    });
  });

  test.each([
    [undefined, [], 'Cannot choose a link: the Node has no InternalIP yet'],
    [
      undefined,
      ['10.9.9.9'],
      'Cannot choose a link: none has an InternalIP of the Node (10.9.9.9)',
    ],
    ['eth7', [], 'Cannot find link eth7, which the configuration names'],
  ])('says what is missing (%s, %s)', (name, ips, message) => {
    expect(chooseUnderlay(links, { internalIPs: ips.map(parseAddress), link: name })).toBe(message);
  });
});
