import { describe, expect, it } from 'vitest';
import { formatAddress, parseAddress } from '#pkg/ip/address.ts';
import { readIp6, writeIp4, writeIp6 } from './address-text.ts';
import { decodeElementList, encodeElementLists } from './element-list.ts';
import { elementLayout, rangeEnd } from './element-text.ts';

/** What goes to the kernel comes back as the same text. */
function roundTrip(
  elements: { key: string; value: string | undefined }[],
  [type, valueType]: [string, string?],
): unknown {
  const layout = elementLayout(type, valueType);
  // The list's own header is an attribute around its elements.
  return encodeElementLists(elements, layout).flatMap((list) =>
    decodeElementList(list.subarray(4), layout),
  );
}

describe('elements as text', () => {
  it.each([
    ['ipv4_addr', undefined, '10.96.0.10', undefined],
    ['ipv6_addr . inet_proto . inet_service', undefined, 'fd00:96::a . sctp . 65535', undefined],
    [
      'ipv4_addr . inet_proto . inet_service . integer',
      'ipv4_addr . inet_service',
      '10.96.0.10 . tcp . 80 . 65537',
      '10.244.1.5 . 8080',
    ],
    ['inet_proto . inet_service', 'verdict', 'udp . 30053', 'goto somewhere'],
    ['inet_proto . inet_service', 'verdict', '17 . 1', 'jump a-chain'],
    ['ipv4_addr', 'verdict', '192.0.2.1', 'drop'],
    [
      'ipv4_addr . inet_proto . inet_service . ipv4_addr',
      undefined,
      '192.0.2.1 . tcp . 80 . 10.0.0.0/8',
      undefined,
    ],
    ['ipv6_addr . ipv6_addr', undefined, '2001:db8::1 . fd00::/16', undefined],
  ])('%s : %s keeps %s', (type, valueType, key, value) => {
    const back = roundTrip([{ key, value }], valueType === undefined ? [type] : [type, valueType]);
    // A protocol we have a name for is told by name.
    expect(back).toEqual([{ key: key.replace(/^17 /, 'udp '), value }]);
  });

  it('many elements go into several lists, none longer than an attribute can be', () => {
    const elements = Array.from({ length: 5_000 }, (_, i) => ({
      key: `10.96.${i >> 8}.${i & 255}`,
      value: undefined,
    }));
    const lists = encodeElementLists(elements, elementLayout('ipv4_addr', undefined));
    expect(lists.length).toBeGreaterThan(1);
    for (const list of lists) expect(list.byteLength).toBeLessThanOrEqual(65_535);
    expect(roundTrip(elements, ['ipv4_addr'])).toEqual(elements);
  });

  it('a range ends where its prefix does', () => {
    expect(rangeEnd('192.0.2.1 . tcp . 80 . 10.0.0.0/8')).toBe(
      '192.0.2.1 . tcp . 80 . 10.255.255.255',
    );
    expect(rangeEnd('192.0.2.1 . tcp . 80 . 10.0.0.1')).toBeUndefined();
  });

  it.each([
    ['ipv4_addr', '10.0.0'],
    ['ipv4_addr', '10.0.0.x'],
    ['ipv6_addr', '1:2:3'],
    ['inet_service', '65536'],
    ['inet_proto . inet_service', 'tcp'],
  ])('refuses what is no %s: %s', (type, key) => {
    expect(() => roundTrip([{ key, value: undefined }], [type])).toThrow(/Cannot (?:encode|read)/);
  });

  it('knows no other types', () => {
    expect(() => elementLayout('ifname', undefined)).toThrow(
      'Cannot encode elements of type "ifname"',
    );
  });
});

describe('addresses', () => {
  it.each([
    '::',
    '::1',
    'fd00::',
    'fd00:0:1::2',
    '1:2:3:4:5:6:7:8',
    '1:0:0:2::',
    '::ffff:1.2.3.4',
    '1:0:2:3:4:5:6:7',
  ])('%s is written and read as pkg/ip does', (text) => {
    const bytes = new Uint8Array(16);
    writeIp6(text, bytes, 0);
    expect(readIp6(bytes, 0)).toBe(formatAddress(parseAddress(text)));
  });

  it('writes IPv4 where it is told', () => {
    const bytes = new Uint8Array(6);
    writeIp4('192.0.2.255', bytes, 1);
    expect([...bytes]).toEqual([0, 192, 0, 2, 255, 0]);
  });
});
