/** Which ports a Service has for the proxy, and what an unusable part of it costs. */
import { describe, expect, it } from 'vitest';
import { service, slice, snapshot } from './testdata/records.ts';

const targets = (cluster: Parameters<typeof snapshot>[0]): string =>
  snapshot(cluster)
    .ports.map((p) => `${p.printName} ${p.endpoints.cluster.map((e) => e.target).join(' ')}`)
    .join('\n');
const svc = service('ns1/svc1', { clusterIPs: ['172.30.0.41'] });

describe('what is served', () => {
  it.each([
    ['S91. headless', service('ns1/svc1', { clusterIPs: ['None'] })],
    ['without an address yet', service('ns1/svc1', { clusterIPs: [] })],
    [
      'S91. ExternalName, though it kept an address',
      service('ns1/svc1', { type: 'ExternalName', clusterIPs: ['172.30.0.41'] }),
    ],
    ['S163. of the other family', service('ns1/svc1', { clusterIPs: ['fd00::1'] })],
  ])('%s: not such a Service', (_, s) => {
    expect(snapshot({ services: [s] })).toMatchObject({ ports: [], problems: [] });
  });

  it('the unnamed port is printed without a colon', () => {
    const ports = [{ name: '', protocol: 'TCP', port: 80, nodePort: 0 }] as const;
    expect(targets({ services: [{ ...svc, ports }] })).toBe('ns1/svc1 ');
  });

  it('S20. addresses with leading zeros are read as decimal', () => {
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
