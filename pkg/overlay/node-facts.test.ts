import { describe, expect, test } from 'vitest';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { nodeRecord as node } from '#pkg/pod-network/testdata/vxlan-node.ts';
import { defaultAnnotationPrefix } from './annotations.ts';
import { parseCluster, type ClusterFacts } from './node-facts.ts';

const options = { selfName: 'self', annotationPrefix: defaultAnnotationPrefix };

function podCIDRs(cluster: ClusterFacts): Record<string, string[]> {
  return Object.fromEntries(
    [...cluster.nodes].map(([name, facts]) => [
      name,
      Object.values(facts.podCIDRs).map(formatPrefix),
    ]),
  );
}

describe('parseCluster()', () => {
  test('reads dual stack podCIDRs, in either order', () => {
    const cluster = parseCluster(
      [
        node('self', { podCIDRs: ['10.244.0.0/24', 'fd00:10:244::/64'] }),
        node('b', { podCIDRs: ['fd00:10:244:1::/64', '10.244.1.0/24'] }),
      ],
      options,
    );
    expect(podCIDRs(cluster)).toEqual({
      self: ['10.244.0.0/24', 'fd00:10:244::/64'],
      b: ['10.244.1.0/24', 'fd00:10:244:1::/64'],
    });
    expect(cluster.problems).toEqual([]);
  });

  test('a Node with unreadable text is reported and the others are whole', () => {
    const cluster = parseCluster(
      [
        node('self', { podCIDRs: ['10.244.0.0/24'] }),
        node('bad', { podCIDRs: ['10.244.1.0'], internalIPs: ['10.0.0', '10.0.0.2'] }),
        node('good', { podCIDRs: ['10.244.2.0/24'] }),
      ],
      options,
    );
    expect(podCIDRs(cluster)).toEqual({
      self: ['10.244.0.0/24'],
      bad: [],
      good: ['10.244.2.0/24'],
    });
    expect(cluster.problems).toEqual([
      {
        node: 'bad',
        message: 'Cannot use podCIDR "10.244.1.0": expected address/length',
      },
      { node: 'bad', message: 'Cannot use InternalIP "10.0.0": expected an IP address' },
    ]);
  });

  test('a second podCIDR of one family is reported and the first one used', () => {
    const cluster = parseCluster(
      [node('b', { podCIDRs: ['10.244.1.0/24', '10.244.2.0/24'] })],
      options,
    );
    expect(podCIDRs(cluster)).toEqual({ b: ['10.244.1.0/24'] });
    expect(cluster.problems.map(({ message }) => message)).toEqual([
      'Cannot use podCIDR 10.244.2.0/24: the Node has another one of this family',
    ]);
  });

  test.each([
    {
      name: 'the older Node wins an overlap',
      nodes: [
        node('a', { podCIDRs: ['10.244.0.0/16'], createdAt: '2026-01-02T00:00:00Z' }),
        node('b', { podCIDRs: ['10.244.1.0/24'], createdAt: '2026-01-01T00:00:00Z' }),
      ],
      want: { a: [], b: ['10.244.1.0/24'] },
      loser: 'a',
    },
    {
      name: 'our own Node wins an overlap, however young it is',
      nodes: [
        node('a', { podCIDRs: ['10.244.1.0/24'], createdAt: '2026-01-01T00:00:00Z' }),
        node('self', { podCIDRs: ['10.244.1.0/24'], createdAt: '2026-01-02T00:00:00Z' }),
      ],
      want: { self: ['10.244.1.0/24'], a: [] },
      loser: 'a',
    },
    {
      name: 'of two Nodes of one age the first by name wins',
      nodes: [
        node('b', { podCIDRs: ['10.244.1.0/24'] }),
        node('a', { podCIDRs: ['10.244.1.0/25'] }),
      ],
      want: { a: ['10.244.1.0/25'], b: [] },
      loser: 'b',
    },
    {
      name: 'the loser keeps its other family',
      nodes: [
        node('a', { podCIDRs: ['10.244.1.0/24', 'fd00:1::/64'] }),
        node('b', { podCIDRs: ['10.244.1.0/24', 'fd00:2::/64'] }),
      ],
      want: { a: ['10.244.1.0/24', 'fd00:1::/64'], b: ['fd00:2::/64'] },
      loser: 'b',
    },
  ])('$name', ({ nodes, want, loser }) => {
    const cluster = parseCluster(nodes, options);
    expect(podCIDRs(cluster)).toEqual(want);
    expect(cluster.problems.map((problem) => problem.node)).toEqual([loser]);
  });

  test('ranges inside a range that gave way are used', () => {
    const cluster = parseCluster(
      [
        node('a', { podCIDRs: ['10.244.1.0/24'] }),
        node('b', { podCIDRs: ['10.244.0.0/16'] }),
        node('c', { podCIDRs: ['10.244.2.0/24'] }),
      ],
      options,
    );
    expect(podCIDRs(cluster)).toEqual({ a: ['10.244.1.0/24'], b: [], c: ['10.244.2.0/24'] });
  });
});
