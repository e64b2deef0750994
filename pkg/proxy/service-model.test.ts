import { describe, expect, it } from 'vitest';
import { objectKey, type EndpointSliceRecord } from '#pkg/kube/types.ts';
import type { ProxiedPort } from './proxied-port.ts';
import { ServiceModel, type ModelInput, type PortChange } from './service-model.ts';
import { asChanges, endpoint, nodeName, service, slice, snapshot } from './testdata/records.ts';

const targets = (cluster: Parameters<typeof snapshot>[0]): string =>
  snapshot(cluster)
    .ports.map((p) => `${p.printName} ${p.endpoints.cluster.map((e) => e.target).join(' ')}`)
    .join('\n');
const svc = service('ns1/svc1', { clusterIPs: ['172.30.0.41'] });

describe('what is served', () => {
  it.each([
    ['headless', service('ns1/svc1', { clusterIPs: ['None'] })],
    ['without an address yet', service('ns1/svc1', { clusterIPs: [] })],
    [
      'ExternalName, though it kept an address',
      service('ns1/svc1', { type: 'ExternalName', clusterIPs: ['172.30.0.41'] }),
    ],
    ['of the other family', service('ns1/svc1', { clusterIPs: ['fd00::1'] })],
  ])('not a Service that is %s', (_, s) => {
    expect(snapshot({ services: [s] })).toMatchObject({ ports: [], problems: [] });
  });

  it('the unnamed port is printed without a colon', () => {
    const ports = [{ name: '', protocol: 'TCP', port: 80, nodePort: 0 }] as const;
    expect(targets({ services: [{ ...svc, ports }] })).toBe('ns1/svc1 ');
  });

  it('addresses with leading zeros are read as decimal', () => {
    const old = service('ns1/svc1', {
      clusterIPs: ['172.30.0.041'],
      externalIPs: ['192.168.099.011'],
    });
    const found = snapshot({ services: [old], slices: [slice('ns1/svc1', ['10.180.000.001'])] });
    expect(found.ports[0]).toMatchObject({
      clusterIP: '172.30.0.41',
      externalIPs: ['192.168.99.11'],
      endpoints: { cluster: [{ target: '10.180.0.1:80' }] },
    });
  });
});

describe('endpoints', () => {
  it('of all slices are merged and sorted; order of arrival does not matter', () => {
    const one = slice('ns1/svc1', ['10.1.0.3', '10.1.0.1'], { name: 'a' });
    const two = slice('ns1/svc1', ['10.1.0.2'], { name: 'b' });
    const expected = 'ns1/svc1:p80 10.1.0.1:80 10.1.0.2:80 10.1.0.3:80';
    expect(targets({ services: [svc], slices: [one, two] })).toBe(expected);
    expect(targets({ services: [svc], slices: [two, one] })).toBe(expected);
  });

  it('a target that is ready in one slice and ending in another counts as ready', () => {
    const ready = slice('ns1/svc1', ['10.1.0.1'], { name: 'a' });
    const ending = slice('ns1/svc1', [{ address: '10.1.0.1', terminating: true }], { name: 'b' });
    for (const slices of [
      [ready, ending],
      [ending, ready],
    ]) {
      const [port] = snapshot({ services: [svc], slices }).ports;
      expect(port?.endpoints.cluster).toMatchObject([{ target: '10.1.0.1:80', ready: true }]);
    }
  });

  it.each([
    ['other family', { addressType: 'IPv6' }],
    ['names', { addressType: 'FQDN' }],
    ['no Service', { serviceName: '' }],
    ['another port name', { ports: [{ name: 'other', protocol: 'TCP', port: 80 }] }],
    ['another protocol', { ports: [{ name: 'p80', protocol: 'UDP', port: 80 }] }],
  ] as const)('slices of %s are not used', (_, fields) => {
    const slices = [slice('ns1/svc1', ['10.1.0.1'], fields)];
    expect(targets({ services: [svc], slices })).toBe('ns1/svc1:p80 ');
  });
});

describe('which endpoints take traffic', () => {
  const here = { nodeName };
  const ending = { terminating: true };
  const dead = { terminating: true, serving: false };
  const unready = { ready: false, serving: false };
  it.each([
    ['ready ones before ending ones', [{}, ending], '1'],
    ['ending ones that still serve, when none is ready', [unready, ending, dead], '2'],
    ['none, when all are ending and do not serve', [dead, dead], ''],
    ['none, when all are not ready', [unready], ''],
    ['those here before those elsewhere only under policy Local', [here, {}], '1 2'],
  ])('%s', (_, states, expected) => {
    const endpoints = states.map((state, i) => ({ address: `10.1.0.${i + 1}`, ...state }));
    const text = targets({ services: [svc], slices: [slice('ns1/svc1', endpoints)] });
    const wanted = expected.split(' ').map((n) => (n === '' ? '' : `10.1.0.${n}:80`));
    expect(text).toBe(`ns1/svc1:p80 ${wanted.join(' ')}`);
  });

  it('policy Local falls back to ending ones here, not to ready ones elsewhere', () => {
    const local = { ...svc, internalTrafficPolicy: 'Local' } as const;
    const find = (states: object[]): unknown => {
      const endpoints = states.map((state, i) => ({ address: `10.1.0.${i + 1}`, ...state }));
      const slices = [slice('ns1/svc1', endpoints)];
      const [port] = snapshot({ services: [local], slices }).ports;
      return { local: port?.endpoints.local.map((e) => e.address), any: port?.endpoints.hasAny };
    };
    expect(find([{}, { ...here, ...ending }])).toEqual({ local: ['10.1.0.2'], any: true });
    expect(find([{}, { ...here, ...dead }])).toEqual({ local: [], any: true });
    expect(find([{ ...here, ...dead }])).toEqual({ local: [], any: false });
  });
});

describe('topology hints', () => {
  const zone = (name: string): object => ({ zoneHints: [name] });
  const node = (name: string): object => ({ nodeHints: [name], zoneHints: ['z1'] });
  it.each([
    ['keep to our zone', 'z1', [zone('z1'), zone('z2')], '1'],
    ['count only if every ready endpoint has one', 'z1', [zone('z1'), {}], '1 2'],
    [
      'of an endpoint that is not ready do not count',
      'z1',
      [zone('z1'), zone('z2'), { ready: false }],
      '1',
    ],
    ['for other zones only are ignored', 'z3', [zone('z1'), zone('z2')], '1 2'],
    ['mean nothing to a node without a zone', undefined, [zone('z1'), zone('z2')], '1 2'],
    ['for our node beat those for our zone', 'z1', [node(nodeName), node('other')], '1'],
    ['for other nodes fall back to the zone', 'z1', [node('a'), node('b')], '1 2'],
    ['do not hold for ending endpoints', 'z1', [{ ...zone('z2'), terminating: true }], '1'],
  ])('%s', (_, ownZone, states, expected) => {
    const endpoints = states.map((state, i) => ({ address: `10.1.0.${i + 1}`, ...state }));
    const cluster = { services: [svc], slices: [slice('ns1/svc1', endpoints)] };
    const text = targets(ownZone === undefined ? cluster : { ...cluster, zone: ownZone });
    const wanted = expected.split(' ').map((n) => `10.1.0.${n}:80`);
    expect(text).toBe(`ns1/svc1:p80 ${wanted.join(' ')}`);
  });

  it('do not narrow policy Local; what can be reached is both lists together', () => {
    const both = service('ns1/svc1', {
      type: 'NodePort',
      clusterIPs: ['172.30.0.41'],
      externalTrafficPolicy: 'Local',
      ports: [{ name: 'p80', protocol: 'TCP', port: 80, nodePort: 3001 }],
    });
    const endpoints = [
      { address: '10.1.0.1', zoneHints: ['z1'] },
      { address: '10.1.0.2', zoneHints: ['z2'], nodeName },
    ];
    const cluster = { services: [both], slices: [slice('ns1/svc1', endpoints)], zone: 'z1' };
    expect(snapshot(cluster).ports[0]?.endpoints).toMatchObject({
      cluster: [{ address: '10.1.0.1' }],
      local: [{ address: '10.1.0.2' }],
      reachable: [{ address: '10.1.0.1' }, { address: '10.1.0.2' }],
    });
  });
});

describe('a bad object costs only itself', () => {
  it('a Service with a nonsense address is reported, its neighbours are served', () => {
    const bad = service('ns1/bad', { clusterIPs: ['172.30.0.999'], ipFamilies: ['IPv4'] });
    const found = snapshot({ services: [bad, svc] });
    expect(found.ports.map((p) => p.printName)).toEqual(['ns1/svc1:p80']);
    expect(found.problems).toEqual([
      { kind: 'Service', object: 'ns1/bad', problem: 'clusterIP "172.30.0.999" is no IP address' },
    ]);
  });

  it('one bad endpoint, port or external address is left out, the rest of its object is used', () => {
    const found = snapshot({
      services: [
        {
          ...svc,
          externalIPs: ['nonsense', '192.0.2.1'],
          ports: [...svc.ports, { name: 'big', protocol: 'TCP', port: 70000, nodePort: 0 }],
        },
      ],
      slices: [slice('ns1/svc1', ['10.1.0.1', '10.1.0.1.1'])],
    });
    expect(found.ports).toHaveLength(1);
    expect(found.ports[0]).toMatchObject({
      externalIPs: ['192.0.2.1'],
      endpoints: { cluster: [{ address: '10.1.0.1' }] },
    });
    expect(found.problems.map((p) => p.kind)).toEqual(['EndpointSlice', 'Service', 'Service']);
  });

  it('numbers the kernel does not take never get into rules', () => {
    const odd = { ...svc, type: 'LoadBalancer', externalTrafficPolicy: 'Local' } as const;
    const numbers = { affinitySeconds: -1, healthCheckNodePort: 70_000 };
    expect(snapshot({ services: [{ ...odd, ...numbers }] }).ports[0]).toMatchObject({
      affinitySeconds: 0,
      healthCheckNodePort: 0,
    });
    const long = { ...odd, affinitySeconds: 2 ** 40 };
    expect(snapshot({ services: [long] }).ports[0]?.affinitySeconds).toBe(86_400);
  });

  it.each(['evil"name', 'evil\nname', 'evil name', 'e'.repeat(64)])(
    'a name like %j never gets into rules',
    (portName) => {
      const ports = [{ name: portName, protocol: 'TCP', port: 80, nodePort: 0 }] as const;
      const found = snapshot({ services: [{ ...svc, ports }] });
      expect(found.ports).toEqual([]);
      expect(found.problems).toHaveLength(1);
    },
  );
});

describe('what changed', () => {
  const one = slice('ns1/svc1', ['10.1.0.1'], { name: 'a' });
  const two = slice('ns1/svc1', ['10.1.0.2'], { name: 'b' });
  const other = service('ns1/svc2', { clusterIPs: ['172.30.0.42'] });
  const full = (): ServiceModel => {
    const model = new ServiceModel('ip', { name: nodeName, zone: 'z1' });
    model.update(asChanges({ services: [svc, other], slices: [one, two] }));
    return model;
  };
  const shown = (changes: readonly PortChange[]): string[] =>
    changes.map((change) => {
      const side = (port: ProxiedPort | undefined): string =>
        port === undefined ? 'none' : port.endpoints.cluster.map((e) => e.address).join(' ');
      return `${change.key}: ${side(change.old)} → ${side(change.new)}`;
    });
  const put = (record: EndpointSliceRecord): ModelInput => ({
    services: [],
    slices: [{ key: objectKey(record), new: record }],
  });

  it('at first is everything', () => {
    const model = new ServiceModel('ip', { name: nodeName, zone: undefined });
    const changes = model.update(asChanges({ services: [svc, other], slices: [one, two] }));
    expect(shown(changes)).toEqual([
      'ns1/svc1:p80/tcp: none → 10.1.0.1 10.1.0.2',
      'ns1/svc2:p80/tcp: none → ',
    ]);
  });

  it('an endpoint moves between slices: it is there at every step', () => {
    const model = full();
    const both = { ...two, endpoints: [...two.endpoints, ...one.endpoints] };
    expect(model.update(put(both))).toEqual([]);
    expect(model.update(put({ ...one, endpoints: [] }))).toEqual([]);
  });

  it('a slice is deleted, the other stays; an unknown one is deleted', () => {
    const model = full();
    const gone = { services: [], slices: [{ key: objectKey(one), new: undefined }] };
    expect(shown(model.update(gone))).toEqual(['ns1/svc1:p80/tcp: 10.1.0.1 10.1.0.2 → 10.1.0.2']);
    expect(model.update(gone)).toEqual([]);
  });

  it('a slice changes hands', () => {
    const changes = full().update(put({ ...one, serviceName: 'svc2' }));
    expect(shown(changes)).toEqual([
      'ns1/svc1:p80/tcp: 10.1.0.1 10.1.0.2 → 10.1.0.2',
      'ns1/svc2:p80/tcp:  → 10.1.0.1',
    ]);
  });

  it('nothing that matters: no change', () => {
    const again = { ...svc, resourceVersion: '2' };
    expect(full().update(asChanges({ services: [again], slices: [one] }))).toEqual([]);
  });

  it('a port is renamed, a Service is deleted', () => {
    const model = full();
    const ports = [{ name: 'http', protocol: 'TCP', port: 80, nodePort: 0 }] as const;
    expect(shown(model.update(asChanges({ services: [{ ...svc, ports }] })))).toEqual([
      'ns1/svc1:p80/tcp: 10.1.0.1 10.1.0.2 → none',
      'ns1/svc1:http/tcp: none → ',
    ]);
    const gone = { services: [{ key: 'ns1/svc2', new: undefined }], slices: [] };
    expect(shown(model.update(gone))).toEqual(['ns1/svc2:p80/tcp:  → none']);
  });

  it('slices come before their Service, and outlive it', () => {
    const model = new ServiceModel('ip', { name: nodeName, zone: undefined });
    expect(model.update(put(one))).toEqual([]);
    const service1 = asChanges({ services: [svc] });
    const gone = { services: [{ key: 'ns1/svc1', new: undefined }], slices: [] };
    for (let i = 0; i < 2; i++) {
      expect(shown(model.update(service1))).toEqual(['ns1/svc1:p80/tcp: none → 10.1.0.1']);
      expect(shown(model.update(gone))).toEqual(['ns1/svc1:p80/tcp: 10.1.0.1 → none']);
    }
  });

  it('the node moves to another zone', () => {
    const model = full();
    const hinted = {
      ...one,
      endpoints: ['z1', 'z2'].map((z, i) => endpoint({ address: `10.1.0.${i}`, zoneHints: [z] })),
    };
    model.update(put(hinted));
    model.update({ services: [], slices: [{ key: objectKey(two), new: undefined }] });
    expect(shown(model.moveNode({ name: nodeName, zone: 'z2' }))).toEqual([
      'ns1/svc1:p80/tcp: 10.1.0.0 → 10.1.0.1',
    ]);
    expect(model.moveNode({ name: nodeName, zone: 'z2' })).toEqual([]);
  });
});
