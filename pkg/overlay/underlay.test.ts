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

  test('stays with the address that others know, whatever the link has got since', () => {
    // The kernel lists new IPv6 addresses before old ones: that of a virtual router, for example.
    const more = [link('eth0', '10.0.0.5/24', 'fd00::99/64', 'fd00::5/64')];
    const internalIPs = [parseAddress('10.0.0.5')];
    const choose = (...announced: string[]): unknown =>
      chooseUnderlay(more, {
        internalIPs,
        link: undefined,
        announced: announced.map(parseAddress),
      });
    const [old, first] = ['fd00::5', 'fd00::99'].map(parseAddress);
    expect(choose('10.0.0.5', 'fd00::5')).toMatchObject({ addresses: { ip6: old } });
    // Not one that has gone; and the Node's own word counts before.
    expect(choose('fd00::77')).toMatchObject({ addresses: { ip6: first } });
    const both = [...internalIPs, parseAddress('fd00::99')];
    const announced = [parseAddress('fd00::5')];
    expect(chooseUnderlay(more, { internalIPs: both, link: undefined, announced })).toMatchObject({
      addresses: { ip6: first },
    });
  });

  test('takes the link the configuration names, and its first address', () => {
    const internalIPs = [parseAddress('10.0.0.5')];
    expect(chooseUnderlay(links, { internalIPs, link: 'eth0' })).toMatchObject({
      link: 'eth0',
      addresses: { ip: parseAddress('172.16.0.5') },
    });
  });

  test('takes no packets’ way out to be the loopback device, but an InternalIP on it', () => {
    // A host that tells routers its address by BGP has it there.
    const lo = link('lo', '127.0.0.1/8', '10.1.1.1/32', 'fd01::1/128');
    const fabric = [lo, ...links.slice(1), link('eth9', 'fe80::9/64')];
    const internalIPs = ['10.1.1.1', 'fd01::1'].map(parseAddress);
    expect(chooseUnderlay(fabric, { internalIPs, link: undefined })).toBe(
      'Cannot choose a link: 10.1.1.1, fd01::1 of the Node are on lo, by which no packet leaves; name the link to other nodes in the configuration (iface)',
    );
    expect(chooseUnderlay(fabric, { internalIPs, link: 'eth9' })).toMatchObject({
      link: 'eth9',
      addresses: { ip: parseAddress('10.1.1.1'), ip6: parseAddress('fd01::1') },
    });
    // Neighbours know a link's own.
    expect(chooseUnderlay(fabric, { internalIPs, link: 'eth1' })).toMatchObject({
      addresses: eth1,
    });
    const [first] = internalIPs;
    const both = [...(first === undefined ? [] : [first]), parseAddress('10.0.0.5')];
    expect(chooseUnderlay(fabric, { internalIPs: both, link: undefined })).toMatchObject({
      link: 'eth1',
      addresses: { ip: parseAddress('10.0.0.5') },
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
