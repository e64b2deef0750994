import { describe, expect, it } from 'vitest';
import { listAt, objectAt, textAt, type Json, type JsonObject } from '#pkg/embedded-api/json.ts';
import type { KubeObject } from '#pkg/embedded-api/object.ts';
import { planSlices, type SliceStep } from './endpoint-slice-plan.ts';
import { endpointGroups } from './pod-endpoints.ts';

function service(spec: JsonObject = {}): KubeObject {
  const metadata = meta('web', { labels: { team: 'x' } });
  const ports = [{ name: '', port: 80, protocol: 'TCP', targetPort: 'http' }];
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata,
    spec: {
      type: 'ClusterIP',
      clusterIP: '10.96.0.2',
      ipFamilies: ['IPv4'],
      selector: { a: 'b' },
      ports,
      ...spec,
    },
  };
}

function meta(name: string, more: JsonObject = {}): KubeObject['metadata'] {
  return {
    name,
    namespace: 'default',
    uid: `uid-${name}`,
    resourceVersion: '1',
    creationTimestamp: '',
    ...more,
  };
}

interface PodWish {
  readonly ips?: readonly string[];
  readonly ready?: boolean;
  readonly port?: number;
  readonly phase?: string;
  readonly metadata?: JsonObject;
  readonly spec?: JsonObject;
}

function pod(name: string, wish: PodWish = {}): KubeObject {
  const { ips = ['10.0.0.1'], ready = true, port = 8080, phase = 'Running' } = wish;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: meta(name, wish.metadata),
    spec: {
      nodeName: 'n1',
      containers: [{ name: 'c', ports: [{ name: 'http', containerPort: port, protocol: 'TCP' }] }],
      ...wish.spec,
    },
    status: {
      phase,
      podIPs: ips.map((ip) => ({ ip })),
      conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }],
    },
  };
}

const zones = (node: string): string => (node === 'n1' ? 'zone-1' : '');

function plan(
  wanted: KubeObject,
  pods: readonly KubeObject[],
  have: readonly KubeObject[] = [],
): readonly SliceStep[] {
  return planSlices(wanted, endpointGroups(wanted, pods, zones), have);
}

/** Slices as they are after the steps, in the order of creation. */
function apply(steps: readonly SliceStep[], have: readonly KubeObject[] = []): KubeObject[] {
  let slices = [...have];
  for (const [i, step] of steps.entries()) {
    if (step.op === 'delete') slices = slices.filter(({ metadata }) => metadata.name !== step.name);
    else if (step.op === 'create') {
      const name = `web-${have.length}-${i}`;
      slices.push({
        ...step.slice,
        metadata: { ...meta(name), ...objectAt(step.slice, 'metadata') },
      } as KubeObject);
    } else {
      const name = textAt(step.slice, 'metadata', 'name');
      slices = slices.map((slice) =>
        slice.metadata.name === name ? (step.slice as KubeObject) : slice,
      );
    }
  }
  return slices;
}

function endpoints(slices: readonly KubeObject[]): readonly Json[] {
  return slices.flatMap((slice) => listAt(slice, 'endpoints'));
}

function addresses(slice: KubeObject | undefined): string[] {
  return listAt(slice, 'endpoints').map((endpoint) => textAt(listAt(endpoint, 'addresses')[0]));
}

describe('endpoints of a Service', () => {
  it('carry address, node, zone, conditions and their Pod', () => {
    const [slice] = apply(plan(service(), [pod('a')]));
    expect(slice).toMatchObject({
      addressType: 'IPv4',
      ports: [{ name: '', port: 8080, protocol: 'TCP' }],
      metadata: {
        generateName: 'web-',
        labels: {
          team: 'x',
          'kubernetes.io/service-name': 'web',
          'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
        },
        ownerReferences: [{ kind: 'Service', name: 'web', uid: 'uid-web', controller: true }],
      },
      endpoints: [
        {
          addresses: ['10.0.0.1'],
          conditions: { ready: true, serving: true, terminating: false },
          nodeName: 'n1',
          zone: 'zone-1',
          targetRef: { kind: 'Pod', name: 'a', namespace: 'default', uid: 'uid-a' },
        },
      ],
    });
  });

  it.each<[string, PodWish, JsonObject, JsonObject]>([
    ['not ready', { ready: false }, {}, { ready: false, serving: false, terminating: false }],
    [
      'terminating',
      { metadata: { deletionTimestamp: 'now' } },
      {},
      { ready: false, serving: true, terminating: true },
    ],
    [
      'not ready but published',
      { ready: false },
      { publishNotReadyAddresses: true },
      { ready: true, serving: false, terminating: false },
    ],
    [
      'terminating but published',
      { metadata: { deletionTimestamp: 'now' } },
      { publishNotReadyAddresses: true },
      { ready: true, serving: true, terminating: true },
    ],
  ])('of a Pod that is %s', (_name, wish, spec, conditions) => {
    expect(endpoints(apply(plan(service(spec), [pod('a', wish)])))).toMatchObject([{ conditions }]);
  });

  it.each<[string, PodWish]>([
    ['has no address', { ips: [] }],
    ['has failed', { phase: 'Failed' }],
    ['has finished', { phase: 'Succeeded' }],
    ['has only the other family', { ips: ['fd00::1'] }],
  ])('leave out a Pod that %s', (_name, wish) => {
    const slices = apply(plan(service(), [pod('a', wish)]));
    expect(slices).toHaveLength(1); // the placeholder
    expect(endpoints(slices)).toEqual([]);
  });

  it('are in a slice for each family', () => {
    const dual = service({ ipFamilies: ['IPv4', 'IPv6'] });
    const slices = apply(plan(dual, [pod('a', { ips: ['10.0.0.1', 'fd00::1'] })]));
    expect(slices.map((slice) => [slice['addressType'], addresses(slice)])).toEqual([
      ['IPv4', ['10.0.0.1']],
      ['IPv6', ['fd00::1']],
    ]);
  });

  it('are apart where one port name has two numbers', () => {
    const slices = apply(plan(service(), [pod('a'), pod('b', { ips: ['10.0.0.2'], port: 9090 })]));
    expect(
      slices.map((slice) => [textAt(listAt(slice, 'ports')[0], 'port'), addresses(slice)]),
    ).toEqual([
      ['8080', ['10.0.0.1']],
      ['9090', ['10.0.0.2']],
    ]);
  });

  it('carry a hostname under the headless Service they name', () => {
    const spec = { hostname: 'db-0', subdomain: 'web' };
    expect(
      endpoints(apply(plan(service({ clusterIP: 'None' }), [pod('a', { spec })]))),
    ).toMatchObject([{ hostname: 'db-0' }]);
    const other = { hostname: 'db-0', subdomain: 'else' };
    const [endpoint] = endpoints(apply(plan(service(), [pod('a', { spec: other })])));
    expect(endpoint).not.toHaveProperty('hostname');
  });
});

describe('planSlices() writes little', () => {
  const many = (count: number): KubeObject[] =>
    Array.from({ length: count }, (_, i) => pod(`p${i}`, { ips: [`10.0.${i >> 8}.${i & 255}`] }));

  it('nothing when nothing changed', () => {
    const slices = apply(plan(service(), many(250)));
    expect(slices.map((slice) => addresses(slice).length)).toEqual([100, 100, 50]);
    expect(plan(service(), many(250), slices)).toEqual([]);
    const empty = apply(plan(service(), []));
    expect(plan(service(), [], empty)).toEqual([]);
  });

  it('one slice when one Pod changes', () => {
    const pods = many(250);
    const slices = apply(plan(service(), pods));
    const changed = pods.with(120, pod('p120', { ips: ['10.0.0.120'], ready: false }));
    const steps = plan(service(), changed, slices);
    expect(steps).toMatchObject([
      { op: 'update', slice: { metadata: { name: slices[1]?.metadata.name } } },
    ]);
    expect(endpoints(apply(steps, slices))).toHaveLength(250);
  });

  it('the last slice when one Pod comes', () => {
    const slices = apply(plan(service(), many(150)));
    const steps = plan(service(), many(151), slices);
    expect(steps).toHaveLength(1);
    expect(apply(steps, slices).map((slice) => addresses(slice).length)).toEqual([100, 51]);
  });

  it('and a new slice when the last is full', () => {
    const slices = apply(plan(service(), many(100)));
    const steps = plan(service(), many(101), slices);
    expect(steps.map((step) => step.op)).toEqual(['create']);
    expect(apply(steps, slices).map((slice) => addresses(slice).length)).toEqual([100, 1]);
  });

  it('deletes slices that empty, and keeps one placeholder', () => {
    const slices = apply(plan(service(), many(150)));
    const gone = apply(plan(service(), many(150).slice(0, 100), slices), slices);
    expect(gone.map((slice) => addresses(slice).length)).toEqual([100]);
    const none = apply(plan(service(), [], gone), gone);
    expect(none.map((slice) => addresses(slice).length)).toEqual([0]);
  });

  it('drops the slices of a family the Service gave up', () => {
    const dual = service({ ipFamilies: ['IPv4', 'IPv6'] });
    const pods = [pod('a', { ips: ['10.0.0.1', 'fd00::1'] })];
    const slices = apply(plan(dual, pods));
    expect(plan(service(), pods, slices)).toEqual([
      { op: 'delete', name: slices[1]?.metadata.name },
    ]);
  });

  it('follows the labels of the Service', () => {
    const slices = apply(plan(service(), [pod('a')]));
    const relabelled: KubeObject = {
      ...service(),
      metadata: meta('web', { labels: { team: 'y' } }),
    };
    expect(plan(relabelled, [pod('a')], slices)).toMatchObject([
      { op: 'update', slice: { metadata: { labels: { team: 'y' } } } },
    ]);
  });
});
