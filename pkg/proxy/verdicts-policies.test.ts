/**
 * Who reaches which endpoints, and who is masqueraded, by traffic policy, by where endpoints are and
 * by how the proxy tells pods, in every mode. The same behaviours run on the kernel.
 */
import type { ServiceRecord } from '#pkg/kube/types.ts';
import type { Place, Places } from './testdata/places.ts';
import { local, p80, slice, type Cluster } from './testdata/records.ts';
import {
  balanced,
  testVerdicts,
  type Differing,
  type NodeSettings,
  type Row,
  type Scenario,
} from './testdata/verdicts.ts';

const sources = ['pod', 'node', 'outside'] as const;
/** A verdict for each of the sources. */
type Verdicts = readonly [Row[2], Row[2], Row[2]];

const any = 'near:80, far:80';
const anyMasqueraded = 'near:80 masqueraded, far:80 masqueraded';
const near = 'near:80';
const nearMasqueraded = 'near:80 masqueraded';
const far = 'far:80';
const farMasqueraded = 'far:80 masqueraded';
const all = (verdict: Row[2]): Verdicts => [verdict, verdict, verdict];
const unserved: Differing = {
  iptables: 'unmatched',
  nftables: 'reject',
  ipvs: 'reject',
  why: 'kube-proxy’s iptables rules refuse such packets on their way in and through, not out',
};

interface Situation extends Pick<Scenario, 'title' | 'only'> {
  readonly fields?: Partial<ServiceRecord>;
  /** Where endpoints are; both near and far if nothing is said. */
  readonly on?: readonly ('near' | 'far' | 'near, terminating')[];
  readonly node?: NodeSettings;
  /** Of packets to the cluster address, and to the others. */
  readonly internal: Verdicts;
  readonly external: Verdicts;
  /** To external and load balancer addresses, when it is not as to the node port. */
  readonly beyond?: Verdicts;
}

function scenarioOf({
  title,
  fields = {},
  on = ['near', 'far'],
  node,
  ...rest
}: Situation): Scenario {
  const rows = (to: Row[1], verdicts: Verdicts): Row[] =>
    sources.map((from, i) => [from, to, verdicts[i] ?? '']);
  const beyond = rest.beyond ?? rest.external;
  return {
    title,
    cluster: clusterOf(fields, on),
    ...(node === undefined ? {} : { node }),
    packets: [
      ...rows('clusterIP:80', rest.internal),
      ...rows('node:3001', rest.external),
      ...rows('externalIP:80', beyond),
      ...rows('loadBalancer:80', beyond),
    ],
  };
}

const clusterOf =
  (fields: Partial<ServiceRecord>, on: NonNullable<Situation['on']>) =>
  (at: Places): Cluster => ({
    services: [balanced(at, fields)],
    slices: [
      slice(
        'ns1/svc1',
        on.map((where) => {
          if (where === 'far') return at.far;
          return { ...local(at.near), terminating: where === 'near, terminating' };
        }),
      ),
    ],
  });

const blind: NodeSettings = { localDetector: { kind: 'none' } };
const internalLocal = { internalTrafficPolicy: 'Local' } as const;
const externalLocal = { externalTrafficPolicy: 'Local' } as const;
const bothLocal = { ...internalLocal, ...externalLocal };
const mostMasqueraded: Verdicts = [any, anyMasqueraded, anyMasqueraded];
/** Of external policy Local. */
const within = (verdict: string, ipvs: string): Differing => ({
  iptables: verdict,
  nftables: verdict,
  ipvs,
  why: 'a virtual server has one list of endpoints, whoever asks',
});
const ofNode = within(anyMasqueraded, nearMasqueraded);
const outsidersHere: Verdicts = [within(any, near), ofNode, near];

const situations: readonly Situation[] = [
  {
    title: 'S7. S8. S9. S10. S11. S12. no endpoints, policies Cluster',
    on: [],
    internal: all('reject'),
    external: all('reject'),
    beyond: ['reject', unserved, 'reject'],
  },
  {
    title: 'S65. no endpoints, policies Local',
    fields: bothLocal,
    on: [],
    internal: all('reject'),
    external: all('reject'),
    beyond: ['reject', unserved, 'reject'],
  },
  {
    title: 'S55. S19. policies Cluster',
    internal: mostMasqueraded,
    external: all(anyMasqueraded),
  },
  {
    title: 'endpoints elsewhere only, policies Cluster',
    on: ['far'],
    internal: [far, farMasqueraded, farMasqueraded],
    external: all(farMasqueraded),
  },
  {
    title: 'S56. S57. S58. S59. external Local',
    fields: externalLocal,
    internal: mostMasqueraded,
    external: outsidersHere,
  },
  {
    title: 'S60. internal Local',
    fields: internalLocal,
    internal: [near, nearMasqueraded, nearMasqueraded],
    external: all(anyMasqueraded),
  },
  {
    title: 'S56. S57. S58. policies Local',
    fields: bothLocal,
    internal: [near, nearMasqueraded, nearMasqueraded],
    external: outsidersHere,
  },
  {
    title: 'S64. external Local, endpoints elsewhere only',
    fields: externalLocal,
    on: ['far'],
    internal: [far, farMasqueraded, farMasqueraded],
    external: [far, farMasqueraded, 'drop'],
  },
  {
    title: 'S66. internal Local, endpoints elsewhere only',
    fields: internalLocal,
    on: ['far'],
    internal: all('drop'),
    external: all(farMasqueraded),
  },
  {
    title: 'S64. S66. policies Local, endpoints elsewhere only',
    fields: bothLocal,
    on: ['far'],
    internal: all('drop'),
    external: [far, farMasqueraded, 'drop'],
  },
  {
    title: 'S70. internal Local, only a terminating endpoint here',
    fields: internalLocal,
    on: ['near, terminating'],
    internal: [near, nearMasqueraded, nearMasqueraded],
    external: all(nearMasqueraded),
  },
  {
    title: 'S61. pods cannot be told, policies Cluster',
    node: blind,
    internal: all(any),
    external: all(anyMasqueraded),
  },
  {
    title: 'S61. pods cannot be told, external Local',
    fields: externalLocal,
    node: blind,
    internal: all(any),
    external: [near, ofNode, near],
  },
  {
    title: 'S61. pods cannot be told, internal Local',
    fields: internalLocal,
    node: blind,
    internal: all(near),
    external: all(anyMasqueraded),
  },
  {
    title: 'S62. masqueradeAll, policies Cluster',
    node: { masqueradeAll: true },
    internal: all(anyMasqueraded),
    external: all(anyMasqueraded),
  },
  {
    title: 'S62. masqueradeAll, external Local',
    fields: externalLocal,
    node: { masqueradeAll: true },
    internal: all(anyMasqueraded),
    external: outsidersHere,
  },
  {
    title: 'S62. masqueradeAll, internal Local',
    fields: internalLocal,
    node: { masqueradeAll: true },
    internal: all(nearMasqueraded),
    external: all(anyMasqueraded),
  },
  {
    title: 'S63. masqueradeAll, pods cannot be told, external Local',
    fields: externalLocal,
    node: { ...blind, masqueradeAll: true },
    internal: all(anyMasqueraded),
    external: [near, ofNode, near],
  },
  {
    title: 'with affinity a new client may get any endpoint the policy allows',
    fields: { ...externalLocal, affinitySeconds: 60 },
    internal: mostMasqueraded,
    external: outsidersHere,
  },
  {
    title: 'another masquerade bit does as well',
    fields: externalLocal,
    node: { masqueradeBit: 31 },
    internal: mostMasqueraded,
    external: outsidersHere,
  },
];

/** A cluster address alone, and pods told by the interface they send on. */
const toldBy = (
  localDetector: NodeSettings['localDetector'] & object,
  inside: string,
): Scenario => ({
  title: `pods are told by ${localDetector.kind}`,
  cluster: clusterOf(externalLocal, ['near', 'far']),
  node: { localDetector },
  packets: (['pod', 'outside'] satisfies Place[]).flatMap((from): Row[] => [
    [from, 'clusterIP:80', any, { inInterface: inside }],
    [from, 'loadBalancer:80', within(any, near), { inInterface: inside }],
    [from, 'clusterIP:80', anyMasqueraded, { inInterface: 'eth0' }],
    [from, 'loadBalancer:80', near, { inInterface: 'eth0' }],
  ]),
});

const internalOnly = (fields: Partial<ServiceRecord> = {}): Scenario['cluster'] =>
  clusterOf(
    { type: 'ClusterIP', externalIPs: [], loadBalancerIngress: [], ports: p80(), ...fields },
    ['near', 'far'],
  );

testVerdicts([
  ...situations.map(scenarioOf),
  ...situations
    .filter(({ on }) => on === undefined)
    .map(({ title, fields = {}, node = {}, external }): Scenario => {
      const [, toNode] = external;
      const verdict: Differing = {
        iptables: typeof toNode === 'string' ? toNode : toNode.iptables,
        nftables: 'unmatched',
        ipvs: 'unmatched',
        why: 'other modes have no node ports on 127.0.0.1',
      };
      return {
        title: `${title}: 127.0.0.1 is the node`,
        only: { family: 'ip', why: 'no mode answers on ::1' },
        cluster: clusterOf(fields, ['near', 'far']),
        node,
        packets: [['loopback', 'loopback:3001', verdict]],
      };
    }),
  toldBy({ kind: 'bridge-interface', name: 'cni0' }, 'cni0'),
  toldBy({ kind: 'interface-name-prefix', prefix: 'veth' }, 'veth12'),
  {
    title: 'S71. the external policy means nothing without an external address',
    cluster: internalOnly(externalLocal),
    sameAs: internalOnly(),
    packets: [
      ['pod', 'clusterIP:80', any],
      ['node', 'clusterIP:80', anyMasqueraded],
    ],
  },
  ...[false, true].map((conntrackLiberal): Scenario => ({
    title: `S116. INVALID packets are dropped, unless conntrack is liberal (${conntrackLiberal})`,
    only: { program: 'iptables', why: 'nftables mode, as kube-proxy’s, relies on conntrack alone' },
    cluster: clusterOf({}, ['far']),
    node: { conntrackLiberal },
    packets: [
      ['far', 'pod:40000', conntrackLiberal ? 'unmatched' : 'drop', { state: 'INVALID' }],
      ['far', 'pod:40000', 'unmatched', { state: 'ESTABLISHED' }],
    ],
  })),
]);
