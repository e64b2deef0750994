import { describe, expect, it } from 'vitest';
import { formatAddress, parseAddress } from './address.ts';
import {
  containsAddress,
  containsPrefix,
  formatPrefix,
  hostPrefix,
  lastAddress,
  networkOf,
  parsePrefix,
  prefixesOverlap,
  samePrefix,
  tryParsePrefix,
} from './prefix.ts';

it('parsePrefix() keeps host bits, networkOf() drops them', () => {
  const prefix = parsePrefix('10.244.1.5/24');
  expect(formatPrefix(prefix)).toBe('10.244.1.5/24');
  expect(formatPrefix(networkOf(prefix))).toBe('10.244.1.0/24');
  expect(formatPrefix(networkOf(parsePrefix('fd00:1:2::9/48')))).toBe('fd00:1:2::/48');
  expect(formatAddress(lastAddress(prefix))).toBe('10.244.1.255');
});

it.each([
  '',
  '/24',
  '10.0.0.0',
  '10.0.0.0/',
  '10.0.0.0/33',
  '10.0.0.0/024',
  'fd00::/129',
  '10.0.0.0/-1',
])('parsePrefix() refuses %j', (text) => {
  expect(tryParsePrefix(text)).toBeUndefined();
  expect(() => parsePrefix(text)).toThrow(/Cannot read prefix/);
});

describe('containment', () => {
  it.each([
    ['10.0.0.0/8', '10.255.0.1', true],
    ['10.0.0.0/8', '11.0.0.1', false],
    ['0.0.0.0/0', '11.0.0.1', true],
    ['0.0.0.0/0', 'fd00::1', false],
    ['fd00::/64', 'fd00::ffff', true],
    ['fd00::1/128', 'fd00::2', false],
  ])('containsAddress(%s, %s) is %s', (prefix, address, expected) => {
    expect(containsAddress(parsePrefix(prefix), parseAddress(address))).toBe(expected);
  });

  it('containsPrefix() and prefixesOverlap() compare whole prefixes', () => {
    const [wide, narrow, other] = ['10.0.0.0/8', '10.1.0.0/16', '10.1.0.0/24'].map(parsePrefix);
    if (wide === undefined || narrow === undefined || other === undefined)
      throw new Error('unreachable');
    expect(containsPrefix(wide, narrow)).toBe(true);
    expect(containsPrefix(narrow, wide)).toBe(false);
    expect(prefixesOverlap(other, wide)).toBe(true);
    expect(prefixesOverlap(other, parsePrefix('10.2.0.0/24'))).toBe(false);
    expect(samePrefix(hostPrefix(parseAddress('10.0.0.1')), parsePrefix('10.0.0.1/32'))).toBe(true);
  });
});
