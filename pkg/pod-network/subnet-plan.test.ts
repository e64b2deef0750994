import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { formatPrefix, parsePrefix } from '#pkg/ip/prefix.ts';
import { isInRange, pickSubnet, planSubnets } from './subnet-plan.ts';

function plan(network: string, wish: { length?: number; min?: string; max?: string } = {}) {
  const address = (text: string | undefined) =>
    text === undefined ? undefined : parseAddress(text);
  return planSubnets({
    network: parsePrefix(network),
    length: wish.length,
    min: address(wish.min),
    max: address(wish.max),
  });
}

describe('planSubnets()', () => {
  test.each([
    ['10.3.0.0/16', '10.3.1.0/24', '10.3.255.0/24'],
    ['10.3.0.0/22', '10.3.1.0/24', '10.3.3.0/24'],
    ['10.3.0.0/23', '10.3.0.128/25', '10.3.1.128/25'],
    ['10.3.0.0/28', '10.3.0.4/30', '10.3.0.12/30'],
    ['fd00:3::/48', 'fd00:3:0:1::/64', 'fd00:3:0:ffff::/64'],
    ['fd00:3::/62', 'fd00:3:0:1::/64', 'fd00:3:0:3::/64'],
    ['fd00:3::/64', 'fd00:3:0:0:4000::/66', 'fd00:3:0:0:c000::/66'],
  ])('125. 126. %s: from %s to %s', (network, first, last) => {
    const range = plan(network);
    expect([range.first, range.last].map(formatPrefix)).toEqual([first, last]);
  });

  test('126. takes length, first and last as configured', () => {
    const range = plan('10.3.0.0/16', { length: 28, min: '10.3.5.16', max: '10.3.5.48' });
    expect([range.first, range.last].map(formatPrefix)).toEqual(['10.3.5.16/28', '10.3.5.48/28']);
  });

  test.each([
    ['10.3.0.0/29', {}, 'Network 10.3.0.0/29 is too small for four subnets'],
    ['10.3.0.0/16', { length: 31 }, 'SubnetLen 31: expected at most 30'],
    ['10.3.0.0/24', { length: 25 }, 'SubnetLen 25: Network 10.3.0.0/24 must have room'],
    ['10.3.0.0/16', { min: '10.4.0.0' }, 'SubnetMin 10.4.0.0 is not in Network 10.3.0.0/16'],
    ['10.3.0.0/16', { max: '10.3.1.1' }, 'SubnetMax 10.3.1.1 is not the first address of a /24'],
    ['10.3.0.0/16', { min: '10.3.9.0', max: '10.3.8.0' }, 'SubnetMin 10.3.9.0 is behind SubnetMax'],
    ['fd00:3::/125', {}, 'IPv6Network fd00:3::/125 is too small'],
    ['fd00:3::/48', { length: 127 }, 'IPv6SubnetLen 127: expected at most 126'],
  ])('126. refuses %s %j', (network, wish, message) => {
    expect(() => plan(network, wish)).toThrow(message);
  });
});

test('isInRange() asks for length and place', () => {
  const range = plan('10.3.0.0/16', { min: '10.3.2.0' });
  expect(isInRange(range, parsePrefix('10.3.2.0/24'))).toBe(true);
  expect(isInRange(range, parsePrefix('10.3.1.0/24'))).toBe(false);
  expect(isInRange(range, parsePrefix('10.3.2.0/25'))).toBe(false);
  expect(isInRange(range, parsePrefix('fd00::/24'))).toBe(false);
});

describe('pickSubnet()', () => {
  const pick = (network: string, taken: readonly string[], random = 0): string | undefined => {
    const subnet = pickSubnet(plan(network), taken.map(parsePrefix), () => random);
    return subnet === undefined ? undefined : formatPrefix(subnet);
  };

  test.each([
    ['nothing is taken', [], '10.3.1.0/24'],
    ['the first is taken', ['10.3.1.0/24'], '10.3.2.0/24'],
    ['a part of the first is taken', ['10.3.1.128/25'], '10.3.2.0/24'],
    ['more than one is taken at once', ['10.3.0.0/22'], '10.3.4.0/24'],
    ['one lies in another', ['10.3.0.0/22', '10.3.1.0/24', '10.3.4.0/24'], '10.3.5.0/24'],
    ['only the other family is taken', ['fd00::/8'], '10.3.1.0/24'],
  ])('when %s', (_, taken, subnet) => {
    expect(pick('10.3.0.0/16', taken)).toBe(subnet);
  });

  test('one of the first hundred', () => {
    expect(pick('10.3.0.0/16', [], 0.999)).toBe('10.3.100.0/24');
  });

  test('none when all are taken', () => {
    expect(pick('10.3.0.0/22', ['10.3.1.0/24', '10.3.2.0/24', '10.3.3.0/24'])).toBeUndefined();
  });
});
