/**
 * What becomes of packets in mode ipvs when things change, and of those that are special to it: tests
 * for who has written `of.cluster` on the node of a small cluster.
 */
import { describe, expect, it } from 'vitest';
import type { FakeClock } from '#pkg/clock/fake-clock.ts';
import { families } from '#pkg/ip/address.ts';
import { nets, nodePorts, numbers } from '#pkg/proxy/testdata/packet-services.ts';
import { local, service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import type { SmallCluster } from '#pkg/proxy/testdata/small-cluster.ts';
import { sendStraySegment } from '#pkg/proxy/testdata/stray-segment.ts';
import type { IpvsNode } from './ipvs-node.ts';
import { testUdpClients } from './ipvs-udp.ts';

export interface ChangingIpvs {
  readonly small: SmallCluster;
  readonly ipvs: IpvsNode;
  /** The writers' own. */
  readonly clock: FakeClock;
  readonly cluster: Required<Pick<Cluster, 'services' | 'slices'>>;
}

type Port = Cluster['services'][number]['ports'][number];
const tcp = (port = 80, nodePort = 0): readonly Port[] => [
  { name: 'x', protocol: 'TCP', port, nodePort },
];
const target = (port: number) => ({ ports: [{ name: 'x', protocol: 'TCP', port }] as const });
const slow = { timeout: 60_000, interval: 3_000 };
const ask = { timeoutMs: 10_000, port: 80 };
const [one, two] = ['10.1.2.2', '10.1.3.2'];

/** @param of asked for when the tests run */
export function testIpvsChanges(of: () => ChangingIpvs): void {
  const write = async (key: string, ...more: Partial<Cluster>[]): Promise<void> => {
    const { cluster, ipvs } = of();
    await ipvs.write(
      {
        services: [...cluster.services, ...more.flatMap(({ services = [] }) => services)],
        slices: [...cluster.slices, ...more.flatMap(({ slices = [] }) => slices)],
      },
      new Set([key]),
    );
  };
  const servers = async (): Promise<string> =>
    (await of().small.node.exec('ipvsadm', ['-S', '-n'])).stdout;
  const from = async (netns: keyof SmallCluster & ('client' | 'node' | 'outside'), to: object) => {
    const { small } = of();
    const answers = await small.connect(small[netns], { host: '', ...ask, ...to });
    return [...new Set(answers)].toSorted();
  };

  describe.each(families)('%s', (family) => {
    const { gateway, node, outside, pod, vip, balancer } = nets[family];
    const isFirst = family === families[0];

    it('an endpoint that is the node itself is served, as the API server of a control plane is', async () => {
      const host = `${vip}51`;
      await write(
        'demo/api:x/tcp',
        { services: [service('demo/api', { clusterIPs: [host], ports: tcp(443) })] },
        { slices: [slice('demo/api', [local(node)], target(22))] },
      );
      const to = { host, port: 443 };
      expect(await from('client', to)).toEqual([`node ${pod(1)}`]);
      expect(await from('outside', to)).toEqual([`node ${outside}`]);
      expect((await from('node', to)).join()).toMatch(/^node /);
      await write('demo/api:x/tcp');
    });

    it('a health check node port answers on load balancer addresses, and nothing else of the host', async () => {
      const ip = `${balancer}52`;
      const made = service('demo/hc', {
        type: 'LoadBalancer',
        clusterIPs: [`${vip}52`],
        externalTrafficPolicy: 'Local',
        healthCheckNodePort: 24,
        loadBalancerIngress: [{ ip, ipMode: 'VIP' }],
        ports: tcp(),
      });
      const slices = [slice('demo/hc', [local(pod(2))], target(8080))];
      await write('demo/hc:x/tcp', { services: [made], slices });
      expect(await from('outside', { host: ip, port: 24 })).toEqual([`node ${outside}`]);
      expect(await from('outside', { host: ip, port: 22 })).toEqual(['ECONNREFUSED']);
      expect(await from('outside', { host: ip })).toEqual([`one ${outside}`]);
      await write('demo/hc:x/tcp');
    });

    it('S137. connections of the last endpoint go on while new ones are refused, also after a restart', async () => {
      const { clock, ipvs, small } = of();
      const host = `${vip}53`;
      const services = [service('demo/last', { clusterIPs: [host], ports: tcp() })];
      const slices = [slice('demo/last', [pod(2)], target(8081))];
      await write('demo/last:x/tcp', { services, slices });
      const [client, own] = [small.agent(small.client), small.agent(small.node)];
      for (const agent of [client, own]) {
        expect(await agent.openStream(host, { host, port: 80 })).not.toHaveProperty('error');
      }
      await write('demo/last:x/tcp', { services });
      for (const who of ['client', 'node'] as const) {
        expect(await from(who, { host })).toEqual(['ECONNREFUSED']);
      }
      if (isFirst) ipvs.restart();
      await clock.advance(20_000);
      await write('demo/last:x/tcp', { services });
      expect(await ipvs.differences()).toEqual([]);
      for (const agent of [client, own]) {
        const { answered, error } = await agent.closeStream(host, 15_000);
        expect({ error, some: answered > 0 }).toEqual({ error: undefined, some: true });
      }
      expect(await servers()).toContain(':80 -r');
      await write('demo/last:x/tcp');
      expect(await servers()).not.toContain(`${vip}53`);
    });

    it('S142. S156. endpoints that go get no more connections; source ranges change at once', async () => {
      const { cluster, ipvs } = of();
      const to = { host: `${vip}${numbers.both}`, count: 2 };
      const without = (...gone: string[]): Cluster => ({
        ...cluster,
        slices: cluster.slices.map((s) => ({
          ...s,
          endpoints: s.endpoints.filter(({ address }) => !gone.includes(address)),
        })),
      });
      const keys = new Set(['demo/both:web/tcp', 'demo/ranges:web/tcp']);
      await ipvs.write(without(pod(2)), keys);
      expect(await from('client', to)).toEqual([`two ${pod(1)}`]);
      await ipvs.write(without(pod(2), pod(3)), keys);
      expect(await from('client', to)).toEqual(['ECONNREFUSED']);
      const open = cluster.services.map((s) => ({ ...s, loadBalancerSourceRanges: [] }));
      await ipvs.write({ ...cluster, services: open }, keys);
      expect(await from('client', to)).toHaveLength(2);
      const ranges = { host: `${balancer}${numbers.ranges}`, sources: [nets[family].blocked] };
      expect((await from('outside', ranges)).join()).toMatch(/^(?:one|two) /);
      await ipvs.write(cluster, keys);
      expect(await from('outside', { ...ranges, timeoutMs: 200 })).toEqual(['TIMEOUT']);
      expect(await from('node', to)).toEqual([`one ${gateway(2)}`, `two ${gateway(3)}`]);
    });
  });

  it('S148. affinity ends when the client was away for its time, and can be switched', async () => {
    const { ipvs, small } = of();
    // The kernel keeps affinity while a connection is: those of TCP last for two minutes.
    await small.node.exec('ipvsadm', ['--set', '0', '0', '1']);
    const dns = (affinitySeconds: number): Partial<Cluster> => {
      const ports = [{ name: 'u', protocol: 'UDP', port: 53, nodePort: 0 }] as const;
      return {
        services: [service('demo/dns', { clusterIPs: ['172.30.0.54'], ports, affinitySeconds })],
        slices: [
          slice('demo/dns', [one, two], { ports: [{ name: 'u', protocol: 'UDP', port: 8080 }] }),
        ],
      };
    };
    const key = 'demo/dns:u/udp';
    // In turns: of an odd number each gets the other endpoint the next time.
    const sources = Array.from({ length: 5 }, (_, i) => `10.1.1.${i + 20}`);
    await small.client.batch(sources.map((address) => `addr add ${address}/24 dev eth0`));
    const to = {
      host: '172.30.0.54',
      port: 53,
      protocol: 'udp',
      sources,
      timeoutMs: 10_000,
    } as const;
    const all = (): Promise<string[]> => small.connect(small.client, to);
    await write(key, dns(1));
    const first = await all();
    expect(new Set(first.map((answer) => answer.split(' ')[0])).size).toBe(2);
    expect(await all()).toEqual(first);
    await expect.poll(all, slow).not.toEqual(first);
    await write(key, dns(3600));
    expect(await servers()).toContain('-A -u 172.30.0.54:53 -s rr -p 3600\n');
    expect(await ipvs.differences()).toEqual([]);
    await write(key, dns(0));
    expect((await servers()).replaceAll(/ +$/gm, '')).toContain('-A -u 172.30.0.54:53 -s rr\n');
    const alone = { ...to, sources: Array.from({ length: 2 }, () => '10.1.1.2') };
    expect(new Set(await small.connect(small.client, alone)).size).toBe(2);
    await write(key);
    await small.client.batch(sources.map((address) => `addr del ${address}/24 dev eth0`));
  });

  it('S157. UDP clients that never change their port are served by who serves now', () =>
    testUdpClients(of(), write));

  it('S158. a packet out of the window does not reset a connection: IPVS translates it', async () => {
    const { small } = of();
    const agent = small.agent(small.client);
    await agent.openStream('lasting', { host: `${nets.ip.vip}${numbers.lasting}`, port: 80 });
    await sendStraySegment(small.servers[0], 8081);
    expect((await agent.closeStream('lasting', 15_000)).error).toBeUndefined();
  });

  it("a load balancer's address that the host has for itself stays its own", async () => {
    const { small } = of();
    await small.node.ip('addr add 169.254.20.10/32 dev lo');
    const loadBalancerIngress = ['169.254.20.10', '127.0.0.1'].map(
      (ip) => ({ ip, ipMode: 'VIP' }) as const,
    );
    const fields = { type: 'LoadBalancer', ports: tcp(), loadBalancerIngress } as const;
    const services = [service('demo/self-made', { clusterIPs: ['172.30.0.55'], ...fields })];
    const slices = [slice('demo/self-made', [one], target(8080))];
    await write('demo/self-made:x/tcp', { services, slices });
    for (const host of ['169.254.20.10', '127.0.0.1']) {
      expect((await from('node', { host, port: 22 })).join()).toMatch(/^node /);
    }
    expect(await from('node', { host: '169.254.20.10' })).toEqual(['one 10.1.2.1']);
    expect(await servers()).not.toMatch(/169\.254\.20\.10:30/);
    await write('demo/self-made:x/tcp');
    await small.node.ip('addr del 169.254.20.10/32 dev lo');
  });

  it('addresses that come to the node: node ports answer there, and a Service has them from the node', async () => {
    const { cluster, ipvs, small } = of();
    const balancer = `${nets.ip.balancer}${numbers.external}`;
    const bound = (): Promise<string> => small.node.ip('-o addr show dev kube-ipvs0');
    expect(await bound()).toContain(balancer);
    const added = ['203.0.113.77', balancer].map((address) => `addr add ${address}/32 dev lo`);
    await small.node.batch(added);
    expect((await ipvs.write(cluster, new Set())).ip.kind).toBe('full');
    expect(await from('outside', { host: '203.0.113.77', port: nodePorts.both, count: 2 })).toEqual(
      ['one 10.1.2.1', 'two 10.1.3.1'],
    );
    // As when a load balancer on nodes hands its address over to this one.
    expect(await bound()).not.toContain(balancer);
    expect(await from('outside', { host: balancer })).toEqual(['one 203.0.113.2']);
    await small.node.batch(added.map((line) => line.replace(' add ', ' del ')));
    await ipvs.write(cluster, new Set());
    expect(await servers()).not.toContain('203.0.113.77');
    expect(await bound()).toContain(balancer);
    expect(await from('outside', { host: balancer })).toEqual(['one 203.0.113.2']);
  });

  it('another scheduler: connections go on, and all servers have it', async () => {
    const { cluster, ipvs, small } = of();
    const agent = small.agent(small.client);
    const host = `${nets.ip.vip}${numbers.lasting}`;
    await agent.openStream('scheduled', { host, port: 80 });
    for (const [scheduler, words] of [
      ['mh', 'mh -b mh-fallback,mh-port'],
      ['rr', 'rr'],
    ] as const) {
      ipvs.restart(scheduler);
      await ipvs.write(cluster);
      const found = (await servers()).match(/^-A .*/gm)?.map((line) => line.trim()) ?? [];
      expect(found.length).toBeGreaterThan(10);
      expect(found.filter((line) => !line.replace(/ -p \d+/, '').includes(`-s ${words}`))).toEqual(
        [],
      );
      expect(await from('client', { host: `${nets.ip.vip}${numbers.self}` })).toEqual([
        `one ${nets.ip.pod(1)}`,
      ]);
    }
    expect((await agent.closeStream('scheduled', 15_000)).error).toBeUndefined();
  });

  it('the device of Services comes back, whoever took it away or emptied it', async () => {
    const { cluster, ipvs, small } = of();
    const commands = [
      ['link set kube-ipvs0 up', 'link set kube-ipvs0 down'],
      ['link del kube-ipvs0'],
    ];
    for (const lines of commands) {
      await small.node.batch(lines);
      expect((await ipvs.differences()).join()).toMatch(/^address \S+ is gone/);
      ipvs.restart();
      await ipvs.write(cluster);
      expect(await ipvs.differences()).toEqual([]);
      for (const family of families) {
        const host = `${nets[family].vip}${numbers.self}`;
        expect(await from('client', { host })).toEqual([`one ${nets[family].pod(1)}`]);
      }
    }
  });
}
