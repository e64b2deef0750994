/** Real packets through the rules the proxy writes, in both backends and both families. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Family } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { applyIptables } from '#pkg/iptables/apply.ts';
import { observeIptables } from '#pkg/iptables/observe.ts';
import { planIptables } from '#pkg/iptables/plan.ts';
import type { IptablesTool } from '#pkg/iptables/detect.ts';
import { probeBackends, scratchTools } from '#pkg/iptables/testdata/scratch-tools.ts';
import { ruleset, service, slice, type Cluster } from './testdata/records.ts';
import { createSmallCluster, type SmallCluster } from './testdata/small-cluster.ts';

const probes = await probeBackends();
const signal = AbortSignal.timeout(300_000);

const ports = (nodePort = 0): Cluster['services'][number]['ports'] => [
  { name: 'web', protocol: 'TCP', port: 80, nodePort },
];
const target = { ports: [{ name: 'web', protocol: 'TCP', port: 8080 }] } as const;
const both = (suffix: string): [string, string] => [`172.30.0.${suffix}`, `fd00:96::${suffix}`];

const cluster: Cluster = {
  services: [
    service('demo/both', { type: 'NodePort', clusterIPs: both('1'), ports: ports(30080) }),
    service('demo/none', { type: 'NodePort', clusterIPs: both('2'), ports: ports(30081) }),
    service('demo/self', { clusterIPs: both('3'), ports: ports() }),
    service('demo/sticky', { clusterIPs: both('4'), ports: ports(), affinitySeconds: 60 }),
  ],
  slices: [
    ...['both', 'sticky'].flatMap((name) => [
      slice(`demo/${name}`, ['10.1.2.2', '10.1.3.2'], target),
      slice(`demo/${name}`, ['fd00:10:2::2', 'fd00:10:3::2'], target),
    ]),
    slice('demo/self', ['10.1.2.2'], target),
    slice('demo/self', ['fd00:10:2::2'], target),
  ],
};
const localDetector = {
  kind: 'cluster-cidr',
  prefixes: [parsePrefix('10.1.0.0/16'), parsePrefix('fd00:10::/32')],
} as const;

describe.each(probes)('iptables, backend $title', ({ backend, usable }) => {
  describe.skipIf(!usable)('real packets', () => {
    let small: SmallCluster;
    let tools: (family: Family) => IptablesTool;

    const write = async (wanted: Cluster): Promise<void> => {
      for (const family of ['ip', 'ip6'] as const) {
        const rules = ruleset(wanted, { family, localDetector, randomFully: true });
        const steps = planIptables(rules, await observeIptables(tools(family), signal));
        await applyIptables(tools(family), steps, signal);
      }
    };

    beforeAll(async () => {
      small = await createSmallCluster();
      tools = await scratchTools(small.node, backend);
      await write(cluster);
      await small.node.exec('sysctl', ['-qw', 'net.ipv4.conf.all.route_localnet=1']);
    });
    afterAll(async () => small?.[Symbol.asyncDispose]());

    describe.each([
      {
        family: 'IPv4',
        vip: '172.30.0.',
        net: '10.1.',
        node: '203.0.113.1',
        outside: '203.0.113.2',
      },
      {
        family: 'IPv6',
        vip: 'fd00:96::',
        net: 'fd00:10:',
        node: '2001:db8::1',
        outside: '2001:db8::2',
      },
    ])('$family', ({ family, vip, net, node, outside }) => {
      const pod = (n: number): string => (family === 'IPv4' ? `${net}${n}.2` : `${net}${n}::2`);
      const gateway = (n: number): string => (family === 'IPv4' ? `${net}${n}.1` : `${net}${n}::1`);
      const counted = (answers: readonly string[]): Map<string, number> => {
        const counts = new Map<string, number>();
        for (const answer of answers) counts.set(answer, (counts.get(answer) ?? 0) + 1);
        return counts;
      };

      it('a pod reaches both endpoints of a cluster address, keeping its own address', async () => {
        const to = { host: `${vip}1`, port: 80, count: 60 };
        const counts = counted(await small.connect(small.client, to));
        expect([...counts.keys()].toSorted()).toEqual([`one ${pod(1)}`, `two ${pod(1)}`]);
        // 60 fair choices leave fewer than 10 for one side once in 30 million runs.
        for (const count of counts.values()) expect(count).toBeGreaterThanOrEqual(10);
      });

      it('the node reaches it and is answered', async () => {
        const to = { host: `${vip}1`, port: 80, count: 20 };
        const seen = new Set(await small.connect(small.node, to));
        expect([...seen].toSorted()).toEqual([`one ${gateway(2)}`, `two ${gateway(3)}`]);
      });

      it('without endpoints a connection is refused, not left waiting', async () => {
        for (const from of [small.client, small.node]) {
          const answers = await small.connect(from, { host: `${vip}2`, port: 80 });
          expect(answers).toEqual(['ECONNREFUSED']);
        }
        const answers = await small.connect(small.outside, { host: node, port: 30081 });
        expect(answers).toEqual(['ECONNREFUSED']);
      });

      it('a pod reaches itself through its Service, seeing the node as the client', async () => {
        const answers = await small.connect(small.servers[0], { host: `${vip}3`, port: 80 });
        expect(answers).toEqual([`one ${gateway(2)}`]);
      });

      it('a node port answers outsiders from every endpoint, masqueraded', async () => {
        const to = { host: node, port: 30080, count: 20 };
        const seen = new Set(await small.connect(small.outside, to));
        expect([...seen].toSorted()).toEqual([`one ${gateway(2)}`, `two ${gateway(3)}`]);
      });

      it('an outsider reaches a cluster address, and is masqueraded', async () => {
        const seen = new Set(
          await small.connect(small.outside, { host: `${vip}1`, port: 80, count: 20 }),
        );
        expect([...seen].toSorted()).toEqual([`one ${gateway(2)}`, `two ${gateway(3)}`]);
      });

      it('with affinity a client stays with its endpoint', async () => {
        const seen = new Set(
          await small.connect(small.client, { host: `${vip}4`, port: 80, count: 20 }),
        );
        expect(seen.size).toBe(1);
      });

      it('pods that are not addressed through a Service see the client itself', async () => {
        const to = { host: pod(2), port: 8080 };
        expect(await small.connect(small.outside, to)).toEqual([`one ${outside}`]);
      });
    });

    it('a node port answers on 127.0.0.1, and never on ::1', async () => {
      const seen = await small.connect(small.node, { host: '127.0.0.1', port: 30080, count: 1 });
      expect(seen[0]).toMatch(/^(?:one 10\.1\.2\.1|two 10\.1\.3\.1)$/);
      expect(await small.connect(small.node, { host: '::1', port: 30080 })).toEqual([
        'ECONNREFUSED',
      ]);
    });

    it('an endpoint that goes gets no more connections; with the last one, all are refused', async () => {
      const to = { host: '172.30.0.1', port: 80, count: 20 };
      const only = (endpoints: string[]): Cluster => ({
        ...cluster,
        slices: [slice('demo/both', endpoints, target)],
      });
      await write(only(['10.1.3.2']));
      expect(new Set(await small.connect(small.client, to))).toEqual(new Set(['two 10.1.1.2']));
      await write(only([]));
      // Once: the kernel sends one such ICMP error a second to one address.
      const refused = await small.connect(small.client, { ...to, count: 1 });
      expect(refused).toEqual(['ECONNREFUSED']);
      await write(cluster);
      expect(new Set(await small.connect(small.client, to)).size).toBe(2);
    });
  });
});
