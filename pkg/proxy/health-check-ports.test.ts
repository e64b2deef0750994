import { describe, expect, it } from 'vitest';
import type { ServiceRecord } from '#pkg/kube/types.ts';
import {
  healthCheckAnswer,
  healthCheckListeners,
  healthCheckPorts,
  type HealthCheckPort,
} from './health-check-ports.ts';
import { local, service, slice, snapshot, type Cluster } from './testdata/records.ts';

const balanced = (name: string, fields: Partial<ServiceRecord> = {}): ServiceRecord =>
  service(`ns/${name}`, {
    clusterIPs: ['172.30.0.1'],
    type: 'LoadBalancer',
    externalTrafficPolicy: 'Local',
    healthCheckNodePort: 30_000,
    loadBalancerIngress: [{ ip: '198.51.100.1', ipMode: 'VIP' }],
    ...fields,
  });
const found = (cluster: Cluster): unknown[] => [...healthCheckPorts(snapshot(cluster).ports)];

describe('a health check node port', () => {
  it.each([
    [
      'S3. not with externalTrafficPolicy Cluster',
      balanced('a', { externalTrafficPolicy: 'Cluster' }),
    ],
    ['not for a Service of another type', balanced('a', { type: 'NodePort' })],
    ['not without a number', balanced('a', { healthCheckNodePort: 0 })],
  ])('%s', (_, given) => {
    expect(found({ services: [given] })).toEqual([]);
  });

  it('S49. S54. counts distinct ready endpoints on this node, whatever the port', () => {
    const two = balanced('a', {
      ports: [
        { name: 'p80', protocol: 'TCP', port: 80, nodePort: 0 },
        { name: 'p81', protocol: 'TCP', port: 81, nodePort: 0 },
      ],
    });
    const endpoints = [
      local('10.1.0.1'),
      local('10.1.0.2'),
      local('10.1.0.3', { terminating: true }),
      local('10.1.0.4', { ready: false }),
      '10.1.0.5',
    ];
    const ports = [80, 81].map((port) => ({ name: `p${port}`, protocol: 'TCP' as const, port }));
    expect(found({ services: [two], slices: [slice('ns/a', endpoints, { ports })] })).toEqual([
      ['ns/a', { namespace: 'ns', name: 'a', port: 30_000, localEndpoints: 2 }],
    ]);
  });

  it('S52. endpoints of no Service ask for nothing', () => {
    expect(found({ services: [], slices: [slice('ns/a', [local('10.1.0.1')])] })).toEqual([]);
  });

  it('S54. with all endpoints here ending: none, while the data path still has them', () => {
    const slices = [slice('ns/a', [local('10.1.0.1', { terminating: true })])];
    const { ports } = snapshot({ services: [balanced('a')], slices });
    expect(healthCheckPorts(ports).get('ns/a')?.localEndpoints).toBe(0);
    expect(ports[0]?.endpoints.local).toHaveLength(1);
  });
});

describe('S49. S50. the answer', () => {
  const port = (localEndpoints: number): HealthCheckPort => ({
    namespace: 'ns',
    name: 'a',
    port: 30_000,
    localEndpoints,
  });
  it.each([
    [0, true, 503],
    [1, true, 200],
    [5, true, 200],
    [5, false, 503],
  ] as const)('for %d endpoints and a proxy that is well: %s, is %d', (count, healthy, status) => {
    expect(healthCheckAnswer(port(count), healthy)).toEqual({
      status,
      headers: {
        'Content-Type': 'application/json',
        'X-Content-Type-Options': 'nosniff',
        'X-Load-Balancing-Endpoint-Weight': String(count),
      },
      body: `{
	"service": {
		"namespace": "ns",
		"name": "a"
	},
	"localEndpoints": ${count},
	"serviceProxyHealthy": ${healthy}
}`,
    });
  });
});

it('S53. each address has its listener; a number two Services claim goes to the first', () => {
  const asked = new Map(
    ['ns/b', 'ns/a'].map((key): [string, HealthCheckPort] => [
      key,
      { namespace: 'ns', name: key.slice(3), port: 30_000, localEndpoints: 1 },
    ]),
  );
  const listeners = [...healthCheckListeners(asked, ['10.0.0.1', '10.0.0.2']).values()];
  expect(listeners.map(({ address, asks }) => `${address} ${asks.name}`)).toEqual([
    '10.0.0.1 a',
    '10.0.0.2 a',
  ]);
});
