import { isIP } from 'node:net';
import { describe, expect, it } from 'vitest';
import {
  addressBytes,
  addressFromBytes,
  addressPlus,
  compareAddresses,
  formatAddress,
  parseAddress,
  tryParseAddress,
} from './address.ts';

describe('parseAddress() and formatAddress() agree with RFC 5952', () => {
  it.each([
    ['0.0.0.0', '0.0.0.0'],
    ['255.255.255.255', '255.255.255.255'],
    ['10.0.0.1', '10.0.0.1'],
    ['::', '::'],
    ['::1', '::1'],
    ['fd00:0:0:0:0:0:0:1', 'fd00::1'],
    ['FD00::ABCD', 'fd00::abcd'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
    ['::ffff:10.0.0.1', '::ffff:a00:1'],
  ])('%s is written %s', (text, canonical) => {
    expect(formatAddress(parseAddress(text))).toBe(canonical);
  });
});

describe('parseAddress() refuses', () => {
  it.each([
    '',
    '10.0.0',
    '10.0.0.256',
    '010.0.0.1',
    '10.0.0.1 ',
    '1.2.3.4.5',
    '0x10.0.0.1',
    ':',
    ':::',
    '1::2::3',
    'fd00::1%eth0',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7:8::',
    '12345::',
    'fd00:1.2.3.4::1',
    '::1.2.3',
  ])('%j', (text) => {
    expect(isIP(text.replace('%eth0', '')) === 0 || text.includes('%')).toBe(true);
    expect(tryParseAddress(text)).toBeUndefined();
    expect(() => parseAddress(text)).toThrow(/Cannot read IP address/);
  });
});

it('addressBytes() and addressFromBytes() are inverse', () => {
  for (const text of ['192.0.2.255', '2001:db8::ff:1']) {
    const address = parseAddress(text);
    expect(addressFromBytes(addressBytes(address))).toEqual(address);
  }
  expect([...addressBytes(parseAddress('1.2.3.4'))]).toEqual([1, 2, 3, 4]);
  expect(() => addressFromBytes(new Uint8Array(5))).toThrow(/got 5/);
});

it('addressPlus() carries over byte borders', () => {
  expect(formatAddress(addressPlus(parseAddress('10.0.0.255'), 1))).toBe('10.0.1.0');
  expect(formatAddress(addressPlus(parseAddress('fd00::ffff'), 1))).toBe('fd00::1:0');
});

it('compareAddresses() sorts IPv4 first, then by number', () => {
  const sorted = ['fd00::1', '10.0.0.10', '10.0.0.9'].map(parseAddress).toSorted(compareAddresses);
  expect(sorted.map(formatAddress)).toEqual(['10.0.0.9', '10.0.0.10', 'fd00::1']);
});
