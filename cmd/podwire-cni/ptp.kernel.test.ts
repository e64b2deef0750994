import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { statesOfLinksUp } from './scratch-carrier.ts';
import { eachOnScratchNode } from './scratch-each.ts';
import {
  goPluginDir,
  reaches,
  showLink,
  type CniDocument,
  type CniOutcome,
  type ScratchNode,
} from './scratch-node.ts';

let node: ScratchNode;
let pod: ScratchNetns;
eachOnScratchNode(async (fresh) => {
  node = fresh;
  pod = await node.pod();
});

const v4 = '10.1.2.0/24';
const v6 = 'fd00:1::/64';

interface Ask {
  readonly command?: string;
  readonly type?: string;
  readonly id?: string;
  readonly netns?: string;
  readonly program?: string;
  readonly subnets?: readonly string[];
  readonly more?: object;
}

function call(ask: Ask = {}): Promise<CniOutcome> {
  const { type = 'ptp', more = {}, subnets = [v4], netns = pod.path, ...rest } = ask;
  const ranges = subnets.map((subnet) => [{ subnet }]);
  const routes = subnets.map((subnet) => ({ dst: subnet.includes(':') ? '::/0' : '0.0.0.0/0' }));
  const ipam = { type: 'host-local', dataDir: node.dataDir, ranges, routes };
  return node.cni(type, {
    ...rest,
    netns,
    config: { cniVersion: '1.1.0', name: 'net', ipam, ...more },
  });
}

async function add(ask: Ask = {}): Promise<CniDocument> {
  const { exitCode, json, stderr } = await call(ask);
  expect({ exitCode, json, stderr }).toMatchObject({ exitCode: 0, stderr: '' });
  return json;
}

const fine = { exitCode: 0, json: undefined, stderr: '' };

/** Routes and addresses of both ends, by the names the reference gives its random ones. */
async function wiring(hostLink: string): Promise<string[]> {
  const lines: string[] = [];
  for (const [netns, words] of [
    [node.netns, '-4 route'],
    [node.netns, '-6 route'],
    [pod, '-4 route'],
    [pod, '-6 route'],
    [node.netns, '-o addr show scope global'],
    [pod, '-o addr show scope global'],
  ] as const) {
    lines.push(...(await netns.ip(words)).split('\n').map((line) => `${words}: ${line.trim()}`));
  }
  return lines
    .filter((line) => !/fe80|ff00/.test(line))
    .map((line) =>
      line
        .replaceAll(hostLink, 'HOST')
        // The kernel's own subnet route is never made, rather than taken away.
        .replaceAll(/noprefixroute |tentative |nodad /g, '')
        .replace(/global: \d+: /, 'global: ')
        .replaceAll(/(10\.1\.2\.|fd00:1::)[2-9](?=\D|$)/g, '$1POD')
        .replaceAll(/\s+/g, ' ')
        .trim(),
    )
    .toSorted();
}

describe('ADD', () => {
  it.each([
    ['IPv4', [v4], ['10.1.2.1'], '10.1.2.3'],
    ['IPv6', [v6], ['fd00:1::1'], 'fd00:1::3'],
    ['both', [v4, v6], ['10.1.2.1', 'fd00:1::1'], 'fd00:1::3'],
  ])(
    '120. %s: a pod reaches the host and, by it, its neighbour',
    async (_, subnets, gateways, other) => {
      const neighbour = await node.pod();
      const result = await add({ subnets });
      await add({ subnets, id: 'pod-2', netns: neighbour.path });
      for (const address of [...gateways, other]) expect(await reaches(pod, address)).toBe(true);
      expect(result.interfaces).toEqual([
        { name: expect.stringMatching(/^veth[0-9a-f]{11}$/), mac: expect.any(String), mtu: 1500 },
        { name: 'eth0', mac: expect.any(String), mtu: 1500, sandbox: pod.path },
      ]);
      expect(result.ips.map((ip) => ip.interface)).toEqual(subnets.map(() => 1));
      expect(result.ips.map((ip) => ip.gateway)).toEqual(gateways);
    },
  );

  it.runIf(existsSync(`${goPluginDir}/ptp`))(
    '120. wires a pod as the reference plugin does',
    async () => {
      const subnets = [v4, v6];
      const ours = await add({ subnets, more: { cniVersion: '1.0.0', mtu: 1400 } });
      const wired = await wiring(ours.interfaces[0]?.name ?? '');
      expect(await call({ command: 'DEL', subnets })).toEqual(fine);
      const go = await add({
        subnets,
        more: { cniVersion: '1.0.0', mtu: 1400 },
        program: `${goPluginDir}/ptp`,
      });
      expect(wired).toEqual(await wiring(go.interfaces[0]?.name ?? ''));
      const shape = ({ interfaces, ips, routes }: CniDocument): object => ({
        interfaces: interfaces.map(({ name, sandbox }) => [
          name.replace(/^veth.*/, 'HOST'),
          sandbox,
        ]),
        ips: ips.map(({ gateway, interface: index }) => [gateway, index]),
        routes,
      });
      expect(shape(ours)).toEqual(shape(go));
      // What the reference made is ours to check and to delete.
      const prevResult = go;
      expect(
        await call({ command: 'CHECK', subnets, more: { cniVersion: '1.0.0', prevResult } }),
      ).toEqual(fine);
      expect(await call({ command: 'DEL', subnets })).toEqual(fine);
      expect(await node.netns.ip('-br link')).not.toContain('veth');
    },
  );

  it('120. sets MTU and dns', async () => {
    const { dns, interfaces } = await add({
      more: { mtu: 5000, dns: { nameservers: ['1.1.1.1'] } },
    });
    expect(dns).toEqual({ nameservers: ['1.1.1.1'] });
    expect((await showLink(pod, 'eth0')).mtu).toBe(5000);
    expect((await showLink(node.netns, interfaces[0]?.name ?? '')).mtu).toBe(5000);
  });

  it('masquerades', async () => {
    await add({ subnets: [v4, v6], more: { ipMasq: true, ipMasqBackend: 'nftables' } });
    const rules = async (): Promise<string> =>
      (await node.netns.exec('nft', ['list', 'ruleset'])).stdout;
    expect(await rules()).toContain('ip saddr 10.1.2.2 ip daddr != 10.1.2.0/24 masquerade');
    expect(await rules()).toContain('ip6 saddr fd00:1::2 ip6 daddr != fd00:1::/64 masquerade');
    expect(await call({ command: 'DEL', netns: '', more: { ipMasq: true } })).toEqual(fine);
    expect(await rules()).not.toContain('saddr');
  });

  it.each([
    ['no ipam', { ipam: {} }, 'it needs ipam.type'],
    [
      'no gateway',
      { ipam: { type: 'static', addresses: [{ address: '10.1.2.9/24' }] } },
      'IPAM plugin "static" gave it no gateway',
    ],
    [
      'a broken route',
      {
        ipam: {
          type: 'static',
          addresses: [{ address: '10.1.2.9/24', gateway: '10.1.2.1' }],
          routes: [{ dst: '10.9.0.0/16', gw: '192.0.2.1' }],
        },
      },
      'Cannot add route 10.9.0.0/16 via 192.0.2.1',
    ],
  ])('leaves nothing after a failure: %s', async (_, more, message) => {
    const before = await node.snapshot([pod]);
    const { exitCode, json } = await call({ more });
    expect(exitCode).toBe(1);
    expect(json.msg).toContain(message);
    const after = await node.snapshot([pod]);
    expect(after).toEqual(before);
  });

  it('58. gives the address back when a later step fails', async () => {
    await pod.ip('link add eth0 type veth peer name other');
    expect((await call()).json.msg).toContain('container veth name (eth0) already exists');
    expect(node.leases()).toEqual([]);
  });
});

it('ADD never has a link up that waits for a carrier', async () => {
  const states = await statesOfLinksUp(
    node.netns,
    async () => void (await add({ subnets: [v4, v6] })),
  );
  expect(states).not.toEqual([]);
  expect(states.filter((flags) => !flags.includes('LOWER_UP'))).toEqual([]);
});

describe('DEL and GC', () => {
  it('120. DEL is content when there is nothing, and without a namespace', async () => {
    expect(await call({ command: 'DEL' })).toEqual(fine);
    await add();
    expect(await call({ command: 'DEL', netns: '' })).toEqual(fine);
    expect(await call({ command: 'DEL', netns: '' })).toEqual(fine);
    expect(node.leases()).toEqual([]);
    expect(await pod.ip('-br link')).not.toContain('eth0');
  });

  it('GC takes links, rules and addresses that no attachment has', async () => {
    const other = await node.pod();
    const more = { ipMasq: true, ipMasqBackend: 'nftables' };
    await add({ more });
    await add({ more, id: 'pod-2', netns: other.path });
    const valid = [{ containerID: 'pod-1', ifname: 'eth0' }];
    const gc = await call({ command: 'GC', more: { ...more, 'cni.dev/valid-attachments': valid } });
    expect(gc).toEqual(fine);
    expect(node.leases()).toEqual(['10.1.2.2']);
    expect(await other.ip('-br link')).not.toContain('eth0');
    expect((await node.netns.exec('nft', ['list', 'ruleset'])).stdout).not.toContain('10.1.2.3');
    expect(await reaches(pod, '10.1.2.1')).toBe(true);
  });
});

it('CHECK names what is gone', async () => {
  const result = await add();
  const check = async (): Promise<string> =>
    (await call({ command: 'CHECK', more: { prevResult: result } })).json?.msg ?? '';
  expect(await check()).toBe('');
  await pod.ip('route del default');
  expect(await check()).toContain('route to 0.0.0.0/0 is missing');
  await pod.ip('addr del 10.1.2.2/24 dev eth0');
  expect(await check()).toContain('address 10.1.2.2/24 is missing');
  await pod.ip('link set eth0 down');
  expect(await check()).toContain('eth0 is down');
  await pod.ip('link del eth0');
  expect(await check()).toContain('eth0 is missing');
});

it('115. bandwidth works behind ptp', async () => {
  const prevResult = await add({ more: { cniVersion: '1.0.0' } });
  const limits = { ingressRate: 8e6, ingressBurst: 8e6, egressRate: 8e6, egressBurst: 8e6 };
  const more = { cniVersion: '1.0.0', ...limits };
  const { exitCode, json } = await call({ type: 'bandwidth', more: { ...more, prevResult } });
  expect(exitCode).toBe(0);
  expect(
    await call({ type: 'bandwidth', command: 'CHECK', more: { ...more, prevResult: json } }),
  ).toEqual(fine);
  expect(await reaches(pod, '10.1.2.1')).toBe(true);
  expect(await call({ type: 'bandwidth', command: 'DEL', netns: '', more })).toEqual(fine);
});

it('66. STATUS is that of the IPAM plugin', async () => {
  expect(await call({ command: 'STATUS', netns: '' })).toEqual(fine);
  const ipam = { type: 'nowhere' };
  expect((await call({ command: 'STATUS', netns: '', more: { ipam } })).json.msg).toContain(
    'nowhere',
  );
});
