import { describe, expect, test } from 'vitest';
import {
  createIntern,
  projectEndpointSlice,
  projectMeta,
  projectNode,
  projectNodeAddresses,
  projectService,
} from './project.ts';

const intern = createIntern();
const metadata = {
  name: 'n',
  namespace: 'ns',
  uid: 'u',
  resourceVersion: '5',
  managedFields: [{ manager: 'kubelet' }],
};

describe('a Node', () => {
  test('keeps what the pod network reads', () => {
    const node = projectNode(
      {
        metadata: {
          ...metadata,
          namespace: undefined,
          creationTimestamp: '2025-12-31T00:00:00Z',
          annotations: { a: '1' },
          labels: { l: '2' },
          deletionTimestamp: '2026-01-01T00:00:00Z',
        },
        spec: {
          podCIDR: '10.244.1.0/24',
          podCIDRs: ['10.244.1.0/24', 'fd00:1::/64'],
          taints: [{ key: 'node.kubernetes.io/not-ready', effect: 'NoSchedule' }],
        },
        status: {
          addresses: [
            { type: 'Hostname', address: 'n' },
            { type: 'InternalIP', address: '192.0.2.1' },
            { type: 'ExternalIP', address: '203.0.113.1' },
            { type: 'InternalIP', address: 'fd00::1' },
          ],
          images: [{ names: ['x'] }],
        },
      },
      intern,
    );
    expect(node).toEqual({
      namespace: '',
      name: 'n',
      uid: 'u',
      resourceVersion: '5',
      createdAt: '2025-12-31T00:00:00Z',
      annotations: { a: '1' },
      labels: { l: '2' },
      podCIDRs: ['10.244.1.0/24', 'fd00:1::/64'],
      internalIPs: ['192.0.2.1', 'fd00::1'],
      taintKeys: ['node.kubernetes.io/not-ready'],
      deleting: true,
    });
  });

  test('is where its addresses are, for who asks for nothing else', () => {
    const addresses = [
      { type: 'Hostname', address: 'n' },
      { type: 'ExternalIP', address: '203.0.113.1' },
      { type: 'InternalDNS', address: 'n.internal' },
      { type: 'InternalIP', address: 'fd00::1' },
    ];
    const node = projectNodeAddresses({ metadata, spec: {}, status: { addresses } }, intern);
    expect(node).toEqual({
      ...projectMeta({ metadata }, intern),
      addresses: ['203.0.113.1', 'fd00::1'],
    });
    expect(projectNodeAddresses({ metadata }, intern)?.addresses).toEqual([]);
  });

  test('of an old cluster has one podCIDR, a new one none', () => {
    expect(projectNode({ metadata, spec: { podCIDR: '10.1.0.0/24' } }, intern)?.podCIDRs).toEqual([
      '10.1.0.0/24',
    ]);
    expect(projectNode({ metadata, spec: {} }, intern)?.podCIDRs).toEqual([]);
  });
});

describe('a Service', () => {
  test('keeps what the proxy reads', () => {
    const service = projectService(
      {
        metadata,
        spec: {
          type: 'LoadBalancer',
          clusterIP: '10.96.0.1',
          clusterIPs: ['10.96.0.1', 'fd00::10'],
          ipFamilies: ['IPv4', 'IPv6'],
          ports: [{ name: 'dns', protocol: 'UDP', port: 53, nodePort: 30053, targetPort: 'dns' }],
          externalIPs: ['198.51.100.1'],
          loadBalancerSourceRanges: ['0.0.0.0/0'],
          externalTrafficPolicy: 'Local',
          internalTrafficPolicy: 'Cluster',
          sessionAffinity: 'ClientIP',
          sessionAffinityConfig: { clientIP: { timeoutSeconds: 60 } },
          healthCheckNodePort: 31000,
        },
        status: {
          loadBalancer: {
            ingress: [{ ip: '203.0.113.5' }, { hostname: 'x' }, { ip: '::5', ipMode: 'Proxy' }],
          },
        },
      },
      intern,
    );
    expect(service).toEqual({
      namespace: 'ns',
      name: 'n',
      uid: 'u',
      resourceVersion: '5',
      type: 'LoadBalancer',
      clusterIPs: ['10.96.0.1', 'fd00::10'],
      ipFamilies: ['IPv4', 'IPv6'],
      ports: [{ name: 'dns', protocol: 'UDP', port: 53, nodePort: 30053 }],
      externalIPs: ['198.51.100.1'],
      loadBalancerIngress: [
        { ip: '203.0.113.5', ipMode: 'VIP' },
        { ip: '::5', ipMode: 'Proxy' },
      ],
      loadBalancerSourceRanges: ['0.0.0.0/0'],
      externalTrafficPolicy: 'Local',
      internalTrafficPolicy: 'Cluster',
      affinitySeconds: 60,
      healthCheckNodePort: 31000,
    });
  });

  test('with little in it has the defaults of the API', () => {
    const service = projectService(
      { metadata, spec: { clusterIP: '10.96.0.1', ports: [{ port: 80 }] } },
      intern,
    );
    expect(service).toMatchObject({
      type: 'ClusterIP',
      clusterIPs: ['10.96.0.1'],
      ipFamilies: [],
      ports: [{ name: '', protocol: 'TCP', port: 80, nodePort: 0 }],
      externalTrafficPolicy: 'Cluster',
      internalTrafficPolicy: 'Cluster',
      affinitySeconds: 0,
      healthCheckNodePort: 0,
    });
    const sticky = { metadata, spec: { sessionAffinity: 'ClientIP' } };
    expect(projectService(sticky, intern)?.affinitySeconds).toBe(10_800);
  });
});

describe('an EndpointSlice', () => {
  test('keeps what the proxy reads', () => {
    const slice = projectEndpointSlice(
      {
        metadata: {
          ...metadata,
          labels: { 'kubernetes.io/service-name': 'web' },
          annotations: {
            'endpoints.kubernetes.io/last-change-trigger-time': '2026-01-01T00:00:00Z',
          },
        },
        addressType: 'IPv6',
        ports: [
          { name: '', protocol: 'TCP', port: 80 },
          { port: 81 },
          { name: 'all' },
          { name: 'zero', port: 0 },
        ],
        endpoints: [
          {
            addresses: ['fd00::1', 'fd00::2'],
            conditions: { ready: false, serving: true, terminating: true },
            nodeName: 'node-a',
            zone: 'z',
            hints: { forZones: [{ name: 'z' }], forNodes: [{ name: 'node-a' }] },
          },
          { addresses: [] },
        ],
      },
      intern,
    );
    expect(slice).toEqual({
      namespace: 'ns',
      name: 'n',
      uid: 'u',
      resourceVersion: '5',
      serviceName: 'web',
      addressType: 'IPv6',
      ports: [{ name: '', protocol: 'TCP', port: 80 }],
      endpoints: [
        {
          address: 'fd00::1',
          ready: false,
          serving: true,
          terminating: true,
          nodeName: 'node-a',
          zoneHints: ['z'],
          nodeHints: ['node-a'],
        },
      ],
      triggerTime: '2026-01-01T00:00:00Z',
    });
  });

  test('without conditions has ready, serving endpoints that are not terminating', () => {
    const slice = projectEndpointSlice(
      { metadata, addressType: 'IPv4', endpoints: [{ addresses: ['10.0.0.1'] }] },
      intern,
    );
    expect(slice?.endpoints[0]).toMatchObject({ ready: true, serving: true, terminating: false });
    expect(slice?.serviceName).toBe('');
  });
});

test.each([projectNode, projectService, projectEndpointSlice])(
  '%o reads whatever has a name, however odd, and nothing else',
  (project) => {
    const odd = [null, 5, 'x', [], [null], {}, { key: 5 }, true];
    for (const value of odd) {
      const fields = { spec: value, status: value, ports: value, endpoints: value };
      expect(project({ metadata: { ...metadata, labels: value }, ...fields }, intern)?.name).toBe(
        'n',
      );
      const deep = { ports: [value], addresses: [value], taints: [value], clusterIPs: [value] };
      expect(
        project({ metadata, spec: deep, status: deep, endpoints: [deep], ports: [value] }, intern),
      ).toMatchObject({ name: 'n' });
      expect(project(value, intern)).toBeUndefined();
      expect(project({ metadata: value }, intern)).toBeUndefined();
    }
  },
);

test('equal strings are one string, also after very many different ones', () => {
  const small = createIntern();
  const other = Array.from({ length: 200_000 }, (_, i) => `node-${i}`).find((s) => small(s) !== s);
  expect(other).toBeUndefined();
});
