import { describe, expect, it } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import type { VxlanLink } from './device.ts';
import type { FdbEntry, HostObject, LinkAddress, Neighbor, Route, Sysctl } from './object.ts';
import { planHostNetwork } from './plan.ts';
import { describeStep } from './step.ts';

const device: VxlanLink = {
  kind: 'vxlan',
  link: 'podwire.1',
  vni: 1,
  port: 8472,
  mtuBytes: 1450,
  mac: '02:00:00:00:00:01',
  local: parseAddress('192.0.2.1'),
  underlay: 'eth0',
};
const address: LinkAddress = {
  kind: 'address',
  link: 'podwire.1',
  prefix: parsePrefix('10.244.1.0/32'),
};
const neighbor: Neighbor = {
  kind: 'neighbor',
  link: 'podwire.1',
  address: parseAddress('10.244.2.0'),
  mac: '02:00:00:00:00:02',
};
const fdb: FdbEntry = {
  kind: 'fdb',
  link: 'podwire.1',
  mac: '02:00:00:00:00:02',
  remote: parseAddress('192.0.2.2'),
};
const route: Route = {
  kind: 'route',
  destination: parsePrefix('10.244.2.0/24'),
  via: parseAddress('10.244.2.0'),
  link: 'podwire.1',
  onLink: true,
};
const direct: Route = { ...route, via: parseAddress('192.0.2.2'), link: 'eth0', onLink: false };
const sysctl: Sysctl = {
  kind: 'sysctl',
  path: 'net/ipv6/conf/podwire.1/accept_ra',
  value: '0',
  optional: false,
};
const all: readonly HostObject[] = [route, fdb, neighbor, sysctl, address, device];

/** Kind and verb only: "put fdb". */
function outline(want: readonly HostObject[], have: readonly HostObject[]): string[] {
  return planHostNetwork(want, have).map(({ op, object }) => `${op} ${object.kind}`);
}

describe('planHostNetwork()', () => {
  it('does nothing when the kernel has what is wanted', () => {
    expect(planHostNetwork(all, all.toReversed())).toEqual([]);
    expect(planHostNetwork([], [])).toEqual([]);
  });

  it('puts what others need first', () => {
    expect(outline(all, [])).toEqual([
      'put vxlan',
      'put sysctl',
      'put address',
      'put neighbor',
      'put fdb',
      'put route',
    ]);
  });

  it('keeps the order of wanted objects of one kind', () => {
    const second = { ...sysctl, path: 'net/ipv4/ip_forward' };
    const paths = planHostNetwork([second, sysctl], []).map(({ object }) => object);
    expect(paths).toEqual([second, sysctl]);
  });

  it('deletes last, in reverse, and leaves sysctls as they are', () => {
    const other = { ...direct, destination: parsePrefix('10.244.9.0/24') };
    expect(outline([device, other], all)).toEqual([
      'put route',
      'delete route',
      'delete fdb',
      'delete neighbor',
      'delete address',
    ]);
  });

  it('deletes a device without what goes with it', () => {
    expect(outline([], all)).toEqual(['delete vxlan']);
  });

  it('moves a route to another link before its device goes', () => {
    expect(planHostNetwork([direct], [device, route, neighbor]).map(describeStep)).toEqual([
      'put route 10.244.2.0/24 via 192.0.2.2 on eth0 (was route 10.244.2.0/24 via 10.244.2.0 on podwire.1 onlink)',
      expect.stringMatching(/^delete vxlan podwire\.1 /),
    ]);
  });

  it('changes what can be changed with one put', () => {
    const moved = { ...fdb, remote: parseAddress('192.0.2.9') };
    expect(planHostNetwork([device, moved], [device, fdb])).toEqual([
      { op: 'put', object: moved, replaces: fdb },
    ]);
    const renamed = { ...neighbor, mac: '02:00:00:00:00:09' };
    expect(planHostNetwork([device, renamed], [device, neighbor])).toEqual([
      { op: 'put', object: renamed, replaces: neighbor },
    ]);
  });

  it.each<[string, Partial<VxlanLink>]>([
    ['another VNI', { vni: 2 }],
    ['another port', { port: 4789 }],
    ['another local address', { local: parseAddress('192.0.2.9') }],
    ['another underlay', { underlay: 'eth1' }],
    ['learning on', { defects: ['learning'] }],
  ])('makes a device anew that has %s, with all that lived on it', (_, difference) => {
    expect(outline(all, [{ ...device, ...difference }, ...all.slice(0, -1)])).toEqual([
      'delete vxlan',
      'put vxlan',
      'put sysctl',
      'put address',
      'put neighbor',
      'put fdb',
      'put route',
    ]);
  });

  it.each<[string, Partial<VxlanLink>]>([
    ['has another MTU', { mtuBytes: 1400 }],
    ['is down', { defects: ['down'] }],
  ])('changes a device in place that %s', (_, difference) => {
    const have = all.map((object) => (object === device ? { ...device, ...difference } : object));
    expect(outline(all, have)).toEqual(['put vxlan']);
  });

  it('sets neighbours again when their device gets another MAC address', () => {
    const have = all.map((o) => (o === device ? { ...device, mac: '02:aa:00:00:00:01' } : o));
    expect(outline(all, have)).toEqual(['put vxlan', 'put neighbor']);
  });

  it('deletes a device first when it has the VNI and port of a wanted one', () => {
    const old = { ...device, link: 'podwire.old' };
    expect(planHostNetwork([device], [old]).map(({ op, object }) => [op, object])).toEqual([
      ['delete', old],
      ['put', device],
    ]);
    const other = { ...old, local: parseAddress('fd00::1') };
    expect(outline([device], [other])).toEqual(['put vxlan', 'delete vxlan']);
  });

  it('leaves one of several next hops', () => {
    const second = { ...route, via: parseAddress('10.244.7.7') };
    expect(planHostNetwork([device, route], [device, second, route])).toEqual([
      { op: 'put', object: route, replaces: second },
    ]);
    expect(planHostNetwork([device, route], [device, route, second])).toEqual([
      { op: 'put', object: route, replaces: route },
      { op: 'delete', object: second },
    ]);
  });

  it('tells routes with different metrics apart', () => {
    expect(outline([route], [{ ...route, metric: 5 }])).toEqual(['put route', 'delete route']);
  });

  it('does without an optional sysctl the kernel does not have', () => {
    const missing: Sysctl = { ...sysctl, value: '', missing: true };
    expect(outline([{ ...sysctl, optional: true }], [missing])).toEqual([]);
    expect(outline([sysctl], [missing])).toEqual(['put sysctl']);
  });

  it('names both of two objects that exclude each other', () => {
    expect(() => planHostNetwork([route, direct], [])).toThrow(
      'Cannot plan the host network: both route 10.244.2.0/24 via 10.244.2.0 on podwire.1 onlink ' +
        'and route 10.244.2.0/24 via 192.0.2.2 on eth0 are wanted',
    );
  });
});
