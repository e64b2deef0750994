import { expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { describeObject, type HostObject } from './object.ts';
import { splitRetained } from './plan-retained.ts';
import { planHostNetwork } from './plan.ts';
import { describeStep } from './step.ts';

const vxlan: HostObject = {
  kind: 'vxlan',
  link: 'podwire.1',
  vni: 1,
  port: 8472,
  mtuBytes: 1450,
  mac: '02:00:00:00:00:01',
  local: parseAddress('192.0.2.1'),
  underlay: 'eth0',
};
const address: HostObject = {
  kind: 'address',
  link: 'podwire.1',
  prefix: parsePrefix('10.244.1.0/32'),
};
const wrapped: HostObject = {
  kind: 'route',
  destination: parsePrefix('10.244.2.0/24'),
  via: parseAddress('10.244.2.0'),
  link: 'podwire.1',
  onLink: true,
};
const stale: HostObject = { ...wrapped, destination: parsePrefix('10.244.3.0/24') };
const plain: HostObject = {
  kind: 'route',
  destination: parsePrefix('10.244.2.0/24'),
  via: parseAddress('192.0.2.2'),
  link: 'eth0',
  onLink: false,
};
const have = [vxlan, address, wrapped, stale];

test('a device that peers still send to stays with its address; its routes do not', () => {
  const { retained, others } = splitRetained([plain], have, new Set(['vxlan'] as const));
  expect(retained).toEqual([vxlan, address]);
  expect(planHostNetwork([plain], others).map(describeStep)).toEqual([
    `put ${describeObject(plain)} (was ${describeObject(wrapped)})`,
    `delete ${describeObject(stale)}`,
  ]);
});

test('the new route takes the old one’s place before the device goes', () => {
  const { retained, others } = splitRetained([plain], have, new Set());
  expect(retained).toEqual([]);
  expect(planHostNetwork([plain], others).map(describeStep)).toEqual([
    `put ${describeObject(plain)} (was ${describeObject(wrapped)})`,
    `delete ${describeObject(vxlan)}`,
  ]);
});

test('a device that is wanted is not set aside, whatever its kind', () => {
  const { retained } = splitRetained([vxlan], have, new Set(['vxlan'] as const));
  expect(retained).toEqual([]);
});
