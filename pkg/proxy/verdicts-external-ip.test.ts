/** Packets to external addresses, and to addresses that more than one wants, in every mode. */
import type { Places } from './testdata/places.ts';
import { local, service, slice, type Cluster } from './testdata/records.ts';
import { balanced, testVerdicts, type Scenario } from './testdata/verdicts.ts';

const plain = (at: Places): Cluster['services'][number] =>
  service('ns1/svc1', { clusterIPs: [at.clusterIP] });
const masqueraded = 'far:80 masqueraded';

/** Two Services with one external address; the second is told of first. */
const claimed =
  ([first, second]: readonly [string, string], portName = 'p80') =>
  (at: Places): Cluster => {
    const ports = [{ name: portName, protocol: 'TCP', port: 80, nodePort: 0 }] as const;
    const claim = (name: string, clusterIP: string): Cluster['services'][number] =>
      service(name, { clusterIPs: [clusterIP], externalIPs: [at.externalIP], ports });
    return {
      services: [claim(second, at.clusterIP2), claim(first, at.clusterIP)],
      slices: [
        slice(first, [at.near], { ports }),
        slice(second, [at.far, at.far2, local(at.near)], { ports }),
      ],
    };
  };

testVerdicts([
  {
    title: 'S19. an external address that no host has is served, masqueraded for all',
    cluster: (at) => ({
      services: [{ ...plain(at), externalIPs: [at.externalIP] }],
      slices: [slice('ns1/svc1', [at.far])],
    }),
    packets: [
      ['pod', 'externalIP:80', 'far:80 masqueraded'],
      ['node', 'externalIP:80', 'far:80 masqueraded'],
      ['outside', 'externalIP:80', 'far:80 masqueraded'],
    ],
  },
  {
    title: 'an external address of the other family is not written',
    cluster: (at) => ({
      services: [{ ...plain(at), externalIPs: ['198.51.100.77', '2001:db8:ffff::77'] }],
      slices: [slice('ns1/svc1', [at.far])],
    }),
    only: { family: 'ip', why: 'the pattern is of IPv6' },
    packets: [['pod', 'clusterIP:80', 'far:80']],
    unwritten: /ffff::77/,
  },
  {
    title: 'of two Services that claim one address the first by name has it whole',
    cluster: claimed(['ns1/svc1', 'ns1/svc2']),
    packets: [
      ['pod', 'externalIP:80', 'near:80 masqueraded'],
      ['pod', 'clusterIP2:80', 'far:80, far2:80, near:80'],
    ],
  },
  {
    title: 'the first by name is the one whose name another continues',
    cluster: claimed(['ns1/svc', 'ns1/svc-2'], ''),
    packets: [
      ['pod', 'externalIP:80', 'near:80 masqueraded'],
      ['pod', 'clusterIP2:80', 'far:80, far2:80, near:80'],
    ],
  },
  ...(
    [
      ['without endpoints', {}, []],
      ['of policy Local without endpoints here', { internalTrafficPolicy: 'Local' }, ['far']],
    ] as const
  ).map(([title, fields, on]): Scenario => ({
    title: `of two Services that claim one address the second has it while the first is ${title}`,
    // Its cluster address, so that the internal policy counts.
    cluster: (at) => ({
      services: [
        service('ns1/svc1', { clusterIPs: [at.clusterIP], ...fields }),
        service('ns1/svc2', { clusterIPs: [at.clusterIP2], externalIPs: [at.clusterIP] }),
      ],
      slices: [
        slice(
          'ns1/svc1',
          on.map((place) => at[place]),
        ),
        slice('ns1/svc2', [at.far2]),
      ],
    }),
    packets: [
      ['pod', 'clusterIP:80', 'far2:80 masqueraded'],
      ['outside', 'clusterIP:80', 'far2:80 masqueraded'],
    ],
  })),
  {
    title:
      'of two Services that claim one address the policy and ranges of the second mean nothing',
    cluster: (at) => {
      const ingress = [{ ip: at.loadBalancer, ipMode: 'VIP' }] as const;
      const claim = { type: 'LoadBalancer', loadBalancerIngress: ingress } as const;
      return {
        services: [
          service('ns1/svc1', {
            ...claim,
            clusterIPs: [at.clusterIP],
            externalIPs: [at.externalIP],
            externalTrafficPolicy: 'Local',
          }),
          service('ns1/svc2', {
            ...claim,
            clusterIPs: [at.clusterIP2],
            externalIPs: [at.externalIP],
            loadBalancerSourceRanges: ['203.0.113.0/25', '2001:db8::/64'],
          }),
        ],
        slices: [slice('ns1/svc1', [local(at.near)]), slice('ns1/svc2', [at.far])],
      };
    },
    packets: [
      ['outside', 'externalIP:80', 'near:80'],
      ['outside', 'loadBalancer:80', 'near:80'],
      ['blocked', 'loadBalancer:80', 'near:80'],
    ],
  },
  {
    title: 'of two Services without endpoints that claim one address the first says what becomes',
    cluster: (at) => ({
      services: ['ns1/svc1', 'ns1/svc2'].map((name, i) =>
        service(name, {
          clusterIPs: [i === 0 ? at.clusterIP : at.clusterIP2],
          externalIPs: [at.externalIP],
        }),
      ),
    }),
    packets: [['outside', 'externalIP:80', 'reject']],
  },
  {
    title: 'one that is a load balancer address too is open to all, as the first rule for it says',
    cluster: (at) => ({
      services: [
        balanced(at, {
          loadBalancerIngress: [at.externalIP, at.loadBalancer].map((ip) => ({
            ip,
            ipMode: 'VIP',
          })),
          loadBalancerSourceRanges: ['203.0.113.0/25', '2001:db8::/64'],
        }),
      ],
      slices: [slice('ns1/svc1', [at.far])],
    }),
    packets: [
      ['blocked', 'loadBalancer:80', 'drop'],
      [
        'blocked',
        'externalIP:80',
        {
          iptables: masqueraded,
          nftables: masqueraded,
          ipvs: 'drop',
          why: 'in mode ipvs one set names the guarded addresses, whatever else they are',
        },
      ],
      ['outside', 'externalIP:80', masqueraded],
    ],
  },
  {
    title: "one that is the node's own is served, and its other ports are the node's",
    cluster: (at) => ({
      services: [{ ...plain(at), externalIPs: [at.second] }],
      slices: [slice('ns1/svc1', [at.far])],
    }),
    packets: [
      ['pod', 'second:80', masqueraded],
      ['node', 'second:80', masqueraded],
      ['outside', 'second:80', masqueraded],
      ['outside', 'second:81', 'unmatched'],
      ['outside', 'node:80', 'unmatched'],
    ],
  },
  {
    title: "one that is another node's is served, and its other ports are that node's",
    cluster: (at) => ({
      services: [{ ...plain(at), externalIPs: [at.neighbour] }],
      slices: [slice('ns1/svc1', [at.far])],
    }),
    packets: [
      ['node', 'neighbour:80', masqueraded],
      [
        'pod',
        'neighbour:80',
        {
          iptables: masqueraded,
          nftables: masqueraded,
          ipvs: 'unmatched',
          why: 'the other node serves it: IPVS has only packets that are for this host, or from it',
        },
      ],
      // As the host's own address it would refuse these: no tunnel, no API server.
      ['pod', 'neighbour:6443', 'unmatched'],
      ['node', 'neighbour:6443', 'unmatched'],
      ['outside', 'neighbour:6443', 'unmatched'],
    ],
  },
  {
    title: "one that is the node's own is refused without endpoints, also to the node itself",
    cluster: (at) => ({ services: [{ ...plain(at), externalIPs: [at.second] }] }),
    packets: [
      ['pod', 'second:80', 'reject'],
      ['node', 'second:80', 'reject'],
      ['outside', 'second:80', 'reject'],
      ['outside', 'second:81', 'unmatched'],
    ],
  },
]);
