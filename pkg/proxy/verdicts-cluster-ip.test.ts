/** Packets to cluster addresses, in every mode. */
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { places, type Places } from './testdata/places.ts';
import { local, p80, service, slice, type Cluster } from './testdata/records.ts';
import { balanced, testVerdicts, type Differing, type Scenario } from './testdata/verdicts.ts';

const plain = (at: Places): Cluster['services'][number] =>
  service('ns1/svc1', { clusterIPs: [at.clusterIP] });
const one = (at: Places): Cluster => ({
  services: [plain(at)],
  slices: [slice('ns1/svc1', [at.far])],
});
const three = (at: Places): Cluster => ({
  services: [plain(at)],
  slices: [slice('ns1/svc1', [at.far, local(at.near), at.far2])],
});

/** So many that each of nftables mode's chains that choose is asked. */
const counts = [1, 2, 3, 4, 5, 8, 9, 17, 64, 65, 300, 1_000];
const reachesEach = (count: number): Scenario => {
  const numbers = Array.from({ length: count }, (_, i) => i);
  const address = (i: number): string => `10.180.${i >> 8}.${i & 255}`;
  return {
    title: `each of ${count} endpoints is reached`,
    only: {
      family: 'ip',
      ...(count > 65 ? { program: 'nftables' } : {}),
      why: 'the choice knows no addresses, and in iptables mode it is a rule for each, however many',
    },
    cluster: (at) => ({
      services: [plain(at)],
      slices: [slice('ns1/svc1', numbers.map(address))],
    }),
    packets: [['pod', 'clusterIP:80', numbers.map((i) => `${address(i)}:80`).join(', ')]],
  };
};

const noSuchPort: Differing = {
  iptables: 'unmatched',
  nftables: 'reject',
  ipvs: 'reject',
  why: 'one set of all cluster addresses costs nothing, a rule for each would',
};

const ports = [
  { name: 'web', protocol: 'TCP', port: 80, nodePort: 0 },
  { name: 'dns', protocol: 'UDP', port: 53, nodePort: 0 },
  { name: 'dns-tcp', protocol: 'TCP', port: 53, nodePort: 0 },
  { name: 'sig', protocol: 'SCTP', port: 53, nodePort: 0 },
] as const;
const several = (at: Places): Cluster['services'][number] =>
  service('ns1/svc1', { clusterIPs: [at.clusterIP], ports });

/** One Service of both families and one of IPv6 alone; `turned`: which family is named first. */
const dualStack =
  (turned = false) =>
  (): Cluster => {
    const of = [places.ip, places.ip6];
    if (turned) of.reverse();
    const clusterIPs = of.map((at) => at.clusterIP);
    return {
      services: [
        service('ns1/both', { type: 'NodePort', clusterIPs, ports: p80(3001) }),
        service('ns1/six', { clusterIPs: [places.ip6.clusterIP2] }),
      ],
      slices: [
        slice('ns1/both', [places.ip.far]),
        slice('ns1/both', [places.ip6.far, places.ip6.far2]),
        slice('ns1/six', [local(places.ip6.near)]),
      ],
    };
  };

testVerdicts([
  {
    title: 'S1. a pod reaches the one endpoint of a cluster address',
    cluster: one,
    packets: [['pod', 'clusterIP:80', 'far:80']],
  },
  {
    title: 'pods reach every endpoint with their own address, others are masqueraded',
    cluster: three,
    packets: [
      ['pod', 'clusterIP:80', 'far:80, far2:80, near:80'],
      ['node', 'clusterIP:80', 'far:80 masqueraded, far2:80 masqueraded, near:80 masqueraded'],
      ['outside', 'clusterIP:80', 'far:80 masqueraded, far2:80 masqueraded, near:80 masqueraded'],
    ],
  },
  {
    title: 'S18. an endpoint that reaches itself is masqueraded, and only then',
    cluster: three,
    packets: [['near', 'clusterIP:80', 'far:80, far2:80, near:80 masqueraded']],
  },
  ...counts.map(reachesEach),
  {
    title: 'S15. other ports and protocols of its address are not served',
    cluster: one,
    packets: (['pod', 'node', 'outside'] as const).flatMap((from) => [
      [from, 'clusterIP:81', noSuchPort],
      [from, 'clusterIP:80', noSuchPort, { protocol: 'udp' }],
    ]),
  },
  {
    title: 'S17. an address that is no Service’s is not touched',
    cluster: one,
    packets: [
      ['pod', 'clusterIP2:80', 'unmatched'],
      ['pod', 'unusedIP:80', 'unmatched'],
      ['outside', 'neighbour:80', 'unmatched'],
    ],
  },
  {
    title: 'S17. one of a range that is known to be of cluster addresses is',
    cluster: one,
    node: { serviceCIDRs: [parsePrefix('172.30.0.0/16'), parsePrefix('fd00:96::/112')] },
    packets: [
      [
        'pod',
        'unusedIP:80',
        {
          iptables: 'unmatched',
          nftables: 'drop',
          why: 'as in kube-proxy, iptables mode knows no service CIDR',
        },
      ],
      ['pod', 'neighbour:80', 'unmatched'],
      ['pod', 'clusterIP:81', noSuchPort],
      ['pod', 'clusterIP:80', 'far:80'],
    ],
  },
  {
    title: 'S13. S14. S15. each port and protocol leads to its own target port',
    cluster: (at) => ({
      services: [several(at)],
      slices: [
        slice('ns1/svc1', [at.far], {
          ports: [
            { name: 'web', protocol: 'TCP', port: 8080 },
            { name: 'dns', protocol: 'UDP', port: 5353 },
            { name: 'dns-tcp', protocol: 'TCP', port: 5354 },
            { name: 'sig', protocol: 'SCTP', port: 5355 },
          ],
        }),
      ],
    }),
    packets: [
      ['pod', 'clusterIP:80', 'far:8080'],
      ['pod', 'clusterIP:53', 'far:5353', { protocol: 'udp' }],
      ['pod', 'clusterIP:53', 'far:5354', { protocol: 'tcp' }],
      ['pod', 'clusterIP:53', 'far:5355', { protocol: 'sctp' }],
      ['pod', 'clusterIP:80', noSuchPort, { protocol: 'udp' }],
    ],
  },
  {
    title: "S16. another Service's port does not answer on this address",
    cluster: (at) => {
      const p90 = [{ name: 'p90', protocol: 'TCP', port: 90, nodePort: 0 }] as const;
      return {
        services: [plain(at), service('ns1/svc2', { clusterIPs: [at.clusterIP2], ports: p90 })],
        slices: [slice('ns1/svc1', [at.far]), slice('ns1/svc2', [at.far2], { ports: p90 })],
      };
    },
    packets: [
      ['pod', 'clusterIP2:90', 'far2:90'],
      ['pod', 'clusterIP:90', noSuchPort],
    ],
  },
  {
    title: 'S154. pods may give one port name different numbers',
    cluster: (at) => {
      const numbered = (address: string, port: number): ReturnType<typeof slice> =>
        slice('ns1/svc1', [address], {
          name: `on-${port}`,
          ports: [{ name: 'web', protocol: 'TCP', port }],
        });
      return { services: [several(at)], slices: [numbered(at.far, 8080), numbered(at.far2, 9090)] };
    },
    packets: [['pod', 'clusterIP:80', 'far:8080, far2:9090']],
  },
  {
    title: 'ports are refused one by one while they have no endpoints',
    cluster: (at) => ({
      services: [several(at)],
      slices: [
        slice('ns1/svc1', [at.far], { ports: [{ name: 'dns', protocol: 'UDP', port: 53 }] }),
      ],
    }),
    packets: [
      ['pod', 'clusterIP:53', 'far:53', { protocol: 'udp' }],
      ['pod', 'clusterIP:53', 'reject', { protocol: 'tcp' }],
      ['pod', 'clusterIP:53', 'reject', { protocol: 'sctp' }],
    ],
  },
  {
    title: 'without endpoints it is refused whoever asks, by its own protocol',
    cluster: (at) => ({ services: [plain(at)] }),
    packets: (['pod', 'node', 'outside'] as const).flatMap((from) => [
      [from, 'clusterIP:80', 'reject'],
      [from, 'clusterIP:80', noSuchPort, { protocol: 'udp' }],
      [from, 'clusterIP:80', noSuchPort, { protocol: 'sctp' }],
    ]),
  },
  {
    title: 'S163. IPv4 leads to endpoints of IPv4, in either order of the families',
    only: { family: 'ip', why: 'IPv6 has other endpoints' },
    cluster: dualStack(),
    sameAs: dualStack(true),
    packets: [
      ['pod', 'clusterIP:80', 'far:80'],
      ['outside', 'node:3001', 'far:80 masqueraded'],
      ['pod', 'clusterIP2:80', 'unmatched'],
    ],
    unwritten: /fd00:|ns1\/six/,
  },
  {
    title: 'S163. IPv6 leads to endpoints of IPv6, in either order of the families',
    only: { family: 'ip6', why: 'IPv4 has other endpoints' },
    cluster: dualStack(),
    sameAs: dualStack(true),
    packets: [
      ['pod', 'clusterIP:80', 'far:80, far2:80'],
      ['pod', 'clusterIP2:80', 'near:80'],
      ['near', 'clusterIP2:80', 'near:80 masqueraded'],
      ['outside', 'node:3001', 'far:80 masqueraded, far2:80 masqueraded'],
    ],
    unwritten: /172\.30\./,
  },
  {
    title: 'S163. a Service of one family without endpoints is refused in that one',
    only: { family: 'ip6', why: 'the Service is of IPv6' },
    cluster: () => ({ services: dualStack()().services }),
    packets: [['pod', 'clusterIP2:80', 'reject']],
  },
  {
    title: 'S20. addresses with leading zeros are served under their decimal value, and written so',
    only: { family: 'ip', why: 'in IPv6 a leading zero is nothing odd' },
    cluster: (at) => ({
      services: [
        balanced(at, {
          clusterIPs: ['172.030.000.041'],
          externalIPs: ['192.168.099.011'],
          loadBalancerIngress: [{ ip: '001.002.003.004', ipMode: 'VIP' }],
          loadBalancerSourceRanges: ['203.000.113.000/25'],
        }),
      ],
      slices: [slice('ns1/svc1', ['10.000.001.002'])],
    }),
    packets: [
      ['pod', 'clusterIP:80', 'far:80'],
      ['outside', 'externalIP:80', 'far:80 masqueraded'],
      ['outside', 'loadBalancer:80', 'far:80 masqueraded'],
      ['blocked', 'loadBalancer:80', 'drop'],
    ],
    unwritten: /[ .]0\d/,
  },
]);
