/** Packets to node ports, by the rules the proxy writes. */
import { describe, expect, it } from 'vitest';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { nodePortTargets } from './node-port-addresses.ts';
import { servesLocalhost } from './iptables-options.ts';
import {
  options,
  places,
  ruleset,
  service,
  slice,
  trace,
  type Cluster,
} from './testdata/records.ts';

const { pod, node, outside } = places.ip;
const other = '192.168.1.2';
const cluster: Cluster = {
  services: [
    service('ns1/svc1', {
      type: 'NodePort',
      clusterIPs: ['172.30.0.41', 'fd00:96::41'],
      ports: [{ name: 'p80', protocol: 'TCP', port: 80, nodePort: 3001 }],
    }),
    service('ns1/svc2', {
      type: 'NodePort',
      clusterIPs: ['172.30.0.42'],
      ports: [{ name: 'p80', protocol: 'UDP', port: 80, nodePort: 3001 }],
    }),
  ],
  slices: [
    slice('ns1/svc1', ['10.180.0.1']),
    slice('ns1/svc1', ['fd00:10::1']),
    slice('ns1/svc2', ['10.180.0.2'], { ports: [{ name: 'p80', protocol: 'UDP', port: 80 }] }),
  ],
};
const masqueraded = '10.180.0.1:80 masqueraded';

it.each([
  ['outside', outside, `${node}:3001`],
  ['outside, by another address of the node', outside, `${other}:3001`],
  ['a pod', pod, `${node}:3001`],
  ['the node', node, `${node}:3001`],
  ['the node, by 127.0.0.1', '127.0.0.1', '127.0.0.1:3001'],
])('S37. is reached from %s, masqueraded', (_, source, to) => {
  expect(trace(ruleset(cluster), { source, to })).toBe(masqueraded);
});

it('S47. shares its number with another protocol', () => {
  const packet = { source: outside, to: `${node}:3001`, protocol: 'udp' } as const;
  expect(trace(ruleset(cluster), packet)).toBe('10.180.0.2:80 masqueraded');
});

it('S47. goes on when the Service that shares its number goes', () => {
  const without = ruleset({ ...cluster, services: cluster.services.slice(0, 1) });
  expect(trace(without, { source: outside, to: `${node}:3001` })).toBe(masqueraded);
  expect(trace(without, { source: outside, to: `${node}:3001`, protocol: 'udp' })).toBe(
    'unmatched',
  );
});

it('shows the client to an endpoint that is the node itself: no packet leaves', () => {
  const onNode = ruleset({ ...cluster, slices: [slice('ns1/svc1', [node])] });
  expect(trace(onNode, { source: outside, to: `${node}:3001` })).toBe(`${node}:80`);
  expect(trace(onNode, { source: pod, to: '172.30.0.41:80' })).toBe(`${node}:80`);
});

it('does not answer on addresses of others', () => {
  expect(trace(ruleset(cluster), { source: outside, to: '192.168.7.7:3001' })).toBe('unmatched');
});

it("on a cluster address of the node's own, the Service's port wins over a node port", () => {
  const both = ruleset({
    ...cluster,
    services: [
      ...cluster.services,
      service('ns1/svc3', {
        clusterIPs: [node],
        ports: [{ name: 'p80', protocol: 'TCP', port: 3001, nodePort: 0 }],
      }),
    ],
    slices: [...(cluster.slices ?? []), slice('ns1/svc3', ['10.180.0.3'])],
  });
  expect(trace(both, { to: `${node}:3001` })).toBe('10.180.0.3:80');
});

describe('on loopback', () => {
  it('S38. without localhostNodePorts it does not answer, and does everywhere else', () => {
    const rules = ruleset(cluster, { localhostNodePorts: false });
    expect(trace(rules, { source: '127.0.0.1', to: '127.0.0.1:3001' })).toBe('unmatched');
    expect(trace(rules, { source: outside, to: `${node}:3001` })).toBe(masqueraded);
    expect(trace(rules, { source: outside, to: `${other}:3001` })).toBe(masqueraded);
  });

  it('S42. it never answers on ::1', () => {
    const rules = ruleset(cluster, { family: 'ip6' });
    expect(trace(rules, { source: '::1', to: '[::1]:3001' })).toBe('unmatched');
    expect(trace(rules, { source: '2001:db8::2', to: '[fd00:192::2]:3001' })).toBe(
      '[fd00:10::1]:80 masqueraded',
    );
  });

  it('S46. neighbours cannot use route_localnet to reach what listens there', () => {
    const packet = { source: outside, to: '127.0.0.1:9999' };
    expect(trace(ruleset(cluster), packet)).toBe('drop');
    expect(trace(ruleset(cluster), { ...packet, state: 'ESTABLISHED' })).toBe('unmatched');
    // A node port is open to them anyway: it is translated before the guard sees the packet.
    expect(trace(ruleset(cluster), { source: outside, to: '127.0.0.1:3001' })).toBe(masqueraded);
  });

  it('S46. the guard stands only where the door is opened', () => {
    const text = JSON.stringify(
      ruleset(cluster, { localhostNodePorts: false }).tables.map((t) => [...t.chains]),
    );
    expect(text).not.toContain('KUBE-FIREWALL');
  });
});

describe('nodePortAddresses', () => {
  const host = { all: [node, other, '127.0.0.1', '10.0.0.1'], primary: node };
  const admitted = (...ranges: string[]): ReturnType<typeof nodePortTargets> =>
    nodePortTargets(ranges.map(parsePrefix), 'ip', host);
  const reached = (addresses: ReturnType<typeof nodePortTargets>): string[] => {
    const rules = ruleset(cluster, { nodePortAddresses: addresses });
    return [node, other, '127.0.0.1'].filter((address) => {
      const source = address === '127.0.0.1' ? '127.0.0.1' : outside;
      return trace(rules, { source, to: `${address}:3001` }) !== 'unmatched';
    });
  };
  const open = (addresses: ReturnType<typeof nodePortTargets>): boolean =>
    servesLocalhost(options({ nodePortAddresses: addresses }));

  it.each([
    ['S37. none admits every address', [], [node, other, '127.0.0.1'], true],
    ['S39. one range admits what is in it', ['192.168.0.0/24'], [node], false],
    ['S40. loopback too', ['192.168.0.0/24', '127.0.0.0/8'], [node, '127.0.0.1'], true],
    ['S41. ranges without loopback do not open it', ['192.168.0.0/16'], [node, other], false],
    ['S43. ranges of IPv6 only are as none', ['fd00::/8'], [node, other, '127.0.0.1'], true],
    ['S39. a range without an address of ours admits nothing', ['172.16.0.0/12'], [], false],
  ])('%s', (_, ranges, answering, opensLoopback) => {
    const addresses = admitted(...ranges);
    expect(reached(addresses)).toEqual(answering);
    expect(open(addresses)).toBe(opensLoopback);
  });
});

it('S48. S3. a health check node port is open for Local load balancers, as long as they are there', () => {
  const balanced = service('ns1/svc1', {
    type: 'LoadBalancer',
    clusterIPs: ['172.30.0.41'],
    externalTrafficPolicy: 'Local',
    healthCheckNodePort: 30000,
  });
  const acceptRules = (fields: Partial<typeof balanced>, there = true): readonly string[] => {
    const services = there ? [{ ...balanced, ...fields }] : [];
    const filter = ruleset({ services }).tables.find((t) => t.name === 'filter');
    return filter?.chains.get('KUBE-NODEPORTS') ?? [];
  };
  expect(acceptRules({})).toEqual([
    '-p tcp -m comment --comment "ns1/svc1:p80 health check node port" -m tcp --dport 30000 -j ACCEPT',
  ]);
  expect(acceptRules({}, false)).toEqual([]);
  expect(acceptRules({ externalTrafficPolicy: 'Cluster' })).toEqual([]);
  expect(acceptRules({ type: 'NodePort' })).toEqual([]);
});
