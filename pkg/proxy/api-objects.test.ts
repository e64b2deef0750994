/** Objects as the API sends them, some of them odd, to ports and rules. */
import { describe, expect, it } from 'vitest';
import { createIntern, projectEndpointSlice, projectService } from '#pkg/kube/project.ts';
import { places } from './testdata/places.ts';
import { snapshot, type Cluster } from './testdata/records.ts';
import { testVerdicts, type Scenario } from './testdata/verdicts.ts';

const intern = createIntern();

function clusterOf(service: object, ...slices: object[]): Cluster {
  const record = projectService(
    { metadata: { namespace: 'ns1', name: 'svc1' }, ...service },
    intern,
  );
  if (record === undefined) throw new Error('The Service has no name');
  return {
    services: [record],
    slices: slices
      .map((fields) => projectEndpointSlice(sliceOf(fields), intern))
      .filter((s) => s !== undefined),
  };
}

const sliceOf = (fields: object): object => ({
  metadata: { namespace: 'ns1', name: 's', labels: { 'kubernetes.io/service-name': 'svc1' } },
  addressType: 'IPv4',
  ports: [{ name: 'p80', port: 80, protocol: 'TCP' }],
  endpoints: [{ addresses: [places.ip.far] }],
  ...fields,
});
const spec = {
  type: 'LoadBalancer',
  clusterIP: '172.30.0.41',
  clusterIPs: ['172.30.0.41'],
  ipFamilies: ['IPv4'],
  ports: [{ name: 'p80', port: 80, protocol: 'TCP', nodePort: 3001 }],
};
const balancer = (ingress: object): object => ({
  spec,
  status: { loadBalancer: { ingress: [ingress] } },
});

const statusOf = (title: string, ingress: object, verdict: string): Scenario => ({
  title,
  only: { family: 'ip', why: 'the objects are of IPv4' },
  cluster: () => clusterOf(balancer(ingress), {}),
  packets: [
    ['outside', 'loadBalancer:80', verdict],
    ['outside', 'node:3001', 'far:80 masqueraded'],
  ],
  ...('hostname' in ingress ? { unwritten: /loadbalancer IP|lb\.example/ } : {}),
});

const sliceAs = (title: string, fields: object, verdict: string): Scenario => ({
  title,
  only: { family: 'ip', why: 'the objects are of IPv4' },
  cluster: () => clusterOf({ spec: { ...spec, type: 'ClusterIP' } }, fields),
  packets: [['pod', 'clusterIP:80', verdict]],
});

const p80 = { name: 'p80', port: 80, protocol: 'TCP' };

describe('packets, in every mode', () => {
  testVerdicts([
    statusOf('S32. ipMode VIP is served', { ip: '1.2.3.4', ipMode: 'VIP' }, 'far:80 masqueraded'),
    statusOf('S33. ipMode Proxy is not', { ip: '1.2.3.4', ipMode: 'Proxy' }, 'unmatched'),
    statusOf('S34. no ipMode is VIP', { ip: '1.2.3.4' }, 'far:80 masqueraded'),
    statusOf('S35. a host name alone gives no rule', { hostname: 'lb.example.com' }, 'unmatched'),
    statusOf('S20. leading zeros do not matter', { ip: '001.002.03.4' }, 'far:80 masqueraded'),
    sliceAs('S98. a port without a name', { ports: [{ port: 80 }] }, 'reject'),
    sliceAs('S98. a port without a number', { ports: [{ name: 'p80' }] }, 'reject'),
    sliceAs('S98. an odd port beside a good one', { ports: [{ port: 81 }, p80] }, 'far:80'),
    sliceAs('S98. no label of a Service', { metadata: { namespace: 'ns1', name: 's' } }, 'reject'),
    sliceAs('S98. no labels, ports or endpoints', { ports: null, endpoints: null }, 'reject'),
    sliceAs('S98. an endpoint without addresses', { endpoints: [{}, { addresses: [] }] }, 'reject'),
    sliceAs('S97. addressType FQDN', { addressType: 'FQDN' }, 'reject'),
    sliceAs('S97. the other family', { addressType: 'IPv6' }, 'reject'),
    sliceAs(
      'of several addresses of an endpoint the first counts',
      { endpoints: [{ addresses: [places.ip.near, places.ip.far] }] },
      'near:80',
    ),
    sliceAs(
      'S147. an endpoint that is said to be ready is used, whatever its pod is',
      {
        endpoints: [{ addresses: [places.ip.near], conditions: { ready: true, serving: false } }],
      },
      'near:80',
    ),
    sliceAs(
      'S73. conditions that are absent count as ready and serving',
      {
        endpoints: [
          { addresses: [places.ip.near], conditions: { ready: false, terminating: true } },
        ],
      },
      'near:80',
    ),
  ]);
});

describe('S101. the ports of a Service, as its object changes', () => {
  const web = { name: 'web', port: 80, protocol: 'TCP' };
  const dns = { name: 'dns', port: 53, protocol: 'UDP' };
  const unnamed = { port: 80, protocol: 'TCP' };
  const served = (ports: object[], endpoints: object[]): string[] => {
    const cluster = clusterOf({ spec: { ...spec, type: 'ClusterIP', ports } }, ...endpoints);
    return snapshot(cluster).ports.map(
      (p) =>
        `${p.printName}/${p.protocol} ${p.port} ${p.endpoints.cluster.map((e) => e.target).join(' ')}`,
    );
  };
  const on = (addresses: string[], ...ports: object[]): object => ({
    metadata: {
      namespace: 'ns1',
      name: addresses.join(),
      labels: { 'kubernetes.io/service-name': 'svc1' },
    },
    ports,
    endpoints: addresses.map((address) => ({ addresses: [address] })),
  });
  const one = '10.1.1.1';
  const two = '10.1.1.2';
  it.each([
    ['no slice', [web], [], ['ns1/svc1:web/tcp 80 ']],
    ['one endpoint', [web], [on([one], web)], [`ns1/svc1:web/tcp 80 ${one}:80`]],
    [
      'another target port',
      [web],
      [on([one], { ...web, port: 8080 })],
      [`ns1/svc1:web/tcp 80 ${one}:8080`],
    ],
    ['an endpoint more', [web], [on([one, two], web)], [`ns1/svc1:web/tcp 80 ${one}:80 ${two}:80`]],
    [
      'a slice more',
      [web],
      [on([one], web), on([two], web)],
      [`ns1/svc1:web/tcp 80 ${one}:80 ${two}:80`],
    ],
    [
      'the unnamed port',
      [unnamed],
      [on([one], { name: '', port: 80 })],
      [`ns1/svc1/tcp 80 ${one}:80`],
    ],
    ['unnamed port, named slice', [unnamed], [on([one], web)], ['ns1/svc1/tcp 80 ']],
    [
      'named port, unnamed slice',
      [web],
      [on([one], { name: '', port: 80 })],
      ['ns1/svc1:web/tcp 80 '],
    ],
    [
      'two ports in one slice',
      [web, dns],
      [on([one], web, dns)],
      [`ns1/svc1:dns/udp 53 ${one}:53`, `ns1/svc1:web/tcp 80 ${one}:80`],
    ],
    [
      'two ports in two slices',
      [web, dns],
      [on([one], web), on([two], dns)],
      [`ns1/svc1:dns/udp 53 ${two}:53`, `ns1/svc1:web/tcp 80 ${one}:80`],
    ],
    [
      'a port that only slices have',
      [web],
      [on([one], web, dns)],
      [`ns1/svc1:web/tcp 80 ${one}:80`],
    ],
    [
      'a port renamed in slices only',
      [web],
      [on([one], { ...web, name: 'http' })],
      ['ns1/svc1:web/tcp 80 '],
    ],
    [
      'a number changed in the Service only',
      [{ ...web, port: 81 }],
      [on([one], web)],
      [`ns1/svc1:web/tcp 81 ${one}:80`],
    ],
    [
      'a protocol changed in the Service only',
      [{ ...web, protocol: 'UDP' }],
      [on([one], web)],
      ['ns1/svc1:web/udp 80 '],
    ],
    [
      'the same endpoint in two slices',
      [web],
      [on([one], web), on([one, two], web)],
      [`ns1/svc1:web/tcp 80 ${one}:80 ${two}:80`],
    ],
    ['no ports', [], [on([one], web)], []],
  ])('%s', (_, ports, slices, expected) => {
    expect(served(ports, slices)).toEqual(expected);
  });
});
