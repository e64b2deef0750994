/** The daemon in nftables mode: an API server on one side, packets on the other. */
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { patience } from '#hack/vm/patience.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import {
  createProxiedNode,
  nodeName,
  programPath,
  type Daemon,
  type ProxiedNode,
} from './scratch/proxied-node.ts';

const slow = { timeout: patience(60_000), interval: 50 };
let node: ProxiedNode;
let daemon: Daemon;
let flags: string[];

beforeAll(async () => {
  node = await createProxiedNode();
  node.api.objects.create({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'default', name: 'web' },
    spec: {
      type: 'ClusterIP',
      clusterIP: '10.96.0.10',
      clusterIPs: ['10.96.0.10', 'fd00:96::10'],
      ipFamilies: ['IPv4', 'IPv6'],
      ipFamilyPolicy: 'RequireDualStack',
      ports: [{ name: 'http', port: 80, targetPort: 8080 }],
    },
  });
  putSlice('IPv4', ['10.1.2.2']);
  putSlice('IPv6', ['fd00:10:2::2']);
  const config = join(dirname(node.kubeconfig), 'nftables.conf');
  await writeFile(
    config,
    `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: { kubeconfig: ${node.kubeconfig} }
clusterCIDR: 10.1.0.0/16,fd00:10::/32
mode: nftables
nftables: { syncPeriod: 30s, minSyncPeriod: 10ms, counters: endpoints, serviceMetrics: 10, traffic: true }
logging: { verbosity: 2 }
`,
  );
  flags = ['--config', config, '--hostname-override', nodeName];
  daemon = node.startDaemon(flags);
});
afterAll(() => node?.[Symbol.asyncDispose]());
beforeEach(({ onTestFailed }) => {
  onTestFailed(() => console.log(daemon.log().slice(-10_000)));
});

function putSlice(family: 'IPv4' | 'IPv6', addresses: readonly string[], name = 'web'): void {
  node.api.objects.apply({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      namespace: 'default',
      name: `${name}-${family.toLowerCase()}`,
      labels: { 'kubernetes.io/service-name': name },
    },
    addressType: family,
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
  });
}

async function answersBecome(expected: readonly string[], host = '10.96.0.10'): Promise<void> {
  const { network } = node;
  const answers = async (): Promise<string[]> => [
    ...new Set(
      await network.connect(network.client, { host, port: 80, count: 10, timeoutMs: 2_000 }),
    ),
  ];
  await expect.poll(answers, slow).toEqual(expected);
}

async function listing(): Promise<string> {
  return (await node.network.node.exec('nft', ['--stateless', 'list', 'ruleset'])).stdout;
}

describe('podwire-proxy in nftables mode', () => {
  test('serves what the API says, as it changes, in both families', async () => {
    await answersBecome(['one 10.1.1.2']);
    await answersBecome(['one fd00:10:1::2'], 'fd00:96::10');
    putSlice('IPv4', ['10.1.3.2']);
    await answersBecome(['two 10.1.1.2']);
    await expect.poll(() => daemon.log()).toContain('Using nftables');
    const { status, body } = await node.ask('http://127.0.0.1:10249/proxyMode');
    expect([status, body]).toEqual([200, 'nftables']);
    expect(await listing()).not.toContain('KUBE-');
  });

  test('counts connections of Services and endpoints, and packets to where nobody is', async () => {
    const { network } = node;
    const spec = { clusterIP: '10.96.0.21', ports: [{ name: 'http', port: 80 }] };
    const empty = { namespace: 'default', name: 'empty' };
    node.api.objects.create({ apiVersion: 'v1', kind: 'Service', metadata: empty, spec });
    const guarded = { apiVersion: 'v1', kind: 'Service', name: 'guarded', namespace: 'default' };
    node.api.objects.create({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { namespace: 'default', name: guarded.name },
      spec: {
        type: 'LoadBalancer',
        clusterIP: '10.96.0.22',
        ports: [{ name: 'http', port: 80 }],
        loadBalancerSourceRanges: ['203.0.113.0/25'],
      },
    });
    putSlice('IPv4', ['10.1.2.2'], guarded.name);
    const ingress = [{ ip: '192.0.2.9' }];
    const status = { status: { loadBalancer: { ingress } } };
    node.api.objects.patch(guarded, 'merge', status, { subresource: 'status' });
    const guardedFrom = (from: ScratchNetns, timeoutMs = 2_000): Promise<string[]> =>
      network.connect(from, { host: '192.0.2.9', port: 80, timeoutMs });
    await expect
      .poll(() => guardedFrom(network.outside), slow)
      .toEqual([expect.stringMatching(/^one /)]);
    const refused = (): Promise<string[]> =>
      network.connect(network.client, { host: '10.96.0.21', port: 80, count: 1, timeoutMs: 2_000 });
    await expect.poll(refused, slow).toEqual(['ECONNREFUSED']);

    const podwireStatus = async (): Promise<string> => {
      const args = [programPath('podwire'), 'status', '--services', 'default', '--endpoints'];
      return (await network.node.exec(process.execPath, args)).stdout;
    };
    const counted = (text: string): Record<string, number[]> =>
      Object.fromEntries(
        [
          ...text.matchAll(
            /^(\S+) .* 10\.96\.0\.\d+ +\d+ +(\d+) +(\d+) +(\d+) +(\d+)(?: +\d+){4}$/gm,
          ),
        ].map(([, name = '', ...numbers]) => [name, numbers.map(Number)]),
      );
    const before = await podwireStatus();
    await network.connect(network.client, { host: '10.96.0.10', port: 80, count: 5 });
    await refused();
    expect(await guardedFrom(network.client, 300)).toEqual(['TIMEOUT']);
    await guardedFrom(network.outside);
    const after = await podwireStatus();
    const [connections = 0] = counted(before)['default/web'] ?? [];
    expect(connections).toBeGreaterThan(0);
    expect(counted(after)['default/web']).toEqual([connections + 5, 0, 0, 0]);
    const ofEndpoint = (text: string): number =>
      Number(/ 10\.96\.0\.10 .*\n +10\.1\.3\.2:8080 +(\d+)(?: +\d+){4}$/m.exec(text)?.[1]);
    expect(ofEndpoint(after)).toBe(ofEndpoint(before) + 5);
    const [, packets = 0] = counted(before)['default/empty'] ?? [];
    expect(counted(after)['default/empty']).toEqual([0, packets + 1, 0, 0]);
    const [admitted = 0] = counted(before)['default/guarded'] ?? [];
    expect(counted(after)['default/guarded']).toEqual([admitted + 1, 0, 0, expect.any(Number)]);
    expect(counted(after)['default/guarded']?.[3]).toBeGreaterThan(0);
    expect(counted(before)['default/guarded']?.[3]).toBe(0);
    const { body } = await node.ask('http://127.0.0.1:10249/metrics');
    expect(body).toMatch(
      new RegExp(
        `^podwire_service_connections_total\\{.*"web".*"IPv4"\\} ${connections + 5}$`,
        'm',
      ),
    );
  });

  test('counts packets and bytes, of connections that are and that were', async () => {
    const { network } = node;
    node.api.objects.create({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { namespace: 'default', name: 'datagrams' },
      spec: {
        clusterIP: '10.96.0.23',
        clusterIPs: ['10.96.0.23', 'fd00:96::23'],
        ipFamilyPolicy: 'RequireDualStack',
        ports: [{ name: 'udp', port: 53, targetPort: 8080, protocol: 'UDP' }],
      },
    });
    for (const [family, address] of [
      ['IPv4', '10.1.3.2'],
      ['IPv6', 'fd00:10:3::2'],
    ] as const) {
      node.api.objects.create({
        apiVersion: 'discovery.k8s.io/v1',
        kind: 'EndpointSlice',
        metadata: {
          namespace: 'default',
          name: `datagrams-${family.toLowerCase()}`,
          labels: { 'kubernetes.io/service-name': 'datagrams' },
        },
        addressType: family,
        ports: [{ name: 'udp', port: 8080, protocol: 'UDP' }],
        endpoints: [{ addresses: [address], conditions: { ready: true } }],
      });
    }
    const ask = (host: string, count: number, timeoutMs?: number): Promise<string[]> =>
      network.connect(network.client, { host, port: 53, count, protocol: 'udp', timeoutMs });
    type Sample = Readonly<Record<'packets' | 'bytes', readonly [number, number]>>;
    const sample = (of: 'service' | 'endpoint', family: string) => async (): Promise<Sample> => {
      const { body } = await node.ask('http://127.0.0.1:10249/metrics');
      const read = (unit: string, direction: string): number => {
        const labels = `\\{[^}]*"datagrams"[^}]*"${family}"[^}]*"${direction}"\\}`;
        const line = new RegExp(`^podwire_${of}_${unit}_total${labels} (\\d+)$`, 'm');
        return Number(line.exec(body)?.[1] ?? 0);
      };
      const [into, out] = ['in', 'out'];
      return {
        packets: [read('packets', into), read('packets', out)],
        bytes: [read('bytes', into), read('bytes', out)],
      };
    };
    await expect.poll(() => ask('10.96.0.23', 1, 500), slow).toEqual(['two 10.1.1.2']);
    await expect.poll(() => ask('fd00:96::23', 1, 500), slow).toEqual(['two fd00:10:1::2']);
    // Those of before there was an answer are none of the Service's, or ended without one.
    const before = await sample('service', 'IPv4')();
    const before6 = await sample('service', 'IPv6')();
    await ask('fd00:96::23', 1);
    /** So many packets to the Service of `sizes[0]` bytes each, and as many back of `sizes[1]`. */
    const plus = (
      { packets, bytes }: Sample,
      count: number,
      sizes: readonly [number, number],
    ): Sample => ({
      packets: [packets[0] + count, packets[1] + count],
      bytes: [bytes[0] + count * sizes[0], bytes[1] + count * sizes[1]],
    });
    // "?" in 29 bytes of IPv4, and "two 10.1.1.2" in 40.
    const more = (count: number): Sample => plus(before, count, [29, 40]);
    await ask('10.96.0.23', 10);
    expect(await sample('service', 'IPv4')()).toEqual(more(10));
    expect(await sample('endpoint', 'IPv4')()).toEqual(more(10));
    // None is there any more, and some that no look has seen come and go.
    await network.node.exec('conntrack', ['-D', '-p', 'udp']);
    await ask('10.96.0.23', 5);
    await network.node.exec('conntrack', ['-D', '-p', 'udp']);
    expect(await sample('service', 'IPv4')()).toEqual(more(15));
    await ask('10.96.0.23', 3);
    expect(await sample('service', 'IPv4')()).toEqual(more(18));
    expect(await sample('service', 'IPv6')()).toEqual(plus(before6, 1, [49, 64]));
    const args = [programPath('podwire'), 'status', '--services', 'default/datagrams'];
    const { stdout } = await network.node.exec(process.execPath, args);
    const { bytes, packets } = more(18);
    const row = [packets[0], bytes[0], packets[1], bytes[1]].join(' +');
    expect(stdout).toMatch(new RegExp(`PACKETS IN  BYTES IN  PACKETS OUT  BYTES OUT\\n`));
    expect(stdout).toMatch(new RegExp(` 10\\.96\\.0\\.23 .* ${row}\\n`));
  });

  test('S113. drops what goes to an address of no Service, in the ranges the API knows', async () => {
    node.api.objects.create({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'ServiceCIDR',
      metadata: { name: 'more' },
      spec: { cidrs: ['10.99.0.0/24'] },
    });
    await expect.poll(listing, slow).toContain('ip daddr 10.99.0.0/24 drop');
    // The table was replaced as a whole, and serves.
    await answersBecome(['two 10.1.1.2']);
  });

  test(
    'a killed and restarted one loses no connection, and writes nothing it finds',
    async () => {
      const { network } = node;
      await answersBecome(['two 10.1.1.2']);
      const generation = async (): Promise<string> => {
        const { stdout } = await network.node.exec('nft', [
          '--stateless',
          'list',
          'table',
          'ip',
          'podwire-proxy',
        ]);
        return stdout;
      };
      const before = await generation();
      // New connections all the while, about a thousand.
      const stop = new AbortController();
      const seen: string[] = [];
      const traffic = (async () => {
        while (!stop.signal.aborted) {
          const to = { host: '10.96.0.10', port: 80, count: 100 };
          seen.push(...(await network.connect(network.client, to)));
        }
      })();
      const connections = async (more: number): Promise<void> => {
        const goal = seen.length + more;
        await expect.poll(() => seen.length, slow).toBeGreaterThanOrEqual(goal);
      };
      await connections(200);
      await daemon.kill('SIGKILL');
      await connections(200);
      daemon = node.startDaemon(flags);
      await expect.poll(() => daemon.log(), slow).toContain('Services are known');
      await connections(200);
      // The new one is at work: it takes in a change, of another Service.
      node.api.objects.create({
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { namespace: 'default', name: 'other' },
        spec: { clusterIP: '10.96.0.11', clusterIPs: ['10.96.0.11'], ports: [{ port: 80 }] },
      });
      await expect.poll(listing, slow).toContain('10.96.0.11');
      await connections(200);
      stop.abort();
      await traffic;
      expect(new Set(seen)).toEqual(new Set(['two 10.1.1.2']));
      node.api.objects.delete({
        apiVersion: 'v1',
        kind: 'Service',
        namespace: 'default',
        name: 'other',
      });
      await expect.poll(generation, slow).toBe(before);
      expect(daemon.log()).not.toContain('"level":"error"');
    },
    patience(240_000),
  );

  test('puts back what others delete within some seconds, and says so', async () => {
    await answersBecome(['two 10.1.1.2']);
    await node.network.node.exec('nft', ['flush', 'ruleset']);
    await answersBecome(['two 10.1.1.2']);
    await expect.poll(() => daemon.log()).toContain('Somebody changed our table');
  });

  test('when stopped it leaves its rules, and they serve', async () => {
    expect(await daemon.kill('SIGTERM')).toBe(0);
    await answersBecome(['two 10.1.1.2']);
  });
});
