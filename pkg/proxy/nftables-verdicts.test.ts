/**
 * What becomes of packets in nftables mode: the scenarios of the iptables mode, and where the two
 * differ on purpose. A half of them runs on the kernel, in `cmd/podwire-proxy`.
 */
import { describe, expect, it } from 'vitest';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { table as ruleset, traceNft as trace } from './testdata/nftables.ts';
import { nodeName, service, slice, type Cluster } from './testdata/records.ts';

const pod = '10.0.0.2';
const node = '192.168.0.2';
const outside = '203.0.113.2';
const blocked = '203.0.113.130';
const local = (address: string): { address: string; nodeName: string } => ({ address, nodeName });

describe('a ClusterIP Service', () => {
  const rules = ruleset({
    services: [service('ns1/svc1', { clusterIPs: ['172.30.0.41'] })],
    slices: [slice('ns1/svc1', ['10.180.0.1', local('10.180.0.2'), '10.180.0.3'])],
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
      'an endpoint that reaches itself is masqueraded, and only then',
      '10.180.0.2',
      '10.180.0.1:80, 10.180.0.2:80 masqueraded, 10.180.0.3:80',
    ],
  ])('%s', (_, source, expected) => {
    expect(trace(rules, { source, to: '172.30.0.41:80' })).toBe(expected);
  });

  it('refuses other ports and protocols of its address', () => {
    for (const source of [pod, node, outside]) {
      expect(trace(rules, { source, to: '172.30.0.41:81' })).toBe('reject');
      expect(trace(rules, { source, to: '172.30.0.41:80', protocol: 'udp' })).toBe('reject');
    }
  });

  it('S17. drops what goes to a cluster address of nobody', () => {
    const packet = { to: '172.30.0.99:80' };
    expect(trace(rules, packet)).toBe('unmatched');
    const serviceCIDRs = [parsePrefix('172.30.0.0/16'), parsePrefix('fd00:96::/112')];
    const ranged = ruleset(
      {
        services: [service('ns1/svc1', { clusterIPs: ['172.30.0.41'] })],
        slices: [slice('ns1/svc1', ['10.180.0.1'])],
      },
      { serviceCIDRs },
    );
    expect(trace(ranged, packet)).toBe('drop');
    expect(trace(ranged, { to: '172.30.0.41:81' })).toBe('reject');
    expect(trace(ranged, { to: '172.30.0.41:80' })).toBe('10.180.0.1:80');
  });

  it.each([
    [{ kind: 'bridge-interface', name: 'cni0' }, 'cni0', 'eth0'],
    [{ kind: 'interface-name-prefix', prefix: 'veth' }, 'veth12', 'eth0'],
  ] as const)('pods are told by %j', (localDetector, inside, outer) => {
    const told = ruleset(
      {
        services: [service('ns1/svc1', { clusterIPs: ['172.30.0.41'] })],
        slices: [slice('ns1/svc1', ['10.180.0.1'])],
      },
      { localDetector },
    );
    const to = '172.30.0.41:80';
    expect(trace(told, { to, inInterface: inside })).toBe('10.180.0.1:80');
    expect(trace(told, { to, inInterface: outer })).toBe('10.180.0.1:80 masqueraded');
  });

  it.each([1, 2, 3, 4, 5, 8, 9, 17, 64, 65, 300, 1_000])(
    'reaches each of %i endpoints',
    (count) => {
      const addresses = Array.from({ length: count }, (_, i) => `10.180.${i >> 8}.${i & 255}`);
      const many = ruleset({
        services: [service('ns1/svc1', { clusterIPs: ['172.30.0.41'] })],
        slices: [slice('ns1/svc1', addresses)],
      });
      const expected = addresses.map((address) => `${address}:80`).toSorted();
      expect(trace(many, { to: '172.30.0.41:80' }).split(', ')).toEqual(expected);
    },
  );

  it('masquerades everybody with masqueradeAll', () => {
    const all = ruleset(
      {
        services: [service('ns1/svc1', { clusterIPs: ['172.30.0.41'] })],
        slices: [slice('ns1/svc1', ['10.180.0.1'])],
      },
      { masqueradeAll: true },
    );
    expect(trace(all, { to: '172.30.0.41:80' })).toBe('10.180.0.1:80 masqueraded');
  });

  it('is refused at once while it has no endpoints, wherever the packet comes from', () => {
    const empty = ruleset({
      services: [
        service('ns1/svc1', {
          type: 'LoadBalancer',
          clusterIPs: ['172.30.0.41'],
          externalIPs: ['192.168.99.11'],
          loadBalancerIngress: [{ ip: '1.2.3.4', ipMode: 'VIP' }],
          ports: [{ name: 'p80', protocol: 'TCP', port: 80, nodePort: 3001 }],
        }),
      ],
    });
    for (const source of [pod, outside]) {
      for (const to of ['172.30.0.41:80', '192.168.99.11:80', '1.2.3.4:80', `${node}:3001`]) {
        expect(trace(empty, { source, to }), `${source} to ${to}`).toBe('reject');
      }
    }
    for (const to of ['172.30.0.41:80', '192.168.99.11:80', '1.2.3.4:80', `${node}:3001`]) {
      expect(trace(empty, { source: node, to }), `node to ${to}`).toBe('reject');
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
  const rules = ruleset({
    services: [service('ns1/svc1', { clusterIPs: ['172.30.0.41'], ports })],
    slices: [
      slice('ns1/svc1', ['10.180.0.1'], {
        ports: [
          { name: 'web', protocol: 'TCP', port: 8080 },
          { name: 'dns', protocol: 'UDP', port: 5353 },
          { name: 'dns-tcp', protocol: 'TCP', port: 5354 },
          { name: 'sig', protocol: 'SCTP', port: 5355 },
        ],
      }),
    ],
  });

  it.each([
    ['tcp', 80, '10.180.0.1:8080'],
    ['udp', 53, '10.180.0.1:5353'],
    ['tcp', 53, '10.180.0.1:5354'],
    ['sctp', 53, '10.180.0.1:5355'],
    ['udp', 80, 'reject'],
  ] as const)('%s port %i leads to its own target port', (protocol, port, expected) => {
    expect(trace(rules, { protocol, to: `172.30.0.41:${port}` })).toBe(expected);
  });

  it('pods may give one port name different numbers', () => {
    const other = slice('ns1/svc1', ['10.180.0.9'], {
      name: 'second',
      ports: [{ name: 'web', protocol: 'TCP', port: 9090 }],
    });
    const first = slice('ns1/svc1', ['10.180.0.1'], {
      ports: [{ name: 'web', protocol: 'TCP', port: 8080 }],
    });
    const mixed = ruleset({
      services: [service('ns1/svc1', { clusterIPs: ['172.30.0.41'], ports })],
      slices: [first, other],
    });
    expect(trace(mixed, { to: '172.30.0.41:80' })).toBe('10.180.0.1:8080, 10.180.0.9:9090');
  });
});

describe('a NodePort Service', () => {
  const cluster: Cluster = {
    services: [
      service('ns1/svc1', {
        type: 'NodePort',
        clusterIPs: ['172.30.0.41'],
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
      slice('ns1/svc2', ['10.180.0.2'], {
        ports: [{ name: 'p80', protocol: 'UDP', port: 80 }],
      }),
    ],
  };
  const masqueraded = '10.180.0.1:80 masqueraded';

  it.each([
    ['outside', outside, `${node}:3001`],
    ['a pod', pod, `${node}:3001`],
    ['the node', node, `${node}:3001`],
  ])('is reached from %s, masqueraded', (_, source, to) => {
    expect(trace(ruleset(cluster), { source, to })).toBe(masqueraded);
  });

  it('shares its number with another protocol', () => {
    const rules = ruleset(cluster);
    const packet = { source: outside, to: `${node}:3001`, protocol: 'udp' } as const;
    expect(trace(rules, packet)).toBe('10.180.0.2:80 masqueraded');
  });

  it('shows the client to an endpoint that is the node itself: no packet leaves', () => {
    const onNode = ruleset({ ...cluster, slices: [slice('ns1/svc1', [node])] });
    expect(trace(onNode, { source: outside, to: `${node}:3001` })).toBe(`${node}:80`);
    expect(trace(onNode, { source: pod, to: '172.30.0.41:80' })).toBe(`${node}:80`);
  });

  it('does not answer on addresses of others', () => {
    expect(trace(ruleset(cluster), { source: outside, to: '192.168.7.7:3001' })).toBe('unmatched');
  });

  it("S44. answers on the node's own address if nothing else is said, and never on loopback", () => {
    const rules = ruleset(cluster);
    expect(trace(rules, { source: outside, to: '192.168.1.2:3001' })).toBe('unmatched');
    expect(trace(rules, { source: '127.0.0.1', to: '127.0.0.1:3001' })).toBe('unmatched');
  });

  it('S45. with every address admitted answers on all but loopback', () => {
    const rules = ruleset(cluster, { nodePortAddresses: 'all' });
    expect(trace(rules, { source: outside, to: `${node}:3001` })).toBe(masqueraded);
    expect(trace(rules, { source: outside, to: '192.168.1.2:3001' })).toBe(masqueraded);
    expect(trace(rules, { source: '127.0.0.1', to: '127.0.0.1:3001' })).toBe('unmatched');
    expect(trace(rules, { source: outside, to: '192.168.7.7:3001' })).toBe('unmatched');
  });

  it('is refused without endpoints, with one elsewhere only dropped', () => {
    const [first] = cluster.services;
    if (first === undefined) throw new Error('there is no Service');
    const none = ruleset({ services: cluster.services });
    for (const source of [pod, node, outside]) {
      expect(trace(none, { source, to: `${node}:3001` })).toBe('reject');
    }
    const elsewhere = ruleset({
      services: [{ ...first, externalTrafficPolicy: 'Local' }],
      slices: [slice('ns1/svc1', ['10.180.0.1'])],
    });
    expect(trace(elsewhere, { source: outside, to: `${node}:3001` })).toBe('drop');
    expect(trace(elsewhere, { source: pod, to: `${node}:3001` })).toBe('10.180.0.1:80');
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
      slice('ns1/six', [local('fd00:10::6')]),
    ],
  };
  const v6 = ruleset(cluster, { family: 'ip6' });

  it('each family leads to endpoints of its own', () => {
    expect(trace(ruleset(cluster), { to: '172.30.0.41:80' })).toBe('10.180.0.1:80');
    expect(trace(v6, { source: 'fd00:10::9', to: '[fd00:96::41]:80' })).toBe(
      '[fd00:10::1]:80, [fd00:10::2]:80',
    );
    expect(trace(v6, { source: 'fd00:10::9', to: '[fd00:96::66]:80' })).toBe('[fd00:10::6]:80');
  });

  it('masquerades hairpin, outside and node ports in IPv6 as in IPv4', () => {
    expect(trace(v6, { source: 'fd00:10::6', to: '[fd00:96::66]:80' })).toBe(
      '[fd00:10::6]:80 masqueraded',
    );
    expect(trace(v6, { source: '2001:db8::1', to: '[fd00:192::2]:3001' })).toBe(
      '[fd00:10::1]:80 masqueraded, [fd00:10::2]:80 masqueraded',
    );
  });

  it('node ports never answer on ::1', () => {
    expect(trace(v6, { source: '::1', to: '[::1]:3001' })).toBe('unmatched');
  });

  it('an IPv6 Service without endpoints is refused', () => {
    const empty = ruleset({ services: cluster.services }, { family: 'ip6' });
    expect(trace(empty, { source: 'fd00:10::9', to: '[fd00:96::66]:80' })).toBe('reject');
  });
});

describe('an external address', () => {
  const rules = ruleset({
    services: [
      service('ns1/svc1', { clusterIPs: ['172.30.0.41'], externalIPs: ['192.168.99.11'] }),
    ],
    slices: [slice('ns1/svc1', ['10.180.0.1'])],
  });

  it.each([pod, node, outside])('is served and masqueraded for %s', (source) => {
    expect(trace(rules, { source, to: '192.168.99.11:80' })).toBe('10.180.0.1:80 masqueraded');
  });
});

describe('traffic policies', () => {
  const balanced = (fields: object, endpoints: Parameters<typeof slice>[1]): Cluster => ({
    services: [
      service('ns1/svc1', {
        type: 'LoadBalancer',
        clusterIPs: ['172.30.0.41'],
        loadBalancerIngress: [{ ip: '1.2.3.4', ipMode: 'VIP' }],
        ports: [{ name: 'p80', protocol: 'TCP', port: 80, nodePort: 3001 }],
        ...fields,
      }),
    ],
    slices: [slice('ns1/svc1', endpoints)],
  });
  const mixed = ['10.0.1.2', local('10.0.1.3')];
  const both = '10.0.1.2:80, 10.0.1.3:80';
  const bothMasqueraded = '10.0.1.2:80 masqueraded, 10.0.1.3:80 masqueraded';
  const onlyLocal = '10.0.1.3:80';
  const onlyLocalMasqueraded = '10.0.1.3:80 masqueraded';

  const clusterIP = '172.30.0.41:80';
  const nodePort = `${node}:3001`;
  const lb = '1.2.3.4:80';

  describe.each([
    {
      policy: 'Cluster everywhere',
      fields: {},
      internal: [both, bothMasqueraded, bothMasqueraded],
      external: [bothMasqueraded, bothMasqueraded, bothMasqueraded],
    },
    {
      policy: 'external Local',
      fields: { externalTrafficPolicy: 'Local' },
      internal: [both, bothMasqueraded, bothMasqueraded],
      external: [both, bothMasqueraded, onlyLocal],
    },
    {
      policy: 'internal Local',
      fields: { internalTrafficPolicy: 'Local' },
      internal: [onlyLocal, onlyLocalMasqueraded, onlyLocalMasqueraded],
      external: [bothMasqueraded, bothMasqueraded, bothMasqueraded],
    },
  ])('$policy', ({ fields, internal, external }) => {
    const rules = ruleset(balanced(fields, mixed));
    const sources = [pod, node, outside];
    it.each(sources.map((source, i) => ({ source, want: internal[i] })))(
      'cluster address from $source: $want',
      ({ source, want }) => expect(trace(rules, { source, to: clusterIP })).toBe(want),
    );
    it.each(sources.map((source, i) => ({ source, want: external[i] })))(
      'node port and load balancer from $source: $want',
      ({ source, want }) => {
        expect(trace(rules, { source, to: nodePort })).toBe(want);
        expect(trace(rules, { source, to: lb })).toBe(want);
      },
    );
  });

  it('without a way to tell pods, nothing is masqueraded as off-cluster', () => {
    const rules = ruleset(balanced({ externalTrafficPolicy: 'Local' }, mixed), {
      localDetector: { kind: 'none' },
    });
    expect(trace(rules, { source: outside, to: clusterIP })).toBe(both);
    expect(trace(rules, { source: pod, to: lb })).toBe(onlyLocal);
  });

  it('external Local without an endpoint here drops outsiders, serves pods and the node', () => {
    const rules = ruleset(balanced({ externalTrafficPolicy: 'Local' }, ['10.0.1.2']));
    for (const to of [nodePort, lb]) {
      expect(trace(rules, { source: outside, to })).toBe('drop');
      expect(trace(rules, { source: pod, to })).toBe('10.0.1.2:80');
      expect(trace(rules, { source: node, to })).toBe('10.0.1.2:80 masqueraded');
    }
  });

  it('internal Local without an endpoint here drops, without any endpoint refuses', () => {
    const elsewhere = ruleset(balanced({ internalTrafficPolicy: 'Local' }, ['10.0.1.2']));
    expect(trace(elsewhere, { to: clusterIP })).toBe('drop');
    const nowhere = ruleset(balanced({ internalTrafficPolicy: 'Local' }, []));
    expect(trace(nowhere, { to: clusterIP })).toBe('reject');
  });

  it.each([
    ['nothing is counted', 'none'],
    ['what they keep out is counted', 'services'],
  ] as const)('source ranges guard load balancer addresses, and only these; %s', (_, counters) => {
    const fields = { loadBalancerSourceRanges: [' 203.0.113.0/25', '192.168.0.0/24', 'fd00::/8'] };
    const rules = ruleset(balanced(fields, ['10.0.1.2']), { counters });
    expect(trace(rules, { source: outside, to: lb })).toBe('10.0.1.2:80 masqueraded');
    expect(trace(rules, { source: blocked, to: lb })).toBe('drop');
    expect(trace(rules, { source: pod, to: lb })).toBe('drop');
    expect(trace(rules, { source: node, to: lb })).toBe('10.0.1.2:80 masqueraded');
    expect(trace(rules, { source: '1.2.3.4', to: lb })).toBe('10.0.1.2:80 masqueraded');
    expect(trace(rules, { source: blocked, to: nodePort })).toBe('10.0.1.2:80 masqueraded');
    expect(trace(rules, { source: pod, to: clusterIP })).toBe('10.0.1.2:80');
  });

  it.each([
    ['a range of everything', ['203.0.113.0/25', '0.0.0.0/0']],
    ['ranges of the other family', ['fd00::/8']],
  ])('%s restricts nobody', (_, loadBalancerSourceRanges) => {
    const rules = ruleset(balanced({ loadBalancerSourceRanges }, ['10.0.1.2']));
    expect(trace(rules, { source: blocked, to: lb })).toBe('10.0.1.2:80 masqueraded');
  });

  it('a load balancer address of ipMode Proxy is not ours', () => {
    const loadBalancerIngress = [{ ip: '1.2.3.4', ipMode: 'Proxy' }] as const;
    const rules = ruleset(balanced({ loadBalancerIngress }, ['10.0.1.2']));
    expect(trace(rules, { source: outside, to: lb })).toBe('unmatched');
  });

  it('two Services that claim one address: the first by name has it whole', () => {
    const claim = (name: string, clusterIP: string): Cluster['services'][number] =>
      service(name, { clusterIPs: [clusterIP], externalIPs: ['192.168.99.11'] });
    const rules = ruleset({
      services: [claim('ns1/svc2', '172.30.0.42'), claim('ns1/svc1', '172.30.0.41')],
      slices: [
        slice('ns1/svc1', ['10.180.0.1']),
        slice('ns1/svc2', ['10.180.0.2', '10.180.0.3', '10.180.0.4']),
      ],
    });
    expect(trace(rules, { to: '192.168.99.11:80' })).toBe('10.180.0.1:80 masqueraded');
    expect(trace(rules, { to: '172.30.0.42:80' })).toBe(
      '10.180.0.2:80, 10.180.0.3:80, 10.180.0.4:80',
    );
  });

  it('with affinity a new client may get any endpoint the policy allows', () => {
    const sticky = { affinitySeconds: 60, externalTrafficPolicy: 'Local' };
    const rules = ruleset(balanced(sticky, mixed));
    expect(trace(rules, { source: pod, to: clusterIP })).toBe(both);
    expect(trace(rules, { source: outside, to: lb })).toBe(onlyLocal);
    expect(trace(rules, { source: node, to: nodePort })).toBe(bothMasqueraded);
  });
});
