import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { wishedLink, type LinkWishes } from './link-choice.ts';

function link(name: string, ...addresses: readonly string[]) {
  return { name, mtuBytes: 1500, addresses: addresses.map(parsePrefix), onLinkPrefixes: [] };
}

const links = [
  link('lo', '127.0.0.1/8', '::1/128'),
  link('ens3', '10.0.0.5/24', 'fd00::5/64'),
  link('ens4', '192.168.7.5/24'),
  link('bond0', '172.16.0.5/16'),
];

function choose(wishes: Partial<LinkWishes>, routed?: string): unknown {
  const all = { links: [], patterns: [], canReach: undefined, ...wishes };
  return wishedLink(links, all, () => routed);
}

describe('wishedLink()', () => {
  test.each<[string, Partial<LinkWishes>, string]>([
    ['a name', { links: ['ens4'] }, 'ens4'],
    ['the first of several names that is there', { links: ['eth0', 'bond0', 'ens3'] }, 'bond0'],
    ['an IPv4 address', { links: ['192.168.7.5'] }, 'ens4'],
    ['an IPv6 address', { links: ['fd00::5'] }, 'ens3'],
    ['a part of a name', { patterns: ['^ens'] }, 'ens3'],
    ['a part of an address', { patterns: [String.raw`^192\.168\.`] }, 'ens4'],
    ['the first pattern that fits', { patterns: ['^wg', '^bond'] }, 'bond0'],
    ['names before patterns', { links: ['bond0'], patterns: ['^ens'] }, 'bond0'],
    ['patterns when no name fits', { links: ['eth0'], patterns: ['^ens'] }, 'ens3'],
  ])('130. by %s', (_, wishes, name) => {
    expect(choose(wishes)).toEqual({ link: name });
  });

  test('130. by the way to an address, when nothing else fits', () => {
    const canReach = parseAddress('203.0.113.1');
    expect(choose({ canReach }, 'ens4')).toEqual({ link: 'ens4' });
    expect(choose({ canReach, links: ['bond0'] }, 'ens4')).toEqual({ link: 'bond0' });
  });

  test('130. says what was asked for and what there is, when nothing fits', () => {
    const canReach = parseAddress('203.0.113.1');
    expect(choose({ links: ['eth0'], patterns: ['^wg'], canReach })).toBe(
      'Cannot find a link: none is or has eth0 or /^wg/ or a route to 203.0.113.1, which the configuration asks for; there are lo, ens3, ens4, bond0',
    );
  });

  test('says nothing when nothing is asked for', () => {
    expect(choose({})).toBeUndefined();
  });
});
