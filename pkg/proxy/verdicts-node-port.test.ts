/** Packets to node ports, in every mode. */
import type { Places } from './testdata/places.ts';
import { p80, service, slice, type Cluster } from './testdata/records.ts';
import { testVerdicts, type Differing, type Row } from './testdata/verdicts.ts';

/** Two Services with the same node port, one by TCP and one by UDP. */
const shared = (at: Places): Required<Omit<Cluster, 'zone'>> => ({
  services: [
    service('ns1/svc1', { type: 'NodePort', clusterIPs: [at.clusterIP], ports: p80(3001) }),
    service('ns1/svc2', { type: 'NodePort', clusterIPs: [at.clusterIP2], ports: p80(3001, 'UDP') }),
  ],
  slices: [slice('ns1/svc1', [at.far]), slice('ns1/svc2', [at.far2], { ports: p80(0, 'UDP') })],
});
const masqueraded = 'far:80 masqueraded';
const udp = { protocol: 'udp' } as const;

const everyAddress: Differing = {
  iptables: masqueraded,
  nftables: 'unmatched',
  why: "without nodePortAddresses nftables mode answers on the node's own address only",
};
const onLoopback: Differing = {
  iptables: masqueraded,
  nftables: 'unmatched',
  ipvs: 'unmatched',
  why: 'the other modes never need route_localnet, and so have no node ports on 127.0.0.1',
};
/** What guards other services on 127.0.0.1 where route_localnet is set. */
const guarded: Differing = {
  iptables: 'drop',
  nftables: 'unmatched',
  ipvs: 'unmatched',
  why: 'the other modes never set route_localnet: the kernel itself drops these',
};
const neighbourToLoopback: Row = ['neighbour', 'loopback:9999', guarded];

testVerdicts([
  {
    title: 'S37. S44. is reached from everywhere, masqueraded, by what each mode admits by default',
    cluster: shared,
    packets: [
      ['outside', 'node:3001', masqueraded],
      ['outside', 'second:3001', everyAddress],
      ['pod', 'node:3001', masqueraded],
      ['node', 'node:3001', masqueraded],
    ],
  },
  {
    title: 'S37. S44. answers on 127.0.0.1 in iptables mode only',
    only: { family: 'ip', why: 'no mode answers on ::1' },
    cluster: shared,
    packets: [['loopback', 'loopback:3001', onLoopback]],
  },
  {
    title: 'S42. never answers on ::1',
    only: { family: 'ip6', why: 'the kernel has no route_localnet of IPv6' },
    cluster: shared,
    packets: [
      ['loopback', 'loopback:3001', 'unmatched'],
      ['outside', 'node:3001', masqueraded],
    ],
  },
  {
    title: 'S38. without localhostNodePorts it does not answer on loopback, and does elsewhere',
    cluster: shared,
    node: { localhostNodePorts: false },
    packets: [
      ['loopback', 'loopback:3001', 'unmatched'],
      ['outside', 'node:3001', masqueraded],
      ['outside', 'second:3001', everyAddress],
      // No door, no guard.
      ['neighbour', 'loopback:9999', 'unmatched'],
    ],
  },
  {
    title: 'S46. neighbours cannot use route_localnet to reach what listens on 127.0.0.1',
    only: { family: 'ip', why: 'the kernel has no route_localnet of IPv6' },
    cluster: shared,
    packets: [
      neighbourToLoopback,
      // A node port is open to them anyway: it is translated before the guard sees the packet.
      ['neighbour', 'loopback:3001', onLoopback],
    ],
  },
  {
    title: 'S46. what belongs to a connection of 127.0.0.1 passes',
    only: {
      program: 'iptables',
      family: 'ip',
      why: 'no other rules stand in the way of established connections',
    },
    cluster: shared,
    packets: [['neighbour', 'loopback:9999', 'unmatched', { state: 'ESTABLISHED' }]],
  },
  {
    title: 'S47. one number serves a Service by TCP and another by UDP',
    cluster: shared,
    packets: [
      ['outside', 'node:3001', masqueraded],
      ['outside', 'node:3001', 'far2:80 masqueraded', udp],
      ['outside', 'node:3001', 'unmatched', { protocol: 'sctp' }],
    ],
  },
  {
    title: 'S47. goes on when the Service that shares its number goes',
    cluster: (at) => ({ ...shared(at), services: shared(at).services.slice(0, 1) }),
    packets: [
      ['outside', 'node:3001', masqueraded],
      ['outside', 'node:3001', 'unmatched', udp],
    ],
  },
  {
    title: 'shows the client to an endpoint that is the node itself: no packet leaves',
    cluster: (at) => ({ ...shared(at), slices: [slice('ns1/svc1', [at.node])] }),
    packets: [
      ['outside', 'node:3001', 'node:80'],
      ['pod', 'clusterIP:80', 'node:80'],
    ],
  },
  {
    title: 'does not answer on addresses of others',
    cluster: shared,
    packets: [['outside', 'neighbour:3001', 'unmatched']],
  },
  {
    title: "on a cluster address of the node's own, the Service's port wins over a node port",
    cluster: (at) => {
      const { services, slices } = shared(at);
      const ports = [{ name: 'p80', protocol: 'TCP', port: 3001, nodePort: 0 }] as const;
      return {
        services: [...services, service('ns1/svc3', { clusterIPs: [at.node], ports })],
        slices: [...slices, slice('ns1/svc3', [at.near])],
      };
    },
    packets: [['pod', 'node:3001', 'near:80']],
  },
  {
    title: 'S45. ranges of everything admit every address; loopback as the mode does',
    cluster: shared,
    node: { nodePortAddresses: ['0.0.0.0/0', '::/0'] },
    packets: [
      ['outside', 'node:3001', masqueraded],
      ['outside', 'second:3001', masqueraded],
      ['outside', 'neighbour:3001', 'unmatched'],
    ],
  },
  {
    title: 'S45. a range of everything opens loopback in iptables mode only',
    only: { family: 'ip', why: 'no mode answers on ::1' },
    cluster: shared,
    node: { nodePortAddresses: ['0.0.0.0/0'] },
    packets: [['loopback', 'loopback:3001', onLoopback], neighbourToLoopback],
  },
  {
    title: 'S39. S41. one range admits what is in it, and does not open loopback',
    cluster: shared,
    node: { nodePortAddresses: ['192.168.0.0/24', 'fd00:192::/64'] },
    packets: [
      ['outside', 'node:3001', masqueraded],
      ['outside', 'second:3001', 'unmatched'],
      ['loopback', 'loopback:3001', 'unmatched'],
      ['neighbour', 'loopback:9999', 'unmatched'],
    ],
  },
  {
    title: 'S41. a wider range admits both addresses, and does not open loopback',
    cluster: shared,
    node: { nodePortAddresses: ['192.168.0.0/16', 'fd00:192::/32'] },
    packets: [
      ['outside', 'node:3001', masqueraded],
      ['outside', 'second:3001', masqueraded],
      ['outside', 'neighbour:3001', 'unmatched'],
      ['loopback', 'loopback:3001', 'unmatched'],
      ['neighbour', 'loopback:9999', 'unmatched'],
    ],
  },
  {
    title: 'S40. a range of loopback opens it',
    only: { family: 'ip', why: 'no mode answers on ::1' },
    cluster: shared,
    node: { nodePortAddresses: ['192.168.0.0/24', '127.0.0.0/8'] },
    packets: [
      ['outside', 'node:3001', masqueraded],
      ['outside', 'second:3001', 'unmatched'],
      ['loopback', 'loopback:3001', onLoopback],
      neighbourToLoopback,
    ],
  },
  {
    title: 'S43. ranges of IPv6 only are as none for IPv4',
    only: { family: 'ip', why: 'for IPv6 they are ranges' },
    cluster: shared,
    node: { nodePortAddresses: ['fd00::/8'] },
    packets: [
      ['outside', 'node:3001', masqueraded],
      ['outside', 'second:3001', masqueraded],
      ['loopback', 'loopback:3001', onLoopback],
      neighbourToLoopback,
    ],
  },
  {
    title: 'S43. ranges of IPv4 only are as none for IPv6',
    only: { family: 'ip6', why: 'for IPv4 they are ranges' },
    cluster: shared,
    node: { nodePortAddresses: ['172.16.0.0/12'] },
    packets: [
      ['outside', 'node:3001', masqueraded],
      ['outside', 'second:3001', masqueraded],
      ['loopback', 'loopback:3001', 'unmatched'],
    ],
  },
  {
    title: 'S39. a range without an address of ours admits nothing',
    cluster: shared,
    node: { nodePortAddresses: ['172.16.0.0/12', 'fd00:172::/32'] },
    packets: [
      ['outside', 'node:3001', 'unmatched'],
      ['outside', 'second:3001', 'unmatched'],
      ['loopback', 'loopback:3001', 'unmatched'],
      ['neighbour', 'loopback:9999', 'unmatched'],
      ['pod', 'clusterIP:80', 'far:80'],
    ],
  },
  {
    title: 'without endpoints it is refused, in iptables mode also where it is not admitted',
    cluster: (at) => ({ services: shared(at).services }),
    node: { nodePortAddresses: ['192.168.0.0/24', 'fd00:192::/64'] },
    packets: [
      ['pod', 'node:3001', 'reject'],
      ['node', 'node:3001', 'reject'],
      ['outside', 'node:3001', 'reject'],
      ['outside', 'node:3001', 'reject', udp],
      [
        'outside',
        'second:3001',
        {
          iptables: 'reject',
          nftables: 'unmatched',
          ipvs: 'unmatched',
          why: 'kube-proxy’s iptables rule refuses it on every address of the node',
        },
      ],
      ['outside', 'neighbour:3001', 'unmatched'],
    ],
  },
]);
