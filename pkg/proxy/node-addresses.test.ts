import { expect, it } from 'vitest';
import { nodeAddresses } from './node-addresses.ts';

it.each<[string, string | undefined, readonly string[], string, readonly string[]]>([
  ['nothing is known', undefined, [], 'ip', []],
  ['IPv4 Node', undefined, ['192.168.0.1'], 'ip', ['192.168.0.1']],
  ['IPv6 Node', undefined, ['fd00::1'], 'ip6', ['fd00::1']],
  ['IPv4-first Node', undefined, ['192.168.0.1', 'fd00::1'], 'ip', ['192.168.0.1', 'fd00::1']],
  ['IPv6-first Node', undefined, ['fd00::1', '192.168.0.1'], 'ip6', ['fd00::1', '192.168.0.1']],
  ['configured, Node unknown', '10.0.0.1', [], 'ip', ['10.0.0.1']],
  ['configured beats the Node', '10.0.0.1', ['192.168.0.1'], 'ip', ['10.0.0.1']],
  [
    'configured IPv6 on an IPv4 Node',
    'fd00::2',
    ['192.168.0.1'],
    'ip6',
    ['fd00::2', '192.168.0.1'],
  ],
  [
    'configured IPv4, dual Node',
    '10.0.0.1',
    ['fd00::1', '192.168.0.1'],
    'ip',
    ['10.0.0.1', 'fd00::1'],
  ],
  [
    'old spelling, several of a family',
    undefined,
    ['192.168.000.041', '10.0.0.9', 'x'],
    'ip',
    ['192.168.0.41'],
  ],
])('%s', (...row) => {
  const [, configured, ofNode, primaryFamily, addresses] = row;
  const found = nodeAddresses(configured, ofNode);
  expect(found.primaryFamily).toBe(primaryFamily);
  expect([...found.byFamily.values()]).toEqual(addresses);
});
