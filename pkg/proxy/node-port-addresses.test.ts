import { expect, it } from 'vitest';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { nodePortTargets } from './node-port-addresses.ts';

const all = ['192.168.0.2', '10.0.0.2', '127.0.0.1', 'fd00::2', '::1'];
const host = { all, primary: '10.0.0.2' };

it.each([
  ['no range', [], 'all'],
  ['only a range of the other family', ['fd00::/8'], 'all'],
  ['a range of everything', ['10.0.0.0/8', '0.0.0.0/0'], 'all'],
  ['one range', ['192.168.0.0/16'], ['192.168.0.2']],
  ['a range with loopback', ['127.0.0.0/8', '10.0.0.0/8'], ['10.0.0.2', '127.0.0.1']],
  ['a range that nothing is in', ['172.16.0.0/12'], []],
])('S130. %s admits %j to %j', (_, ranges, expected) => {
  expect(nodePortTargets(ranges.map(parsePrefix), 'ip', host)).toEqual(expected);
});

it('S130. primary is the node address, and nothing while that is not known', () => {
  expect(nodePortTargets('primary', 'ip', host)).toEqual(['10.0.0.2']);
  expect(nodePortTargets('primary', 'ip', { all, primary: undefined })).toEqual([]);
});
