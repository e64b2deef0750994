/** Packets to load balancer addresses, in every mode. */
import type { ServiceRecord } from '#pkg/kube/types.ts';
import type { Places } from './testdata/places.ts';
import { slice, type Cluster } from './testdata/records.ts';
import {
  balanced,
  testVerdicts,
  type Differing,
  type Row,
  type Scenario,
} from './testdata/verdicts.ts';

const masqueraded = 'far:80 masqueraded';
/** Of both families: outsiders, but not the blocked one, and the node. */
const ranges = [' 203.0.113.0/25', '192.168.0.0/24', ' 2001:db8::/64', 'fd00:192::/64'];
/** Without the node. */
const outsiders = ['203.0.113.0/25', '2001:db8::/64'];

/** A Service with two load balancer addresses, guarded by {@link ranges} if nothing else is said. */
const guarded =
  (fields: Partial<ServiceRecord> | ((at: Places) => Partial<ServiceRecord>) = {}) =>
  (at: Places): Cluster => ({
    services: [
      balanced(at, {
        loadBalancerIngress: [at.loadBalancer, at.loadBalancer2].map((ip) => ({
          ip,
          ipMode: 'VIP',
        })),
        loadBalancerSourceRanges: ranges,
        ...(typeof fields === 'function' ? fields(at) : fields),
      }),
    ],
    slices: [slice('ns1/svc1', [at.far])],
  });

/** The same of both addresses. */
const atEach = (from: Row[0], verdict: Row[2]): Row[] => [
  [from, 'loadBalancer:80', verdict],
  [from, 'loadBalancer2:80', verdict],
];

const open = (title: string, loadBalancerSourceRanges: readonly string[]): Scenario => ({
  title,
  cluster: guarded({ loadBalancerSourceRanges }),
  packets: [
    ...atEach('blocked', masqueraded),
    ...atEach('pod', masqueraded),
    ...atEach('node', masqueraded),
  ],
});

const fromHost: Differing = {
  iptables: 'drop',
  nftables: 'drop',
  ipvs: masqueraded,
  why: "IPVS has the host's own packets before the filter sees them, as in kube-proxy",
};

const notOfHost: Differing = {
  iptables: 'unmatched',
  nftables: 'unmatched',
  ipvs: 'reject',
  why: "mode ipvs makes these addresses the host's own, but for its listeners",
};

testVerdicts([
  {
    title: 'S21. source ranges do not touch the cluster address',
    cluster: guarded(),
    packets: [
      ['pod', 'clusterIP:80', 'far:80'],
      ['blocked', 'clusterIP:80', masqueraded],
    ],
  },
  {
    title: 'S22. S23. source ranges do not touch the node port, nor an external address',
    cluster: guarded(),
    packets: [
      ['outside', 'node:3001', masqueraded],
      ['blocked', 'node:3001', masqueraded],
      ['pod', 'node:3001', masqueraded],
      ['blocked', 'externalIP:80', masqueraded],
    ],
  },
  {
    title: 'S24. S4. source ranges admit a client, though written after a blank',
    cluster: guarded(),
    packets: atEach('outside', masqueraded),
  },
  {
    title: 'S25. source ranges drop others',
    cluster: guarded(),
    packets: atEach('blocked', 'drop'),
  },
  {
    title: 'S26. pods are others, when no range holds them',
    cluster: guarded(),
    packets: atEach('pod', 'drop'),
  },
  {
    title: 'S26. pods are admitted by a range of theirs',
    cluster: guarded({ loadBalancerSourceRanges: ['10.0.0.0/24', 'fd00:10::/112'] }),
    packets: [...atEach('pod', masqueraded), ...atEach('outside', 'drop')],
  },
  {
    title: 'S27. the node is admitted by a range that holds its own address',
    cluster: guarded(),
    packets: atEach('node', masqueraded),
  },
  {
    title: 'S28. who has the load balancer address itself is admitted with the node',
    cluster: guarded(),
    packets: [
      ['loadBalancer', 'loadBalancer:80', masqueraded],
      ['loadBalancer2', 'loadBalancer2:80', masqueraded],
    ],
  },
  {
    title: 'S28. who has the load balancer address itself is dropped when the node is',
    cluster: guarded({ loadBalancerSourceRanges: outsiders }),
    packets: [
      ['loadBalancer', 'loadBalancer:80', fromHost],
      ['loadBalancer2', 'loadBalancer2:80', fromHost],
      ...atEach('node', fromHost),
    ],
  },
  open('S29. no range restricts nobody', []),
  open('S30. a range of everything among others restricts nobody', [
    '203.0.113.0/25',
    '0.0.0.0/0',
    'fd00::/8',
    '::/0',
  ]),
  {
    ...open('S31. ranges of IPv6 only restrict nobody in IPv4', ['fd00::/8']),
    only: { family: 'ip', why: 'the ranges are of IPv6' },
  },
  {
    ...open('S31. ranges of IPv4 only restrict nobody in IPv6', ['203.0.113.0/25']),
    only: { family: 'ip6', why: 'the ranges are of IPv4' },
  },
  {
    title: 'source ranges guard Local load balancers too, whose clients keep their address',
    cluster: guarded({ externalTrafficPolicy: 'Local' }),
    packets: [
      ...atEach('blocked', 'drop'),
      // Its only endpoint is elsewhere.
      ...atEach('outside', 'drop'),
      ...atEach('node', masqueraded),
    ],
  },
  {
    title: 'its health check node port answers on its addresses: load balancers ask there, too',
    cluster: guarded({ externalTrafficPolicy: 'Local', healthCheckNodePort: 32_000 }),
    packets: [
      ...atEach('blocked', 'drop'),
      ['neighbour', 'loadBalancer:32000', 'unmatched'],
      ['neighbour', 'node:32000', 'unmatched'],
      ['neighbour', 'loadBalancer:32000', notOfHost, { protocol: 'udp' }],
      ['neighbour', 'loadBalancer:22', notOfHost],
    ],
  },
  {
    title: 'S32. an address of ipMode VIP is served',
    cluster: guarded((at) => ({
      loadBalancerIngress: [{ ip: at.loadBalancer, ipMode: 'VIP' }],
      loadBalancerSourceRanges: [],
    })),
    packets: [['outside', 'loadBalancer:80', masqueraded]],
  },
  {
    title: 'S33. one of ipMode Proxy is left alone, beside one that is served',
    cluster: guarded((at) => ({
      loadBalancerIngress: [
        { ip: at.loadBalancer, ipMode: 'Proxy' },
        { ip: at.loadBalancer2, ipMode: 'VIP' },
      ],
      loadBalancerSourceRanges: [],
    })),
    packets: [
      ['pod', 'loadBalancer:80', 'unmatched'],
      ['node', 'loadBalancer:80', 'unmatched'],
      ['outside', 'loadBalancer:80', 'unmatched'],
      ['outside', 'loadBalancer2:80', masqueraded],
    ],
  },
  {
    title: 'S36. an address that leaves the status is served no more, the node port is',
    cluster: guarded({ loadBalancerIngress: [] }),
    packets: [
      ['outside', 'loadBalancer:80', 'unmatched'],
      ['outside', 'node:3001', masqueraded],
    ],
  },
]);
