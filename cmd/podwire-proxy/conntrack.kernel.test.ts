/** UDP clients that never change their port, and the daemon that lets none of them stay behind. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { createProxiedNode, nodeName, type ProxiedNode } from './scratch/proxied-node.ts';
import { startUdpClient, startUdpServer, type UdpClient } from './scratch/udp.ts';

let node: ProxiedNode;
let stack: DisposableStack;
beforeEach(async () => {
  node = await createProxiedNode();
  stack = new DisposableStack();
});
afterEach(async () => {
  stack.dispose();
  await node[Symbol.asyncDispose]();
});

const slow = { timeout: 60_000, interval: 50 };
const vips = ['10.96.0.10', 'fd00:96::10'] as const;
const nodePort = 30053;
const [podOne, podTwo] = [
  ['10.1.2.2', 'fd00:10:2::2'],
  ['10.1.3.2', 'fd00:10:3::2'],
] as const;

function putService(fields: object = {}): void {
  node.api.objects.apply({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'default', name: 'dns' },
    spec: {
      type: 'NodePort',
      clusterIP: vips[0],
      clusterIPs: vips,
      ipFamilies: ['IPv4', 'IPv6'],
      ipFamilyPolicy: 'RequireDualStack',
      ports: [{ name: 'dns', port: 53, protocol: 'UDP', nodePort }],
      ...fields,
    },
  });
}

function deleteService(): void {
  const metadata = { namespace: 'default', name: 'dns' };
  node.api.objects.delete({ apiVersion: 'v1', kind: 'Service', ...metadata });
}

/** In both families; endpoints of this node if `local`. */
function putPods(pods: readonly (readonly [string, string])[], port = 5353, local = false): void {
  for (const [i, addressType] of ['IPv4', 'IPv6'].entries()) {
    node.api.objects.apply({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        namespace: 'default',
        name: `dns-${addressType.toLowerCase()}`,
        labels: { 'kubernetes.io/service-name': 'dns' },
      },
      addressType,
      ports: [{ name: 'dns', port, protocol: 'UDP' }],
      endpoints: pods.map((pod) => ({
        addresses: [pod[i] ?? ''],
        conditions: { ready: true },
        nodeName: local ? nodeName : 'elsewhere',
      })),
    });
  }
}

/** The tracked flows to an address and port, with the kernel's identities of them. */
async function tracked(address: string, port: number): Promise<string[]> {
  const args = ['-L', '-p', 'udp', '-d', address, '--dport', String(port), '-o', 'id'];
  const { stdout } = await node.network.node.exec('conntrack', args);
  return [...stdout.matchAll(/ id=\d+/g)].map(([id]) => id);
}

describe('S157. a UDP client that never changes its port', () => {
  test('is always served by who serves now: pods, the host, node ports, both families', async () => {
    const { network } = node;
    const [one, two] = network.servers;
    const { client: pod, node: host, outside } = network;
    await startUdpServer(one, 'one', [5353]);
    await startUdpServer(two, 'two', [5353, 5354]);
    await startUdpServer(outside, 'unrelated', [nodePort]);
    const client = (from: ScratchNetns, address: string, port: number): UdpClient =>
      stack.use(startUdpClient(from, address, port));
    const toVip = [client(pod, vips[0], 53), client(host, vips[0], 53), client(pod, vips[1], 53)];
    const toNodePort = [client(outside, '203.0.113.1', nodePort)];
    const unrelated = client(pod, '203.0.113.2', nodePort);
    const latest = (): string[] => [...toVip, ...toNodePort].map((c) => c.latest());
    const all = (answer: string): string[] => [answer, answer, answer, answer];

    // A namespace tracks nothing until some rule asks for it; on nodes there always is one.
    for (const tool of ['iptables-nft', 'ip6tables-nft']) {
      const rule = '-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT'.split(' ');
      await host.exec(tool, rule);
    }

    // Before there are rules, packets to cluster addresses leave untranslated and are remembered so.
    await expect.poll(() => tracked(vips[0], 53), slow).toHaveLength(2);
    await expect.poll(() => unrelated.latest(), slow).toBe('unrelated');
    const flow = await tracked('203.0.113.2', nodePort);
    putService();
    putPods([podOne]);
    const daemon = node.startDaemon();
    await expect.poll(latest, slow).toEqual(all('one'));

    // The pod that is no endpoint any more would still answer.
    putPods([podTwo]);
    await expect.poll(latest, slow).toEqual(all('two'));
    putPods([podTwo], 5354);
    await expect.poll(latest, slow).toEqual(all('two:5354'));

    putPods([]);
    await expect.poll(latest, slow).toEqual(all('ECONNREFUSED'));
    putPods([podOne]);
    await expect.poll(latest, slow).toEqual(all('one'));

    // Of policy Local this node has no endpoint: dropped, which a sender on the node itself hears.
    // Node ports have a policy of their own.
    putService({ internalTrafficPolicy: 'Local' });
    await expect.poll(latest, slow).toEqual(['silence', 'EPERM', 'silence', 'one']);
    putPods([podTwo], 5353, true);
    await expect.poll(latest, slow).toEqual(all('two'));

    deleteService();
    await expect.poll(() => latest().some((answer) => answer === 'two'), slow).toBe(false);

    // Deleted while no proxy runs: nothing but its rules knows where it answered.
    putService();
    putPods([podOne]);
    await expect.poll(latest, slow).toEqual(all('one'));
    await daemon.kill('SIGKILL');
    deleteService();
    const next = node.startDaemon();
    await expect.poll(() => latest().some((answer) => answer === 'one'), slow).toBe(false);

    expect(unrelated.latest()).toBe('unrelated');
    expect(await tracked('203.0.113.2', nodePort)).toEqual(flow);
    const metrics = async (): Promise<string> =>
      (await node.ask('http://127.0.0.1:10249/metrics')).body;
    await expect
      .poll(metrics, slow)
      .toMatch(/^kubeproxy_conntrack_reconciler_deleted_entries_total\{ip_family="IPv4"\} [1-9]/m);
    await expect
      .poll(metrics, slow)
      .toMatch(
        /^kubeproxy_conntrack_reconciler_sync_duration_seconds_count\{ip_family="IPv6"\} [1-9]/m,
      );
    for (const { log } of [daemon, next]) expect(log()).not.toContain('UDP flows not removed');
  });
});
