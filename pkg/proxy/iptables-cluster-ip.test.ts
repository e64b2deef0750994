/** Packets to cluster and external addresses, by the rules the proxy writes. */
import { describe, expect, it } from 'vitest';
import { renderSave } from '#pkg/iptables/render.ts';
import { places, ruleset, service, slice, trace, type Cluster } from './testdata/records.ts';

const { pod, node, outside } = places.ip;

describe('a ClusterIP Service', () => {
  const rules = ruleset({
    services: [service('ns1/svc1', { clusterIPs: ['172.30.0.41'] })],
    slices: [slice('ns1/svc1', ['10.180.0.1', '10.180.0.2', '10.180.0.3'])],
  });

  it.each([
    [
      'a pod reaches every endpoint with its own address',
      pod,
      '10.180.0.1:80, 10.180.0.2:80, 10.180.0.3:80',
    ],
    [
      'the node is masqueraded',
      node,
      '10.180.0.1:80 masqueraded, 10.180.0.2:80 masqueraded, 10.180.0.3:80 masqueraded',
    ],
    [
      'S18. an endpoint that reaches itself is masqueraded, and only then',
      '10.180.0.2',
      '10.180.0.1:80, 10.180.0.2:80 masqueraded, 10.180.0.3:80',
    ],
  ])('%s', (_, source, expected) => {
    expect(trace(rules, { source, to: '172.30.0.41:80' })).toBe(expected);
  });

  it('S1. with one endpoint leads there', () => {
    const one = ruleset({
      services: [service('ns1/svc1', { clusterIPs: ['172.30.0.41'] })],
      slices: [slice('ns1/svc1', ['10.180.0.1'])],
    });
    expect(trace(one, { source: pod, to: '172.30.0.41:80' })).toBe('10.180.0.1:80');
  });

  it('S15. S17. leaves other ports, protocols and addresses alone', () => {
    expect(trace(rules, { to: '172.30.0.41:81' })).toBe('unmatched');
    expect(trace(rules, { to: '172.30.0.41:80', protocol: 'udp' })).toBe('unmatched');
    expect(trace(rules, { to: '172.30.0.42:80' })).toBe('unmatched');
  });

  it('refuses what the node sends there while it has no endpoints, not only what pods send', () => {
    const empty = ruleset({ services: [service('ns1/svc1', { clusterIPs: ['172.30.0.41'] })] });
    for (const protocol of ['tcp', 'udp', 'sctp'] as const) {
      const expected = protocol === 'tcp' ? 'reject' : 'unmatched';
      for (const source of [pod, node, outside]) {
        expect(trace(empty, { source, to: '172.30.0.41:80', protocol })).toBe(expected);
      }
    }
  });
});

describe('several ports', () => {
  const ports = [
    { name: 'web', protocol: 'TCP', port: 80, nodePort: 0 },
    { name: 'dns', protocol: 'UDP', port: 53, nodePort: 0 },
    { name: 'dns-tcp', protocol: 'TCP', port: 53, nodePort: 0 },
    { name: 'sig', protocol: 'SCTP', port: 53, nodePort: 0 },
  ] as const;
  const several = service('ns1/svc1', { clusterIPs: ['172.30.0.41'], ports });
  const rules = ruleset({
    services: [
      several,
      service('ns1/svc2', {
        clusterIPs: ['172.30.0.42'],
        ports: [{ name: 'p90', protocol: 'TCP', port: 90, nodePort: 0 }],
      }),
    ],
    slices: [
      slice('ns1/svc1', ['10.180.0.1'], {
        ports: [
          { name: 'web', protocol: 'TCP', port: 8080 },
          { name: 'dns', protocol: 'UDP', port: 5353 },
          { name: 'dns-tcp', protocol: 'TCP', port: 5354 },
          { name: 'sig', protocol: 'SCTP', port: 5355 },
        ],
      }),
      slice('ns1/svc2', ['10.180.0.2'], { ports: [{ name: 'p90', protocol: 'TCP', port: 90 }] }),
    ],
  });

  it.each([
    ['S13.', 'tcp', 80, '10.180.0.1:8080'],
    ['S14.', 'udp', 53, '10.180.0.1:5353'],
    ['S14.', 'tcp', 53, '10.180.0.1:5354'],
    ['S14.', 'sctp', 53, '10.180.0.1:5355'],
    ['S15.', 'udp', 80, 'unmatched'],
  ] as const)('%s %s port %i leads to its own target port', (_, protocol, port, expected) => {
    expect(trace(rules, { protocol, to: `172.30.0.41:${port}` })).toBe(expected);
  });

  it("S16. another Service's port does not answer on this address", () => {
    expect(trace(rules, { to: '172.30.0.42:90' })).toBe('10.180.0.2:90');
    expect(trace(rules, { to: '172.30.0.41:90' })).toBe('unmatched');
  });

  it('S154. pods may give one port name different numbers', () => {
    const numbered = (name: string, address: string, port: number): ReturnType<typeof slice> =>
      slice('ns1/svc1', [address], { name, ports: [{ name: 'web', protocol: 'TCP', port }] });
    const mixed = ruleset({
      services: [several],
      slices: [numbered('a', '10.180.0.1', 8080), numbered('b', '10.180.0.9', 9090)],
    });
    expect(trace(mixed, { to: '172.30.0.41:80' })).toBe('10.180.0.1:8080, 10.180.0.9:9090');
  });

  it('are refused one by one while they have no endpoints', () => {
    const half = ruleset({
      services: [several],
      slices: [
        slice('ns1/svc1', ['10.180.0.1'], { ports: [{ name: 'dns', protocol: 'UDP', port: 53 }] }),
      ],
    });
    const to = '172.30.0.41:53';
    expect(trace(half, { protocol: 'udp', to })).toBe('10.180.0.1:53');
    expect(trace(half, { protocol: 'tcp', to })).toBe('reject');
    expect(trace(half, { protocol: 'sctp', to })).toBe('reject');
  });
});

describe('dual stack', () => {
  const cluster: Cluster = {
    services: [
      service('ns1/both', {
        type: 'NodePort',
        clusterIPs: ['172.30.0.41', 'fd00:96::41'],
        ports: [{ name: 'p80', protocol: 'TCP', port: 80, nodePort: 3001 }],
      }),
      service('ns1/six', { clusterIPs: ['fd00:96::66'] }),
    ],
    slices: [
      slice('ns1/both', ['10.180.0.1']),
      slice('ns1/both', ['fd00:10::1', 'fd00:10::2']),
      slice('ns1/six', ['fd00:10::6']),
    ],
  };
  const v6 = ruleset(cluster, { family: 'ip6' });

  it('S163. each family leads to endpoints of its own, in either order', () => {
    expect(trace(ruleset(cluster), { to: '172.30.0.41:80' })).toBe('10.180.0.1:80');
    expect(trace(v6, { source: 'fd00:10::9', to: '[fd00:96::41]:80' })).toBe(
      '[fd00:10::1]:80, [fd00:10::2]:80',
    );
    expect(trace(v6, { source: 'fd00:10::9', to: '[fd00:96::66]:80' })).toBe('[fd00:10::6]:80');
    const turned = cluster.services.map((s) => ({
      ...s,
      clusterIPs: s.clusterIPs.toReversed(),
      ipFamilies: s.ipFamilies.toReversed(),
    }));
    for (const family of ['ip', 'ip6'] as const) {
      const text = renderSave(ruleset({ ...cluster, services: turned }, { family }));
      expect(text).toBe(renderSave(ruleset(cluster, { family })));
    }
  });

  it('S163. a Service of one family has no rule in the other', () => {
    expect(renderSave(ruleset(cluster))).not.toContain('ns1/six');
  });

  it('masquerades hairpin, outside and node ports in IPv6 as in IPv4', () => {
    expect(trace(v6, { source: 'fd00:10::6', to: '[fd00:96::66]:80' })).toBe(
      '[fd00:10::6]:80 masqueraded',
    );
    expect(trace(v6, { source: '2001:db8::1', to: '[fd00:192::2]:3001' })).toBe(
      '[fd00:10::1]:80 masqueraded, [fd00:10::2]:80 masqueraded',
    );
  });

  it('an IPv6 Service without endpoints is refused', () => {
    const empty = ruleset({ services: cluster.services }, { family: 'ip6' });
    expect(trace(empty, { source: 'fd00:10::9', to: '[fd00:96::66]:80' })).toBe('reject');
  });
});

describe('an external address', () => {
  const rules = ruleset({
    services: [
      service('ns1/svc1', { clusterIPs: ['172.30.0.41'], externalIPs: ['192.168.99.11', '::1'] }),
    ],
    slices: [slice('ns1/svc1', ['10.180.0.1'])],
  });

  it.each([pod, node, outside])('S19. is served and masqueraded for %s', (source) => {
    expect(trace(rules, { source, to: '192.168.99.11:80' })).toBe('10.180.0.1:80 masqueraded');
  });

  it('of another family is not written', () => {
    expect(renderSave(rules)).not.toContain('::1');
  });
});

it('S20. addresses with leading zeros are served under their decimal value, and written so', () => {
  const old = ruleset({
    services: [
      service('ns1/svc1', {
        type: 'LoadBalancer',
        clusterIPs: ['172.030.000.041'],
        externalIPs: ['192.168.099.011'],
        loadBalancerIngress: [{ ip: '001.002.003.004', ipMode: 'VIP' }],
        loadBalancerSourceRanges: ['203.000.113.000/25'],
      }),
    ],
    slices: [slice('ns1/svc1', ['10.180.000.001'])],
  });
  expect(trace(old, { source: pod, to: '172.30.0.41:80' })).toBe('10.180.0.1:80');
  expect(trace(old, { source: outside, to: '192.168.99.11:80' })).toContain('10.180.0.1:80');
  expect(trace(old, { source: outside, to: '1.2.3.4:80' })).toContain('10.180.0.1:80');
  expect(renderSave(old)).not.toMatch(/[ .]0\d/);
});
