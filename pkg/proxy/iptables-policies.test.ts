/**
 * Who is masqueraded and who reaches which endpoints, by traffic policy and by how the proxy tells
 * pods: thirty flows a setting, by the rules the proxy writes.
 */
import { describe, expect, it } from 'vitest';
import type { ServiceRecord } from '#pkg/kube/types.ts';
import type { Ruleset } from '#pkg/iptables/ruleset.ts';
import type { IptablesOptions } from './iptables-options.ts';
import { countWithoutLocal } from './proxied-port.ts';
import { local, places, ruleset, service, slice, snapshot, trace } from './testdata/records.ts';

const { pod, node, outside, far, near } = places.ip;
const targets = { clusterIP: '172.30.0.41:80', nodePort: `${node}:3001`, lb: '1.2.3.4:80' };

const balanced = (fields: Partial<ServiceRecord>): ServiceRecord =>
  service('ns1/svc1', {
    type: 'LoadBalancer',
    clusterIPs: ['172.30.0.41'],
    loadBalancerIngress: [{ ip: '1.2.3.4', ipMode: 'VIP' }],
    ports: [{ name: 'p80', protocol: 'TCP', port: 80, nodePort: 3001 }],
    ...fields,
  });

function rulesOf(
  fields: Partial<ServiceRecord>,
  options: Partial<IptablesOptions> = {},
  endpoints: Parameters<typeof slice>[1] = [far, local(near)],
): Ruleset {
  const cluster = { services: [balanced(fields)], slices: [slice('ns1/svc1', endpoints)] };
  return ruleset(cluster, options);
}

const both = `${far}:80, ${near}:80`;
const bothMasqueraded = `${far}:80 masqueraded, ${near}:80 masqueraded`;
const here = `${near}:80`;
const hereMasqueraded = `${near}:80 masqueraded`;

/** Per setting: from a pod, from the node, from outside. */
interface Setting {
  readonly title: string;
  readonly fields: Partial<ServiceRecord>;
  readonly options?: Partial<IptablesOptions>;
  readonly internal: readonly [string, string, string];
  readonly external: readonly [string, string, string];
}

const allMasqueraded = [bothMasqueraded, bothMasqueraded, bothMasqueraded] as const;
const blind = { localDetector: { kind: 'none' } } as const;
const settings: readonly Setting[] = [
  {
    title: 'S55. policies Cluster',
    fields: {},
    internal: [both, bothMasqueraded, bothMasqueraded],
    external: allMasqueraded,
  },
  {
    title: 'S56. S57. S58. S59. external Local',
    fields: { externalTrafficPolicy: 'Local' },
    internal: [both, bothMasqueraded, bothMasqueraded],
    external: [both, bothMasqueraded, here],
  },
  {
    title: 'S60. internal Local',
    fields: { internalTrafficPolicy: 'Local' },
    internal: [here, hereMasqueraded, hereMasqueraded],
    external: allMasqueraded,
  },
  {
    title: 'S61. pods cannot be told, policies Cluster',
    fields: {},
    options: blind,
    internal: [both, both, both],
    external: allMasqueraded,
  },
  {
    title: 'S61. pods cannot be told, external Local',
    fields: { externalTrafficPolicy: 'Local' },
    options: blind,
    internal: [both, both, both],
    external: [here, bothMasqueraded, here],
  },
  {
    title: 'S61. pods cannot be told, internal Local',
    fields: { internalTrafficPolicy: 'Local' },
    options: blind,
    internal: [here, here, here],
    external: allMasqueraded,
  },
  {
    title: 'S62. masqueradeAll, policies Cluster',
    fields: {},
    options: { masqueradeAll: true },
    internal: allMasqueraded,
    external: allMasqueraded,
  },
  {
    title: 'S62. masqueradeAll, external Local',
    fields: { externalTrafficPolicy: 'Local' },
    options: { masqueradeAll: true },
    internal: allMasqueraded,
    external: [both, bothMasqueraded, here],
  },
  {
    title: 'S62. masqueradeAll, internal Local',
    fields: { internalTrafficPolicy: 'Local' },
    options: { masqueradeAll: true },
    internal: [hereMasqueraded, hereMasqueraded, hereMasqueraded],
    external: allMasqueraded,
  },
  {
    title: 'S63. masqueradeAll, pods cannot be told, external Local',
    fields: { externalTrafficPolicy: 'Local' },
    options: { ...blind, masqueradeAll: true },
    internal: allMasqueraded,
    external: [here, bothMasqueraded, here],
  },
];

describe.each(settings)('$title', ({ fields, options, internal, external }) => {
  const rules = rulesOf(fields, options);
  const sources = [pod, node, outside] as const;
  it.each(sources.map((source, i) => ({ source, want: internal[i] })))(
    'cluster address from $source: $want',
    ({ source, want }) => expect(trace(rules, { source, to: targets.clusterIP })).toBe(want),
  );
  it.each(sources.map((source, i) => ({ source, want: external[i] })))(
    'node port and load balancer from $source: $want',
    ({ source, want }) => {
      expect(trace(rules, { source, to: targets.nodePort })).toBe(want);
      expect(trace(rules, { source, to: targets.lb })).toBe(want);
    },
  );
  it('from 127.0.0.1 by the node port it is the node', () => {
    const packet = { source: '127.0.0.1', to: '127.0.0.1:3001' };
    expect(trace(rules, packet)).toBe(external[1]);
  });
});

describe('S71. the external policy without an external address', () => {
  it('means nothing', () => {
    const fields = { type: 'ClusterIP', loadBalancerIngress: [] } as const;
    const ports = [{ name: 'p80', protocol: 'TCP', port: 80, nodePort: 0 }] as const;
    const cluster = [far];
    const want = rulesOf({ ...fields, ports }, {}, cluster);
    const rules = rulesOf({ ...fields, ports, externalTrafficPolicy: 'Local' }, {}, cluster);
    expect(rules).toEqual(want);
    expect(trace(rules, { source: pod, to: targets.clusterIP })).toBe(`${far}:80`);
  });
});

describe('what is dropped because this node has no endpoint is counted', () => {
  const terminating = { ...local(near), terminating: true };
  const internal = { internalTrafficPolicy: 'Local' } as const;
  const external = { externalTrafficPolicy: 'Local' } as const;
  it.each([
    ['S66. internal Local, endpoints elsewhere', internal, [far], { internal: 1, external: 0 }],
    ['S67. external Local, endpoints elsewhere', external, [far], { internal: 0, external: 1 }],
    ['S68. both', { ...internal, ...external }, [far], { internal: 1, external: 1 }],
    ['S69. both, no endpoints', { ...internal, ...external }, [], { internal: 0, external: 0 }],
    ['S70. only a terminating one here', internal, [terminating], { internal: 0, external: 0 }],
    ['S55. both Cluster', {}, [far], { internal: 0, external: 0 }],
  ])('%s', (_, fields, endpoints, counts) => {
    const slices = [slice('ns1/svc1', endpoints)];
    const { ports } = snapshot({ services: [balanced(fields)], slices });
    expect(countWithoutLocal(ports)).toEqual(counts);
  });

  it('S70. the terminating one is reached', () => {
    const rules = rulesOf(internal, {}, [terminating]);
    expect(trace(rules, { source: pod, to: targets.clusterIP })).toBe(here);
  });
});

describe('strays', () => {
  const packet = { source: '10.180.0.1', to: '10.0.0.2:40000', state: 'INVALID' } as const;
  it('S116. INVALID packets are dropped, unless conntrack is liberal', () => {
    expect(trace(rulesOf({}), packet)).toBe('drop');
    expect(trace(rulesOf({}, { conntrackLiberal: true }), packet)).toBe('unmatched');
  });
});
