/**
 * What becomes of a packet, by the rules the proxy writes: the whole matrix of where it comes from,
 * where it goes, the traffic policy, and where endpoints are. The same behaviours run on the kernel.
 */
import { describe, expect, it } from 'vitest';
import { families, type Family } from '#pkg/ip/address.ts';
import type { Ruleset } from '#pkg/iptables/ruleset.ts';
import { at, local, places, ruleset, service, slice, trace } from './testdata/records.ts';

/** `any`: the near and the far endpoint; `near`: the one of this node. With `+`: masqueraded. */
type Cell = 'any' | 'any+' | 'near' | 'near+' | 'far' | 'far+' | 'drop' | 'reject' | 'unmatched';
type Target = 'clusterIP' | 'nodePort' | 'externalIP' | 'loadBalancer';
const sources = ['pod', 'node', 'outside'] as const;
/** A cell for each of {@link sources}. */
type Cells = readonly [Cell, Cell, Cell];

interface Situation {
  readonly title: string;
  readonly policy: 'Cluster' | 'Local';
  readonly endpoints: readonly ('near' | 'far')[];
  readonly cells: Readonly<Record<Target, Cells>>;
}

/**
 * The policy is the internal one towards the cluster address, the external one towards the others.
 * What this node itself sends to an external address that it does not have goes out unmatched when
 * nobody would take it: kube-proxy refuses such packets on their way in and through, not out.
 */
const matrix: readonly Situation[] = [
  {
    title: 'S7. S8. S9. S10. S11. S12. no endpoints, policy Cluster',
    policy: 'Cluster',
    endpoints: [],
    cells: {
      clusterIP: ['reject', 'reject', 'reject'],
      nodePort: ['reject', 'reject', 'reject'],
      externalIP: ['reject', 'unmatched', 'reject'],
      loadBalancer: ['reject', 'unmatched', 'reject'],
    },
  },
  {
    title: 'S65. no endpoints, policy Local',
    policy: 'Local',
    endpoints: [],
    cells: {
      clusterIP: ['reject', 'reject', 'reject'],
      nodePort: ['reject', 'reject', 'reject'],
      externalIP: ['reject', 'unmatched', 'reject'],
      loadBalancer: ['reject', 'unmatched', 'reject'],
    },
  },
  {
    title: 'S55. S19. endpoints here and elsewhere, policy Cluster',
    policy: 'Cluster',
    endpoints: ['near', 'far'],
    cells: {
      clusterIP: ['any', 'any+', 'any+'],
      nodePort: ['any+', 'any+', 'any+'],
      externalIP: ['any+', 'any+', 'any+'],
      loadBalancer: ['any+', 'any+', 'any+'],
    },
  },
  {
    title: 'endpoints elsewhere only, policy Cluster',
    policy: 'Cluster',
    endpoints: ['far'],
    cells: {
      clusterIP: ['far', 'far+', 'far+'],
      nodePort: ['far+', 'far+', 'far+'],
      externalIP: ['far+', 'far+', 'far+'],
      loadBalancer: ['far+', 'far+', 'far+'],
    },
  },
  {
    title: 'S56. S57. S58. endpoints here and elsewhere, policy Local',
    policy: 'Local',
    endpoints: ['near', 'far'],
    cells: {
      clusterIP: ['near', 'near+', 'near+'],
      nodePort: ['any', 'any+', 'near'],
      externalIP: ['any', 'any+', 'near'],
      loadBalancer: ['any', 'any+', 'near'],
    },
  },
  {
    title: 'S64. S66. endpoints elsewhere only, policy Local',
    policy: 'Local',
    endpoints: ['far'],
    cells: {
      clusterIP: ['drop', 'drop', 'drop'],
      nodePort: ['far', 'far+', 'drop'],
      externalIP: ['far', 'far+', 'drop'],
      loadBalancer: ['far', 'far+', 'drop'],
    },
  },
];

describe.each(families)('%s', (family) => {
  describe.each(matrix)('$title', ({ policy, endpoints, cells }) => {
    const rules = rulesFor(family, policy, endpoints);
    const all = Object.entries(cells) as [Target, Cells][];
    const flows = all.flatMap(([target, row]) =>
      sources.map((source, i) => ({ source, target, cell: row[i] ?? 'unmatched' })),
    );
    it.each(flows)('$source to $target: $cell', ({ source, target, cell }) => {
      const packet = { source: places[family][source], to: destination(family, target) };
      expect(trace(rules, packet)).toBe(expected(family, cell));
    });
  });
});

function rulesFor(
  family: Family,
  policy: 'Cluster' | 'Local',
  on: Situation['endpoints'],
): Ruleset {
  const { clusterIP, externalIP, loadBalancer, near, far } = places[family];
  return ruleset(
    {
      services: [
        service('ns1/svc1', {
          type: 'LoadBalancer',
          clusterIPs: [clusterIP],
          externalIPs: [externalIP],
          loadBalancerIngress: [{ ip: loadBalancer, ipMode: 'VIP' }],
          ports: [{ name: 'p80', protocol: 'TCP', port: 80, nodePort: 3001 }],
          internalTrafficPolicy: policy,
          externalTrafficPolicy: policy,
        }),
      ],
      slices: [
        slice(
          'ns1/svc1',
          on.map((place) => (place === 'near' ? local(near) : far)),
        ),
      ],
    },
    { family },
  );
}

function destination(family: Family, target: Target): string {
  return target === 'nodePort' ? at(places[family].node, 3001) : at(places[family][target], 80);
}

function expected(family: Family, cell: Cell): string {
  const { near, far } = places[family];
  const wanted = { any: [far, near], near: [near], far: [far] };
  const masqueraded = cell.endsWith('+') ? ' masqueraded' : '';
  const which = cell.replace('+', '');
  if (which !== 'any' && which !== 'near' && which !== 'far') return cell;
  return wanted[which].map((address) => `${at(address, 80)}${masqueraded}`).join(', ');
}
