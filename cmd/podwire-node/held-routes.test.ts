import { expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import type { Step } from '#pkg/host-network/step.ts';
import { HeldRoutes } from './held-routes.ts';

function route(destination: string) {
  const to = parsePrefix(destination);
  const via = parseAddress('192.168.1.2');
  return { kind: 'route', destination: to, via, link: 'eth0', onLink: false } as const;
}

const neighbor = {
  kind: 'neighbor',
  link: 'podwire.1',
  address: parseAddress('10.244.3.0'),
  mac: '02:00:00:00:00:01',
} as const;
const held = new HeldRoutes([neighbor, route('10.244.3.0/24')]);

test('knows the routes that were put', () => {
  expect(held.hasRouteTo(parsePrefix('10.244.3.0/24'))).toBe(true);
  expect(held.hasRouteTo(parsePrefix('10.244.3.0/25'))).toBe(false);
  expect(held.hasRouteTo(parsePrefix('10.244.4.0/24'))).toBe(false);
});

test('puts those, and no others, over what took their place', () => {
  const put = (object: Step['object']): Step => ({ op: 'put', object, replaces: undefined });
  const gone: Step = { op: 'delete', object: route('10.244.3.0/24') };
  const again = put(route('10.244.3.0/24'));
  const others = [put(route('10.244.4.0/24')), put(neighbor), gone];
  expect(held.reclaim([again, ...others])).toEqual([
    { ...again, replaces: again.object },
    ...others,
  ]);
});

test('follows what is put and deleted later', () => {
  const later = new HeldRoutes([route('10.244.3.0/24')]);
  later.note([
    { op: 'put', object: route('10.244.4.0/24'), replaces: undefined },
    { op: 'delete', object: route('10.244.3.0/24') },
    { op: 'delete', object: neighbor },
  ]);
  expect(later.hasRouteTo(parsePrefix('10.244.3.0/24'))).toBe(false);
  expect(later.hasRouteTo(parsePrefix('10.244.4.0/24'))).toBe(true);
});
