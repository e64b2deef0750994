import { beforeEach, describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { createAccess, type ApiAccess } from '#pkg/embedded-api/access.ts';
import { bootstrap } from '#pkg/embedded-api/bootstrap.ts';
import { createCore } from '#pkg/embedded-api/core.ts';
import { objectAt, textAt, type JsonObject } from '#pkg/embedded-api/json.ts';

const dualStack = ['10.96.0.0/24', 'fd00:96::/112'];

function server(serviceCIDRs: readonly string[]): ApiAccess {
  const core = createCore({
    serviceCIDRs,
    compactionWindowEvents: 1000,
    clock: new FakeClock(),
    saved: undefined,
  });
  const access = createAccess(core);
  bootstrap(access, { serviceCIDRs, apiServer: undefined });
  return access;
}

function service(spec: JsonObject, name = 'web'): JsonObject {
  return { apiVersion: 'v1', kind: 'Service', metadata: { name }, spec };
}

const web = { apiVersion: 'v1', kind: 'Service', name: 'web' };
const ports = [{ port: 80 }];

let api: ApiAccess;
beforeEach(() => {
  api = server(dualStack);
});

function create(spec: JsonObject, name?: string): JsonObject {
  return objectAt(api.create(service(spec, name)), 'spec');
}

/** What a refused request says: field and message of each cause. */
function causes(act: () => unknown): unknown {
  try {
    act();
  } catch (error) {
    const details = (error as { status: { details: { causes: JsonObject[] } } }).status.details;
    return details.causes.map((cause) => `${textAt(cause, 'field')}: ${textAt(cause, 'message')}`);
  }
  return [];
}

describe('a new Service', () => {
  it('gets what its client left out', () => {
    expect(create({ ports, selector: { a: 'b' } })).toEqual({
      type: 'ClusterIP',
      selector: { a: 'b' },
      clusterIP: '10.96.0.17',
      clusterIPs: ['10.96.0.17'],
      ipFamilies: ['IPv4'],
      ipFamilyPolicy: 'SingleStack',
      internalTrafficPolicy: 'Cluster',
      sessionAffinity: 'None',
      ports: [{ port: 80, targetPort: 80, protocol: 'TCP' }],
    });
  });

  it('gets node ports, policies and affinity for its type', () => {
    const spec = create({
      type: 'LoadBalancer',
      externalTrafficPolicy: 'Local',
      sessionAffinity: 'ClientIP',
      ports,
    });
    expect(spec).toMatchObject({
      allocateLoadBalancerNodePorts: true,
      externalTrafficPolicy: 'Local',
      sessionAffinityConfig: { clientIP: { timeoutSeconds: 10800 } },
      ports: [{ nodePort: 30086 }],
      healthCheckNodePort: 30087,
    });
  });

  it.each([
    [{ ipFamilyPolicy: 'PreferDualStack' }, ['10.96.0.17', 'fd00:96::101']],
    [{ ipFamilyPolicy: 'RequireDualStack', ipFamilies: ['IPv6'] }, ['fd00:96::101', '10.96.0.17']],
    [{ ipFamilies: ['IPv6'] }, ['fd00:96::101']],
    [{ clusterIP: 'fd00:96::7' }, ['fd00:96::7']],
    [{ ipFamilyPolicy: 'PreferDualStack', clusterIP: '10.96.0.9' }, ['10.96.0.9', 'fd00:96::101']],
    [{ clusterIP: 'None', selector: { a: 'b' } }, ['None']],
  ])('%j gets addresses %j', (spec, clusterIPs) => {
    expect(create({ ports, ...spec })['clusterIPs']).toEqual(clusterIPs);
  });

  it('without selector and address is for both families', () => {
    expect(create({ clusterIP: 'None' })).toMatchObject({
      ipFamilies: ['IPv4', 'IPv6'],
      ipFamilyPolicy: 'RequireDualStack',
    });
  });

  it('of type ExternalName gets no address', () => {
    const spec = create({ type: 'ExternalName', externalName: 'example.com' });
    expect(spec['clusterIP']).toBeUndefined();
    expect(spec['internalTrafficPolicy']).toBeUndefined();
  });

  it.each<[string, JsonObject, string]>([
    ['no ports', {}, 'spec.ports: Required value'],
    [
      'a bad port',
      { ports: [{ port: 0 }] },
      'spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive',
    ],
    [
      'a bad type',
      { type: 'Nodeport', ports },
      'spec.type: Unsupported value: "Nodeport": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"',
    ],
    [
      'a bad protocol',
      { ports: [{ port: 1, protocol: 'tcp' }] },
      'spec.ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP"',
    ],
    [
      'unnamed ports',
      { ports: [{ port: 1, name: 'a' }, { port: 2 }] },
      'spec.ports[1].name: Required value',
    ],
    [
      'equal names',
      {
        ports: [
          { port: 1, name: 'a' },
          { port: 2, name: 'a' },
        ],
      },
      'spec.ports[1].name: Duplicate value: "a"',
    ],
    [
      'a node port without the type',
      { ports: [{ port: 1, nodePort: 30001 }] },
      "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
    ],
    [
      'a node port out of range',
      { type: 'NodePort', ports: [{ port: 1, nodePort: 80 }] },
      'spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767',
    ],
    [
      'an address out of range',
      { clusterIP: '10.1.0.1', ports },
      'spec.clusterIPs[0]: Invalid value: "10.1.0.1": failed to allocate IP 10.1.0.1: the provided network does not match the current range: the range of valid IPs is 10.96.0.0/24',
    ],
    [
      'the broadcast address',
      { clusterIP: '10.96.0.255', ports },
      'spec.clusterIPs[0]: Invalid value: "10.96.0.255": failed to allocate IP 10.96.0.255: the provided network does not match the current range: the range of valid IPs is 10.96.0.0/24',
    ],
    [
      'no address at all',
      { clusterIP: 'x', ports },
      'spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address',
    ],
    [
      'two families, single stack',
      { ipFamilies: ['IPv4', 'IPv6'], ports },
      'spec.ipFamilyPolicy: Invalid value: "SingleStack": must be RequireDualStack or PreferDualStack when multiple ipFamilies are specified',
    ],
    [
      'family and address apart',
      { ipFamilies: ['IPv6'], clusterIP: '10.96.0.5', ports },
      'spec.clusterIPs[0]: Invalid value: "10.96.0.5": expected an IPv6 value as indicated by `ipFamilies[0]`',
    ],
    [
      'headless NodePort',
      { type: 'NodePort', clusterIP: 'None', ports },
      'spec.clusterIPs[0]: Invalid value: "None": may not be set to \'None\' for NodePort and LoadBalancer services',
    ],
    [
      'a loopback external IP',
      { externalIPs: ['127.0.0.1'], ports },
      'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be unspecified, loopback or link-local',
    ],
    [
      'an external policy inside',
      { externalTrafficPolicy: 'Local', ports },
      'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services',
    ],
    [
      'a selector that is none',
      { selector: { a: 'b c' }, ports },
      'spec.selector.a: Invalid value: "b c": a valid label',
    ],
  ])('with %s is refused', (_name, spec, cause) => {
    expect(causes(() => create(spec))).toContainEqual(expect.stringContaining(cause));
  });

  it('with a wrong name is refused with the name in the message', () => {
    expect(() => create({ ports }, '1web')).toThrow(
      /^Service "1web" is invalid: metadata.name: Invalid value: "1web": a DNS-1035 label/,
    );
  });
});

describe('addresses and node ports', () => {
  it('are not given twice, by hand or by the server', () => {
    create(
      { type: 'NodePort', clusterIP: '10.96.0.17', ports: [{ port: 1, nodePort: 30086 }] },
      'a',
    );
    expect(create({ type: 'NodePort', ports }, 'b')).toMatchObject({
      clusterIP: '10.96.0.18',
      ports: [{ nodePort: 30087 }],
    });
    expect(causes(() => create({ clusterIP: '10.96.0.18', ports }, 'c'))).toEqual([
      'spec.clusterIPs[0]: Invalid value: "10.96.0.18": failed to allocate IP 10.96.0.18: provided IP is already allocated',
    ]);
    expect(
      causes(() => create({ type: 'NodePort', ports: [{ port: 1, nodePort: 30087 }] }, 'd')),
    ).toEqual(['spec.ports[0].nodePort: Invalid value: 30087: provided port is already allocated']);
  });

  it('are free again after deletion', () => {
    create({ type: 'NodePort', clusterIP: '10.96.0.50', ports: [{ port: 1, nodePort: 30500 }] });
    api.delete(web);
    const again = {
      type: 'NodePort',
      clusterIP: '10.96.0.50',
      ports: [{ port: 1, nodePort: 30500 }],
    };
    expect(create(again, 'other')).toMatchObject({ clusterIP: '10.96.0.50' });
  });

  it('are not taken by a dry run', () => {
    api.create(service({ clusterIP: '10.96.0.77', ports }), { dryRun: true });
    expect(create({ clusterIP: '10.96.0.77', ports }, 'other')['clusterIP']).toBe('10.96.0.77');
  });

  it('run out with a refusal that says so', () => {
    api = server(['10.96.0.0/29']); // .1 is the kubernetes Service's
    for (let i = 0; i < 5; i++) create({ ports }, `s${i}`);
    expect(causes(() => create({ ports }))).toEqual([
      'spec.clusterIPs[0]: Invalid value: "": failed to allocate an IP: range 10.96.0.0/29 is full',
    ]);
    api.delete({ ...web, name: 's3' });
    expect(create({ ports })['clusterIP']).toMatch(/^10\.96\.0\.[2-6]$/);
  });

  it('one node port may serve both protocols of a Service', () => {
    const both = [
      { name: 'u', port: 53, protocol: 'UDP', nodePort: 30053 },
      { name: 't', port: 53, protocol: 'TCP', nodePort: 30053 },
    ];
    expect(create({ type: 'NodePort', ports: both })).toMatchObject({ ports: both });
  });
});

describe('an update of a Service', () => {
  it('need not repeat what the server chose', () => {
    const before = create({ type: 'NodePort', ports, ipFamilyPolicy: 'PreferDualStack' });
    const after = api.update(
      service({ type: 'NodePort', ports: [{ port: 80, targetPort: 8080 }] }),
    );
    expect(objectAt(after, 'spec')).toEqual({
      ...before,
      ports: [{ port: 80, protocol: 'TCP', targetPort: 8080, nodePort: 30086 }],
    });
  });

  it('to ClusterIP gives its node ports back', () => {
    const before = create({ type: 'NodePort', ports });
    const after = api.update(service({ ...before, type: 'ClusterIP' }));
    expect(objectAt(after, 'spec')).not.toHaveProperty('externalTrafficPolicy');
    expect(objectAt(after, 'spec')['ports']).toEqual([
      { port: 80, protocol: 'TCP', targetPort: 80 },
    ]);
    expect(create({ type: 'NodePort', ports: [{ port: 1, nodePort: 30086 }] }, 'b')).toBeDefined();
  });

  it('to ExternalName gives its addresses back', () => {
    const before = create({ clusterIP: '10.96.0.40', ports });
    const after = api.update(service({ ...before, type: 'ExternalName', externalName: 'a.b' }));
    expect(objectAt(after, 'spec')['clusterIPs']).toBeUndefined();
    expect(create({ clusterIP: '10.96.0.40', ports }, 'b')['clusterIP']).toBe('10.96.0.40');
  });

  it('to two families and back keeps the first address', () => {
    const { clusterIP } = create({ ports });
    const patch = (ipFamilyPolicy: string): JsonObject =>
      objectAt(api.patch(web, 'merge', { spec: { ipFamilyPolicy } }), 'spec');
    expect(patch('PreferDualStack')).toMatchObject({
      clusterIPs: [clusterIP, 'fd00:96::101'],
      ipFamilies: ['IPv4', 'IPv6'],
    });
    expect(patch('SingleStack')).toMatchObject({ clusterIPs: [clusterIP], ipFamilies: ['IPv4'] });
    expect(create({ clusterIP: 'fd00:96::101', ports }, 'b')).toBeDefined();
  });

  it('cannot change its address', () => {
    create({ ports });
    const change = (): unknown => api.patch(web, 'merge', { spec: { clusterIP: '10.96.0.99' } });
    expect(causes(change)).toEqual([
      'spec.clusterIPs[0]: Invalid value: "10.96.0.99": field is immutable: primary clusterIP can not be unset',
    ]);
  });
});

it('a server without ranges takes addresses as given and hands out none', () => {
  api = server([]);
  expect(create({ clusterIP: '192.0.2.1', ports })['clusterIP']).toBe('192.0.2.1');
  expect(causes(() => create({ ports }, 'b'))).toEqual([
    'spec.clusterIPs: Required value: this server has no IPv4 service range',
  ]);
  expect(create({ clusterIP: 'None', selector: { a: 'b' } }, 'c')['clusterIP']).toBe('None');
});
