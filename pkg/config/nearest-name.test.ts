import { expect, test } from 'vitest';
import { nearestName } from './nearest-name.ts';

test.each([
  ['bakend', ['vni', 'backend'], 'backend'],
  ['Mode', ['mode'], 'mode'],
  ['mod', ['port', 'mode'], 'mode'],
  ['etcdendpoint', ['endpoints', 'etcd-endpoints'], 'etcd-endpoints'],
  ['x', ['vni'], undefined],
  ['listenPort', ['asNumber', 'reflectors'], undefined],
  ['any', [], undefined],
])('nearestName(%s, %j) is %s', (name, names, nearest) => {
  expect(nearestName(name, names)).toBe(nearest);
});
