/** Which endpoints the traffic of a port may reach, from what slices say of them. */
import { describe, expect, it } from 'vitest';
import type { EndpointRecord } from '#pkg/kube/types.ts';
import type { TrafficPolicy } from './service-port.ts';
import type { CategorizedEndpoints } from './topology.ts';
import { nodeName, p80, service, slice, snapshot } from './testdata/records.ts';

type State = Partial<EndpointRecord>;

/** The endpoints named by their states: 1, 2, … in the order given. */
function categorized(
  states: readonly State[],
  on: {
    readonly zone?: string;
    readonly internal?: TrafficPolicy;
    /** Undefined = the port has no external address. */
    readonly external?: TrafficPolicy;
  } = {},
): { cluster: string; local: string; reachable: string; hasAny: boolean } {
  const endpoints = states.map((state, i) => ({ address: `10.1.0.${i + 1}`, ...state }));
  const port = service('ns1/svc1', {
    type: on.external === undefined ? 'ClusterIP' : 'NodePort',
    clusterIPs: ['172.30.0.41'],
    ports: p80(on.external === undefined ? 0 : 3001),
    internalTrafficPolicy: on.internal ?? 'Cluster',
    externalTrafficPolicy: on.external ?? 'Cluster',
  });
  const cluster = { services: [port], slices: [slice('ns1/svc1', endpoints)] };
  const [found] = snapshot(on.zone === undefined ? cluster : { ...cluster, zone: on.zone }).ports;
  const names = (list: keyof CategorizedEndpoints & ('cluster' | 'local' | 'reachable')): string =>
    found?.endpoints[list].map((e) => e.address.replace('10.1.0.', '')).join(' ') ?? '';
  return {
    cluster: names('cluster'),
    local: names('local'),
    reachable: names('reachable'),
    hasAny: found?.endpoints.hasAny ?? false,
  };
}

const ready: State = {};
const unready: State = { ready: false, serving: false };
const warming: State = { ready: false, serving: true };
const ending: State = { terminating: true };
const dead: State = { terminating: true, serving: false };
const here = (state: State): State => ({ ...state, nodeName });

describe('policy Cluster', () => {
  it.each([
    ['S72. ready ones only, of ready and ending ones', [ready, ending], '1', true],
    ['S73. ending ones that still serve, when none is ready', [unready, ending, dead], '2', true],
    ['S73. wherever they are', [ending, here(ending)], '1 2', true],
    ['S74. S75. none, when all are ending and do not serve', [dead, here(dead)], '', false],
    ['S74. none that are dead beside ending ones', [dead, ending], '2', true],
    ['none, when all are not ready', [unready], '', false],
    ['none that serves but is not ready, and does not end', [warming], '', false],
    ['S78. a ready one elsewhere before an ending one here', [ready, here(ending)], '1', true],
    ['ready ones here and elsewhere alike', [here(ready), ready], '1 2', true],
  ])('%s', (_, states, cluster, hasAny) => {
    for (const external of [undefined, 'Cluster'] as const) {
      const found = categorized(states, external === undefined ? {} : { external });
      expect(found).toEqual({ cluster, local: '', reachable: cluster, hasAny });
    }
  });
});

describe('policy Local', () => {
  const cases = [
    ['S72. ready ones here before ending ones here', [here(ready), here(ending)], '1', true],
    ['S73. ending ones here, when none here is ready', [here(unready), here(ending)], '2', true],
    ['S74. none here that is ending and does not serve', [here(dead), here(ending)], '2', true],
    ['S75. none anywhere', [here(dead), dead], '', false],
    ['S76. ending ones here before ready ones elsewhere', [ready, here(ending)], '2', true],
    ['S77. none, when all that is here is dead', [ready, here(dead)], '', true],
    ['S77. none, when all are elsewhere', [ready, ending], '', true],
    ['none, when only ending ones elsewhere serve', [ending], '', true],
  ] as const;
  it.each(cases)('internal: %s', (_, states, local, hasAny) => {
    const found = categorized(states, { internal: 'Local' });
    // No traffic of this port uses the cluster's list.
    expect(found).toEqual({ cluster: '', local, reachable: local, hasAny });
  });
  it.each(cases)('external: %s', (_, states, local, hasAny) => {
    const found = categorized(states, { external: 'Local' });
    expect(found).toMatchObject({ local, hasAny });
    expect(found.cluster).toBe(categorized(states).cluster);
  });
});

describe('topology hints', () => {
  const zone = (name: string): State => ({ zoneHints: [name] });
  const node = (name: string, zoneName = 'z1'): State => ({
    nodeHints: [name],
    zoneHints: [zoneName],
  });
  it.each([
    ['S79. keep to our zone', 'z1', [zone('z1'), zone('z2')], '1'],
    ['S79. may name several zones', 'z1', [{ zoneHints: ['z2', 'z1'] }, zone('z2')], '1'],
    ['S80. count only if every ready endpoint has one', 'z1', [zone('z1'), {}], '1 2'],
    ['S81. for other zones only are ignored', 'z3', [zone('z1'), zone('z2')], '1 2'],
    ['S82. mean nothing to a node without a zone', undefined, [zone('z1'), zone('z2')], '1 2'],
    ['S83. for our node beat those for our zone', 'z1', [node(nodeName), node('other')], '1'],
    [
      'S83. for our node count without a zone',
      undefined,
      [node(nodeName), node('other'), node(nodeName)],
      '1 3',
    ],
    ['S84. for other nodes fall back to the zone', 'z1', [node('a'), node('b', 'z2')], '1'],
    ['S84. for other nodes and zones fall back to all', 'z3', [node('a'), node('b')], '1 2'],
    [
      'S84. for nodes that one lacks fall back to the zone',
      'z1',
      [node(nodeName), zone('z1')],
      '1 2',
    ],
    ['S85. need not be on one that is not ready', 'z1', [zone('z1'), zone('z2'), unready], '1'],
    ['S85. nor on one that ends', 'z1', [zone('z1'), zone('z2'), ending], '1'],
    ['S88. do not hold for ending endpoints', 'z1', [{ ...zone('z2'), ...ending }], '1'],
    [
      'S88. do not choose among ending endpoints',
      'z1',
      [
        { ...zone('z1'), ...ending },
        { ...zone('z2'), ...ending },
      ],
      '1 2',
    ],
  ])('%s', (_, ownZone, states, expected) => {
    const found = categorized(states, ownZone === undefined ? {} : { zone: ownZone });
    expect(found).toEqual({ cluster: expected, local: '', reachable: expected, hasAny: true });
  });

  it('S86. do not narrow policy Local', () => {
    const states = [here(zone('z2')), here(zone('z2')), zone('z1')];
    expect(categorized(states, { zone: 'z1', internal: 'Local' }).local).toBe('1 2');
  });

  it('S87. narrow the list of policy Cluster beside one of policy Local', () => {
    const states = [zone('z1'), here(zone('z2')), zone('z2')];
    const wanted = { cluster: '1', local: '2', reachable: '1 2', hasAny: true };
    expect(categorized(states, { zone: 'z1', external: 'Local' })).toEqual(wanted);
    expect(categorized(states, { zone: 'z1', internal: 'Local', external: 'Cluster' })).toEqual(
      wanted,
    );
  });
});
