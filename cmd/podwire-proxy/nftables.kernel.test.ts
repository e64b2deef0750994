/** Real packets through what the nftables mode writes, in both families. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { families } from '#pkg/ip/address.ts';
import { nodeName, portsOf, service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import type { AskRequest } from '#pkg/proxy/testdata/agent.ts';
import { createSmallCluster, type SmallCluster } from '#pkg/proxy/testdata/small-cluster.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { createNftablesRig, type NftablesRig } from './scratch/nftables-rig.ts';
import type { NftablesWriter } from './nftables-writer.ts';

const signal = new AbortController().signal;
const ports = (nodePort = 0): Cluster['services'][number]['ports'] => [
  { name: 'web', protocol: 'TCP', port: 80, nodePort },
];
const target = { ports: [{ name: 'web', protocol: 'TCP', port: 8080 }] } as const;
const both = (suffix: string): [string, string] => [`172.30.0.${suffix}`, `fd00:96::${suffix}`];
const pods = {
  one: ['10.1.2.2', 'fd00:10:2::2'],
  two: ['10.1.3.2', 'fd00:10:3::2'],
} as const;

/** A Service's slices of both families, "two" on another node. */
function slices(name: string, which: readonly (keyof typeof pods)[]): Cluster['slices'] {
  return [0, 1].map((i) =>
    slice(
      `demo/${name}`,
      which.map((pod) => ({
        address: pods[pod][i] ?? '',
        ...(pod === 'one' ? { nodeName } : {}),
      })),
      target,
    ),
  );
}

const balancer = (ip: string): { loadBalancerIngress: { ip: string; ipMode: 'VIP' }[] } => ({
  loadBalancerIngress: [
    { ip: `198.51.100.${ip}`, ipMode: 'VIP' },
    { ip: `2001:db8:100::${ip}`, ipMode: 'VIP' },
  ],
});

const cluster: Cluster = {
  services: [
    service('demo/both', { type: 'NodePort', clusterIPs: both('1'), ports: ports(30080) }),
    service('demo/none', { type: 'NodePort', clusterIPs: both('2'), ports: ports(30081) }),
    service('demo/self', { clusterIPs: both('3'), ports: ports() }),
    service('demo/sticky', { clusterIPs: both('4'), ports: ports(), affinitySeconds: 60 }),
    service('demo/local', {
      type: 'LoadBalancer',
      clusterIPs: both('5'),
      ports: ports(30085),
      externalTrafficPolicy: 'Local',
      ...balancer('5'),
    }),
    service('demo/away', {
      type: 'LoadBalancer',
      clusterIPs: both('6'),
      ports: ports(30086),
      externalTrafficPolicy: 'Local',
      internalTrafficPolicy: 'Local',
      ...balancer('6'),
    }),
    service('demo/guarded', {
      type: 'LoadBalancer',
      clusterIPs: both('7'),
      ports: ports(),
      loadBalancerSourceRanges: ['203.0.113.0/24', '2001:db8::/64'],
      ...balancer('7'),
    }),
    service('demo/three', { clusterIPs: both('8'), ports: ports() }),
    service('demo/datagrams', {
      type: 'NodePort',
      clusterIPs: both('9'),
      ports: [{ name: 'web', protocol: 'UDP', port: 80, nodePort: 30089 }],
    }),
  ],
  slices: [
    ...['both', 'sticky', 'local'].flatMap((name) => slices(name, ['one', 'two']) ?? []),
    ...(slices('self', ['one']) ?? []),
    ...(slices('away', ['two']) ?? []),
    ...(slices('guarded', ['one']) ?? []),
    ...[pods.one[0], pods.one[1]].map((address) =>
      slice('demo/datagrams', [address], { ports: [{ name: 'web', protocol: 'UDP', port: 8080 }] }),
    ),
    // Three endpoints: a choice among four slots, of which one is empty.
    slice('demo/three', ['10.1.2.2', '10.1.2.3', '10.1.3.2'], target),
  ],
};

describe('nftables mode, real packets', () => {
  let small: SmallCluster;
  const rigs = new Map<string, NftablesRig>();
  const writers = new Map<string, NftablesWriter>();

  const write = async (wanted: Cluster, changed: 'all' | Set<string>): Promise<void> => {
    for (const family of families) {
      const want = { ports: portsOf(wanted, family), changed, node: undefined };
      await writers.get(family)?.write(want, signal);
    }
  };

  beforeAll(async () => {
    small = await createSmallCluster();
    for (const family of families) {
      const rig = createNftablesRig(small.node, family);
      rigs.set(family, rig);
      const serviceCIDRs = [parsePrefix('172.30.0.0/16'), parsePrefix('fd00:96::/64')];
      writers.set(family, rig.newWriter({ serviceCIDRs }));
    }
    await write(cluster, 'all');
  });
  afterAll(async () => {
    for (const rig of rigs.values()) rig[Symbol.dispose]();
    await small?.[Symbol.asyncDispose]();
  });

  describe.each([
    {
      family: 'IPv4',
      vip: '172.30.0.',
      lb: '198.51.100.',
      net: '10.1.',
      node: '203.0.113.1',
      outside: '203.0.113.2',
    },
    {
      family: 'IPv6',
      vip: 'fd00:96::',
      lb: '2001:db8:100::',
      net: 'fd00:10:',
      node: '2001:db8::1',
      outside: '2001:db8::2',
    },
  ])('$family', ({ family, vip, lb, net, node, outside }) => {
    const pod = (n: number): string => (family === 'IPv4' ? `${net}${n}.2` : `${net}${n}::2`);
    const gateway = (n: number): string => (family === 'IPv4' ? `${net}${n}.1` : `${net}${n}::1`);
    const answers = async (
      from: 'client' | 'node' | 'outside' | 'one',
      host: string,
      to: Partial<AskRequest> = {},
    ): Promise<string[]> => {
      const netns = from === 'one' ? small.servers[0] : small[from];
      return [...new Set(await small.connect(netns, { host, port: 80, ...to }))].toSorted();
    };

    it('a pod reaches both endpoints of a cluster address, keeping its own address', async () => {
      const all = await small.connect(small.client, { host: `${vip}1`, port: 80, count: 60 });
      expect([...new Set(all)].toSorted()).toEqual([`one ${pod(1)}`, `two ${pod(1)}`]);
      // 60 fair choices leave fewer than 10 for one side once in 30 million runs.
      const ones = all.filter((answer) => answer.startsWith('one')).length;
      expect(ones).toBeGreaterThanOrEqual(10);
      expect(ones).toBeLessThanOrEqual(50);
    });

    it('the node and outsiders reach it and are answered, masqueraded', async () => {
      const masqueraded = [`one ${gateway(2)}`, `two ${gateway(3)}`];
      expect(await answers('node', `${vip}1`, { count: 20 })).toEqual(masqueraded);
      expect(await answers('outside', `${vip}1`, { count: 20 })).toEqual(masqueraded);
    });

    it('without endpoints a connection is refused, not left waiting', async () => {
      expect(await answers('client', `${vip}2`)).toEqual(['ECONNREFUSED']);
      expect(await answers('node', `${vip}2`)).toEqual(['ECONNREFUSED']);
      expect(await answers('outside', node, { port: 30081 })).toEqual(['ECONNREFUSED']);
    });

    it('UDP is served by a single endpoint as TCP is, node ports too', async () => {
      const ask = { protocol: 'udp' } as const;
      const inside = await small.connect(small.client, { ...ask, host: `${vip}9`, port: 80 });
      expect(inside).toEqual([`one ${pod(1)}`]);
      const { outside: from } = small;
      const outsider = await small.connect(from, { ...ask, host: node, port: 30089 });
      expect(outsider).toEqual([`one ${gateway(2)}`]);
    });

    it('another port of a cluster address is refused', async () => {
      expect(await answers('client', `${vip}1`, { port: 81 })).toEqual(['ECONNREFUSED']);
    });

    it('what must not be served gets no answer', async () => {
      const briefly = { timeoutMs: 1_000 };
      const silent = await Promise.all([
        // In the range of cluster addresses, and of no Service.
        answers('client', `${vip}99`, briefly),
        // Policy Local, and no endpoint here.
        answers('outside', `${lb}6`, briefly),
        answers('client', `${vip}6`, briefly),
        // Not in loadBalancerSourceRanges.
        answers('client', `${lb}7`, briefly),
      ]);
      for (const got of silent) expect(got).toEqual(['TIMEOUT']);
    });

    it('a pod reaches itself through its Service, seeing the node as the client', async () => {
      expect(await answers('one', `${vip}3`)).toEqual([`one ${gateway(2)}`]);
    });

    it('a node port answers outsiders from every endpoint, masqueraded', async () => {
      expect(await answers('outside', node, { port: 30080, count: 20 })).toEqual([
        `one ${gateway(2)}`,
        `two ${gateway(3)}`,
      ]);
    });

    it('with affinity a client stays with its endpoint, and only with one that is there', async () => {
      const [first = ''] = await answers('client', `${vip}4`, { count: 20 });
      expect(await answers('client', `${vip}4`, { count: 20 })).toEqual([first]);
      const other = first.startsWith('one') ? 'two' : 'one';
      const rest = slices('sticky', [other]) ?? [];
      const without = (cluster.slices ?? []).filter(({ serviceName }) => serviceName !== 'sticky');
      const changed = new Set(['demo/sticky:web/tcp']);
      await write({ ...cluster, slices: [...without, ...rest] }, changed);
      expect(await answers('client', `${vip}4`, { count: 20 })).toEqual([`${other} ${pod(1)}`]);
      await write(cluster, changed);
      expect(await answers('client', `${vip}4`, { count: 20 })).toEqual([`${other} ${pod(1)}`]);
    });

    it('policy Local: outsiders reach endpoints of this node as themselves, others all', async () => {
      expect(await answers('outside', `${lb}5`, { count: 20 })).toEqual([`one ${outside}`]);
      expect(await answers('outside', node, { port: 30085, count: 20 })).toEqual([
        `one ${outside}`,
      ]);
      expect(await answers('client', `${lb}5`, { count: 20 })).toEqual([
        `one ${pod(1)}`,
        `two ${pod(1)}`,
      ]);
      expect(await answers('node', `${lb}5`, { count: 20 })).toEqual([
        `one ${gateway(2)}`,
        `two ${gateway(3)}`,
      ]);
    });

    it('policy Local without an endpoint here: pods still reach those elsewhere', async () => {
      expect(await answers('client', `${lb}6`)).toEqual([`two ${pod(1)}`]);
    });

    it('loadBalancerSourceRanges admit whom they name', async () => {
      expect(await answers('outside', `${lb}7`)).toEqual([`one ${gateway(2)}`]);
    });

    it('pods that are not addressed through a Service see the client itself', async () => {
      expect(await answers('outside', pod(2), { port: 8080 })).toEqual([`one ${outside}`]);
    });
  });

  it('three endpoints have equal chances', async () => {
    await small.servers[0].ip('addr add 10.1.2.3/24 dev eth0');
    const to = { host: '172.30.0.8', port: 80, count: 300 };
    const answers = await small.connect(small.client, to);
    expect([...new Set(answers)].toSorted()).toEqual(['one 10.1.1.2', 'two 10.1.1.2']);
    // Two of three are the first server's. 100 are expected: 40 off comes once in a million runs,
    // and half of all would be 150.
    const twos = answers.filter((answer) => answer.startsWith('two')).length;
    expect(twos).toBeGreaterThanOrEqual(60);
    expect(twos).toBeLessThanOrEqual(140);
  });

  it('a node port never answers on loopback addresses', async () => {
    const to = { port: 30080, count: 1 };
    expect(await small.connect(small.node, { host: '127.0.0.1', ...to })).toEqual(['ECONNREFUSED']);
    expect(await small.connect(small.node, { host: '::1', ...to })).toEqual(['ECONNREFUSED']);
  });

  it('an endpoint that goes gets no more connections; with the last one, all are refused', async () => {
    const to = { host: '172.30.0.1', port: 80, count: 20 };
    const changed = new Set(['demo/both:web/tcp']);
    const only = (which: readonly (keyof typeof pods)[]): Cluster => ({
      ...cluster,
      slices: [
        ...(cluster.slices ?? []).filter(({ serviceName }) => serviceName !== 'both'),
        ...(slices('both', which) ?? []),
      ],
    });
    await write(only(['two']), changed);
    expect(new Set(await small.connect(small.client, to))).toEqual(new Set(['two 10.1.1.2']));
    await write(only([]), changed);
    // Once: the kernel sends one such ICMP error a second to one address.
    expect(await small.connect(small.client, { ...to, count: 1 })).toEqual(['ECONNREFUSED']);
    await write(cluster, changed);
    expect(new Set(await small.connect(small.client, to)).size).toBe(2);
  });
});
