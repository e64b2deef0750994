/** Objects as the API sends them, some of them odd, to ports and rules. */
import { describe, expect, it } from 'vitest';
import { createIntern, projectEndpointSlice, projectService } from '#pkg/kube/project.ts';
import { renderSave } from '#pkg/iptables/render.ts';
import { ruleset, snapshot, trace, type Cluster } from './testdata/records.ts';

const intern = createIntern();
const outside = '203.0.113.2';

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
  endpoints: [{ addresses: ['10.180.0.1'] }],
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

describe('the status of a load balancer', () => {
  it.each([
    ['S32. ipMode VIP is served', { ip: '1.2.3.4', ipMode: 'VIP' }, '10.180.0.1:80 masqueraded'],
    ['S33. ipMode Proxy is not', { ip: '1.2.3.4', ipMode: 'Proxy' }, 'unmatched'],
    ['S34. no ipMode is VIP', { ip: '1.2.3.4' }, '10.180.0.1:80 masqueraded'],
    ['S35. a host name alone gives no rule', { hostname: 'lb.example.com' }, 'unmatched'],
    ['S20. leading zeros do not matter', { ip: '001.002.03.4' }, '10.180.0.1:80 masqueraded'],
  ])('%s', (_, ingress, expected) => {
    const rules = ruleset(clusterOf(balancer(ingress), {}));
    expect(trace(rules, { source: outside, to: '1.2.3.4:80' })).toBe(expected);
    expect(trace(rules, { source: outside, to: '192.168.0.2:3001' })).toBe(
      '10.180.0.1:80 masqueraded',
    );
    if ('hostname' in ingress) expect(renderSave(rules)).not.toContain('loadbalancer IP');
  });
});

describe('slices', () => {
  const p80 = { name: 'p80', port: 80, protocol: 'TCP' };
  it.each([
    ['S98. a port without a name', { ports: [{ port: 80 }] }, 'reject'],
    ['S98. a port without a number', { ports: [{ name: 'p80' }] }, 'reject'],
    ['S98. an odd port beside a good one', { ports: [{ port: 81 }, p80] }, '10.180.0.1:80'],
    ['S98. no label of a Service', { metadata: { namespace: 'ns1', name: 's' } }, 'reject'],
    ['S98. no labels, ports or endpoints', { ports: null, endpoints: null }, 'reject'],
    ['S98. an endpoint without addresses', { endpoints: [{}, { addresses: [] }] }, 'reject'],
    ['S97. addressType FQDN', { addressType: 'FQDN' }, 'reject'],
    ['S97. the other family', { addressType: 'IPv6' }, 'reject'],
    [
      'of several addresses of an endpoint the first counts',
      { endpoints: [{ addresses: ['10.180.0.7', '10.180.0.8'] }] },
      '10.180.0.7:80',
    ],
    [
      'S147. an endpoint that is said to be ready is used, whatever its pod is',
      { endpoints: [{ addresses: ['10.180.0.7'], conditions: { ready: true, serving: false } }] },
      '10.180.0.7:80',
    ],
    [
      'S73. conditions that are absent count as ready and serving',
      {
        endpoints: [{ addresses: ['10.180.0.7'], conditions: { ready: false, terminating: true } }],
      },
      '10.180.0.7:80',
    ],
  ])('%s', (_, fields, expected) => {
    const rules = ruleset(clusterOf({ spec: { ...spec, type: 'ClusterIP' } }, fields));
    expect(trace(rules, { to: '172.30.0.41:80' })).toBe(expected);
  });
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
