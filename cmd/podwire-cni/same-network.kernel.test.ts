/** Two interfaces of a pod in one network. */
import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import {
  addressOf,
  eachWithMultus,
  isForeign,
  type Multus,
  type Network,
} from './scratch-multus.ts';
import { goPluginDir, reaches, type ScratchNode } from './scratch-node.ts';

let multus: Multus;
let node: ScratchNode;
let pod: ScratchNetns;
let neighbour: ScratchNetns;
eachWithMultus((fresh) => {
  multus = fresh;
  ({ node, pod, neighbour } = fresh);
});

describe('two interfaces of one network', () => {
  const gateway = { isGateway: true, ipMasq: true };
  /** For anti-spoofing, which knows links apart: answers leave by the interface whose address they have. */
  const bySource = { type: 'sbr' };
  const cases: Readonly<Record<string, () => Network['plugins']>> = {
    bridge: () => [
      { type: 'bridge', bridge: 'side0', ...gateway, ipam: multus.ipam('10.9.0.0/24') },
    ],
    'bridge with nftables': () => [
      {
        type: 'bridge',
        bridge: 'side0',
        ...gateway,
        ...nftables,
        ipam: multus.ipam('10.9.0.0/24'),
      },
    ],
    ptp: () => [{ type: 'ptp', ipMasq: true, ipam: multus.ipam('10.9.0.0/24') }],
    macvlan: () => [{ type: 'macvlan', master: 'up0', ipam: multus.ipam('10.1.2.0/24') }],
    podwire: () => [multus.podwire({ isDefaultGateway: false, isGateway: true }), bySource],
    'podwire in mode routed': () => [multus.podwire({ mode: 'routed', antiSpoofing: false })],
  };
  const nftables = { ipMasqBackend: 'nftables' };

  it.for(Object.keys(cases))('%s: each is checked and taken by itself', async (name, context) => {
    const network = { name: 'net', plugins: cases[name]?.() ?? [] };
    if (network.plugins.some(isForeign) && !existsSync(`${goPluginDir}/sbr`)) {
      context.skip('there is no sbr here');
    }
    const results = [
      await multus.attach('net1', network),
      await multus.attach('net2', network),
    ] as const;
    const [first, second] = results.map(addressOf);
    expect(first).not.toBe(second);
    const from = name === 'macvlan' ? neighbour : node.netns;
    const answers = async (): Promise<readonly (string | undefined)[]> => {
      // Each interface answers ARP for both addresses: who asked knows the one that was faster.
      await from.ip('neigh flush all');
      const seen = [first, second].map(async (at = '') => ((await reaches(from, at)) ? at : ''));
      return (await Promise.all(seen)).filter((at) => at !== '');
    };
    expect(await answers()).toEqual([first, second]);
    const check = (i: 0 | 1): Promise<unknown> =>
      multus.run('CHECK', [`net${i + 1}`, network], { prevResult: results[i] });
    expect(await check(0)).toBeUndefined();
    expect(await check(1)).toBeUndefined();

    expect(await multus.run('DEL', ['net1', network], { prevResult: results[0] })).toBeUndefined();
    expect(node.leases()).toEqual([second]);
    expect(await check(1)).toBeUndefined();
    expect(await pod.ip('-br link')).not.toContain('net1');
    expect(await answers()).toEqual([second]);
    // The reference's sbr needs the namespace.
    const gone = network.plugins.some(isForeign) ? {} : { netns: '' };
    // It may come again, and the second one may go without its namespace.
    await multus.attach('net1', network);
    expect(await multus.run('DEL', ['net2', network], gone)).toBeUndefined();
    expect(node.leases()).toHaveLength(1);
    expect(await multus.run('DEL', ['net1', network])).toBeUndefined();
    for (const bridge of ['side0', 'cni0']) {
      await node.netns.ip(`link del ${bridge}`).catch(() => undefined);
    }
    if (name === 'macvlan') await pod.ip('link del net2').catch(() => undefined);
    expect(node.leases()).toEqual([]);
    const rules = await node.netns.exec('sh', ['-c', 'iptables-save -t nat; nft list ruleset']);
    expect(rules.stdout).not.toMatch(new RegExp(`${first}|${second}|pod-1`));
  });
});
