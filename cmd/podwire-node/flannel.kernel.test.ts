import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createTestCluster, type TestCluster } from './scratch/cluster.ts';
import type { Daemon } from './scratch/daemon.ts';
import { startPing, type NodeName } from './scratch/three-nodes.ts';

/**
 * Node b is one of flannel: its Node says what flannel 0.28 writes, and its kernel has what flannel
 * makes of the others' annotations, entry by entry (flannel pkg/backend/vxlan). Nodes a and c are
 * ours, with flannel's configuration as its manifest ships it.
 */
const prefix = 'flannel.alpha.coreos.com/';
const macs = { ip: 'aa:f5:4e:01:02:03', ip6: 'ee:f5:4e:01:02:03' } as const;
const netConf = `{
  "Network": "10.244.0.0/16",
  "IPv6Network": "fd00:10:244::/48",
  "EnableIPv6": true,
  "EnableNFTables": false,
  "Backend": { "Type": "vxlan" }
}
`;
const slow = { timeout: 60_000, interval: 50 };

let cluster: TestCluster;
const daemons = new Map<NodeName, Daemon>();
beforeAll(async () => {
  cluster = await createTestCluster();
  const { nodes } = cluster.network;
  for (const node of Object.values(nodes)) cluster.register(node);
  const [ip = '', ip6 = ''] = nodes.b.internalIPs;
  annotate('b', {
    'backend-type': 'vxlan',
    'backend-data': JSON.stringify({ VNI: 1, VtepMAC: macs.ip }),
    'backend-v6-data': JSON.stringify({ VNI: 1, VtepMAC: macs.ip6 }),
    'public-ip': ip,
    'public-ipv6': ip6,
    'kube-subnet-manager': 'true',
  });
  const path = join(cluster.dir, 'net-conf.json');
  await writeFile(path, netConf);
  const keys = `netConf: ${path}\nannotationPrefix: flannel.alpha.coreos.com\n`;
  const subnetFile = `subnetFile: ${cluster.dir}/subnet.env\n`;
  daemons.set('a', await cluster.startDaemon('a', `${keys}${subnetFile}`));
  daemons.set('c', await cluster.startDaemon('c', keys));
});
afterAll(() => cluster?.[Symbol.asyncDispose]());

function annotate(name: NodeName, said: Readonly<Record<string, string | null>>): void {
  const annotations = Object.fromEntries(
    Object.entries(said).map(([key, value]) => [prefix + key, value]),
  );
  const ref = { apiVersion: 'v1', kind: 'Node', name };
  cluster.api.objects.patch(ref, 'merge', { metadata: { annotations } });
}

function annotationsOf(name: NodeName): Readonly<Record<string, string>> {
  const node = cluster.api.objects.get({ apiVersion: 'v1', kind: 'Node', name });
  const { annotations = {} } = node.metadata as { annotations?: Record<string, string> };
  return annotations;
}

/** What flannel would make on node b of what a Node of ours says: it takes no others. */
async function followAsFlannel(name: NodeName): Promise<void> {
  const { b } = cluster.network.nodes;
  await expect
    .poll(() => annotationsOf(name)[`${prefix}backend-v6-data`], slow)
    .toContain('VtepMAC');
  const said = annotationsOf(name);
  expect(said[`${prefix}kube-subnet-manager`]).toBe('true');
  expect(said[`${prefix}backend-type`]).toBe('vxlan');
  const [range = '', range6 = ''] = cluster.network.nodes[name].podCIDRs;
  for (const [device, data, publicIP, podCIDR] of [
    ['flannel.1', 'backend-data', 'public-ip', range],
    ['flannel-v6.1', 'backend-v6-data', 'public-ipv6', range6],
  ] as const) {
    const { VNI, VtepMAC } = JSON.parse(said[prefix + data] ?? '') as Record<string, string>;
    expect(VNI).toBe(1);
    const [network = ''] = podCIDR.split('/');
    await b.netns.ip(`neigh replace ${network} lladdr ${VtepMAC} dev ${device} nud permanent`);
    const remote = said[prefix + publicIP] ?? '';
    const fdb = [
      'fdb',
      'replace',
      VtepMAC ?? '',
      'dev',
      device,
      'dst',
      remote,
      'self',
      'permanent',
    ];
    await b.netns.exec('bridge', fdb);
    await b.netns.ip(`route replace ${podCIDR} via ${network} dev ${device} onlink`);
  }
}

async function makeFlannelDevices(): Promise<void> {
  const { internalIPs, netns } = cluster.network.nodes.b;
  const vxlan = 'type vxlan id 1 dev eth0 dstport 8472 nolearning';
  await netns.ip(`link add flannel.1 mtu 1450 address ${macs.ip} ${vxlan} local ${internalIPs[0]}`);
  await netns.ip('addr add 10.244.2.0/32 dev flannel.1');
  await netns.ip(`link add flannel-v6.1 address ${macs.ip6} ${vxlan} local ${internalIPs[1]}`);
  await netns.ip('addr add fd00:10:244:2::/128 dev flannel-v6.1 nodad');
  await netns.ip('link set flannel.1 up');
  await netns.ip('link set flannel-v6.1 up');
  const forwarding = ['net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'];
  await netns.exec('sysctl', ['-qw', ...forwarding]);
}

async function reaches(from: NodeName, to: NodeName, family: 'ip' | 'ip6'): Promise<void> {
  const { nodes } = cluster.network;
  const pinger = await startPing(
    nodes[from].netns,
    nodes[from].pods[family],
    nodes[to].pods[family],
  );
  await expect.poll(() => pinger.answered(), slow).toBeGreaterThan(3);
  await pinger.stop();
}

describe('together with flannel', () => {
  test('134. 135. 136. pods of our nodes and of a flannel node reach each other', async () => {
    await makeFlannelDevices();
    await followAsFlannel('a');
    await followAsFlannel('c');
    for (const family of ['ip', 'ip6'] as const) {
      await reaches('a', 'b', family);
      await reaches('b', 'c', family);
      await reaches('a', 'c', family);
    }
    // As flannel has it unless it is told otherwise: node b is on our L2 and gets its packets wrapped.
    const { a } = cluster.network.nodes;
    expect(await a.netns.ip('route show 10.244.2.0/24')).toContain('dev podwire.1');
  });

  test('150. a flannel node that makes its device anew is followed', async () => {
    const { a } = cluster.network.nodes;
    const mac = 'aa:f5:4e:0a:0b:0c';
    annotate('b', { 'backend-data': JSON.stringify({ VNI: 1, VtepMAC: mac }) });
    const fdb = async (): Promise<string> =>
      (await a.netns.exec('bridge', ['fdb', 'show', 'dev', 'podwire.1'])).stdout;
    await expect.poll(fdb, slow).toContain(mac);
    expect(await fdb()).not.toContain(macs.ip);
    expect(await a.netns.ip('neigh show 10.244.2.0 dev podwire.1')).toContain(mac);
    annotate('b', { 'backend-data': JSON.stringify({ VNI: 1, VtepMAC: macs.ip }) });
    await expect.poll(fdb, slow).toContain(macs.ip);
    await reaches('a', 'b', 'ip');
  });

  test('136. public-ip-overwrite becomes public-ip', async () => {
    const own = annotationsOf('c')[`${prefix}public-ip`];
    annotate('c', { 'public-ip-overwrite': '203.0.113.77' });
    const said = (): string | undefined => annotationsOf('c')[`${prefix}public-ip`];
    await expect.poll(said, slow).toBe('203.0.113.77');
    annotate('c', { 'public-ip-overwrite': null });
    await expect.poll(said, slow).toBe(own);
  });
});
