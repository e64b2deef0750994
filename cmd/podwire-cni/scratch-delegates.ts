/** Tests of several interfaces in a pod, with a plugin over a master for one of them. */
import { existsSync } from 'node:fs';
import { expect, it } from 'vitest';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { eachOnScratchNode } from './scratch-each.ts';
import { writeMetaPlugin } from './scratch-meta-plugin.ts';
import {
  eventually,
  reaches,
  writeNodeFacts,
  type CniDocument,
  type CniOutcome,
  type ScratchNode,
} from './scratch-node.ts';

/**
 * eth0 is of type podwire, net1 over the node's uplink, net2 of a bridge of its own, net3 podwire, net4
 * of net1's network.
 */
export function testDelegates(overMaster: 'macvlan' | 'ipvlan'): void {
  let node: ScratchNode;
  let neighbour: ScratchNetns;

  eachOnScratchNode(async (fresh) => {
    node = fresh;
    writeMetaPlugin(node.binDir);
    writeNodeFacts(node, ['10.244.1.0/24']);
    neighbour = await node.pod();
    await node.netns.ip(`link add up0 type veth peer name up0 netns ${neighbour.name}`);
    await node.netns.ip('link set up0 up');
    await neighbour.batch(['addr add 10.1.2.200/24 dev up0', 'link set up0 up']);
    await eventually(async () => (await node.netns.ip('link show up0')).includes('LOWER_UP'));
  });

  const ipam = (subnet: string): object => ({
    type: 'host-local',
    dataDir: node.dataDir,
    subnet,
  });
  const lanNetwork = (): object => ({
    name: 'lan',
    type: overMaster,
    master: 'up0',
    ipam: ipam('10.1.2.0/24'),
  });

  function meta(
    command: string,
    pod: { readonly id: string; readonly netns: string },
    more: object = {},
  ): Promise<CniOutcome> {
    const { dataDir, nodeFile, stateDir } = node;
    const lan = lanNetwork();
    const delegates = [
      { name: 'pods', type: 'podwire', bridge: 'cni0', nodeFile, stateDir, ipam: { dataDir } },
      lan,
      { name: 'side', plugins: [{ type: 'bridge', bridge: 'side0', ipam: ipam('10.9.0.0/24') }] },
      {
        name: 'more',
        type: 'podwire',
        bridge: 'more0',
        // The pod's way out is eth0.
        isDefaultGateway: false,
        isGateway: true,
        nodeFile,
        stateDir,
        ipam: { ...ipam('10.99.0.0/24') },
      },
      lan,
    ];
    const config = { cniVersion: '1.1.0', name: 'all', type: 'meta', delegates, ...more };
    return node.cni('meta', { command, ...pod, config });
  }

  async function add(
    id: string,
    given?: ScratchNetns,
  ): Promise<[ScratchNetns, Record<string, CniDocument>]> {
    const pod = given ?? (await node.pod());
    const { exitCode, json, stderr } = await meta('ADD', { id, netns: pod.path });
    expect({ exitCode, stderr, msg: json.msg }).toMatchObject({ exitCode: 0, stderr: '' });
    return [pod, (json as unknown as { all: Record<string, CniDocument> }).all];
  }

  it(`a meta plugin gives a pod five interfaces, two of ${overMaster} among them, and takes them again`, async () => {
    const before = await node.netns.ip('-br link');
    await using pods = new AsyncDisposableStack();
    const a = pods.use(await createScratchNetns('pw-cni-pod'));
    const [, results] = await add('pod-a', a);
    const [b, ofB] = await add('pod-b');
    expect(Object.entries(results).map(([name, { ips }]) => [name, ips[0]?.address])).toEqual([
      ['eth0', '10.244.1.2/24'],
      ['net1', '10.1.2.2/24'],
      ['net2', '10.9.0.2/24'],
      ['net3', '10.99.0.2/24'],
      ['net4', '10.1.2.3/24'],
    ]);
    for (const address of ['10.244.1.3', '10.1.2.4', '10.9.0.3', '10.99.0.3']) {
      expect([address, await reaches(a, address)]).toEqual([address, true]);
    }
    expect(await reaches(a, '10.1.2.200')).toBe(true);
    expect(await reaches(b, '10.244.1.1')).toBe(true);
    const inPod = { id: 'pod-a', netns: a.path };
    expect(await meta('CHECK', inPod, { prevResults: results })).toEqual(fine);

    // One of two, by itself.
    const config = { cniVersion: '1.1.0', ...lanNetwork() };
    const one = { id: 'pod-b', netns: b.path, config };
    expect(await node.cni(overMaster, { ...one, command: 'DEL', ifName: 'net4' })).toEqual(fine);
    const check = { ...config, prevResult: ofB['net1'] };
    const checked = { ...one, command: 'CHECK', ifName: 'net1', config: check };
    expect(await node.cni(overMaster, checked)).toEqual(fine);
    // Both answer ARP for both addresses: the neighbour may know the one that is gone.
    await neighbour.ip('neigh flush all');
    expect(await reaches(b, '10.1.2.200')).toBe(true);

    // The runtime takes the namespace away first, as it may.
    await pods.disposeAsync();
    expect(await meta('DEL', { id: 'pod-a', netns: '' })).toEqual(fine);
    expect(node.leases()).toEqual(['10.1.2.4', '10.244.1.3', '10.9.0.3', '10.99.0.3']);
    expect(await reaches(b, '10.1.2.200')).toBe(true);
    expect(await meta('DEL', { id: 'pod-b', netns: b.path })).toEqual(fine);
    expect(await meta('DEL', { id: 'pod-b', netns: b.path })).toEqual(fine);
    expect(node.leases()).toEqual([]);
    expect(existsSync(`${node.stateDir}/attachments/pods/pod-b:eth0`)).toBe(false);
    await node.netns.batch(['cni0', 'side0', 'more0'].map((bridge) => `link del ${bridge}`));
    expect(await node.netns.ip('-br link')).toBe(before);
  });

  it('GC keeps interfaces that are valid and removes those that are not, each by itself', async () => {
    const [a] = await add('pod-a');
    const [b] = await add('pod-b');
    const valid = ['eth0', 'net1', 'net2', 'net3'].map((ifname) => ({
      containerID: 'pod-b',
      ifname,
    }));
    const attachments = [...valid, { containerID: 'pod-a', ifname: 'eth0' }];
    const gc = { 'cni.dev/valid-attachments': attachments };
    expect(await meta('GC', { id: '', netns: '' }, gc)).toEqual(fine);
    expect(node.leases()).toEqual([
      '10.1.2.4',
      '10.244.1.2',
      '10.244.1.3',
      '10.9.0.3',
      '10.99.0.3',
    ]);
    expect(await reaches(a, '10.244.1.3')).toBe(true);
    expect(await reaches(b, '10.1.2.200')).toBe(true);
    expect(await reaches(b, '10.244.1.2')).toBe(true);
  });

  const fine = { exitCode: 0, json: undefined, stderr: '' };
}
