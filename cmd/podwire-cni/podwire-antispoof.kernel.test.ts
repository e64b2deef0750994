import { describe, expect, it } from 'vitest';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { openNodeSys } from '#pkg/sys/node-ffi.ts';
import { arpFrame, neighbourFrame, sendFrame, udpFrame } from './scratch-frames.ts';
import { eachOnScratchNode } from './scratch-each.ts';
import {
  reaches,
  showLink,
  writeNodeFacts,
  type CniOutcome,
  type ScratchNode,
} from './scratch-node.ts';
import { ask, serve } from './scratch-traffic.ts';

const sys = openNodeSys();
let node: ScratchNode;
eachOnScratchNode(async (fresh) => {
  node = fresh;
  writeNodeFacts(node, ['10.244.1.0/24', 'fd00:10:244:1::/64']);
  // Nothing else may drop what is forged.
  const off = ['all', 'default'].map((name) => `net.ipv4.conf.${name}.rp_filter=0`);
  await node.netns.exec('sysctl', ['-qw', ...off]);
});

function call(command: string, netns: string, id: string, more: object): Promise<CniOutcome> {
  const config = {
    cniVersion: '1.1.0',
    name: 'podwire',
    type: 'podwire',
    nodeFile: node.nodeFile,
    stateDir: node.stateDir,
    ipam: { dataDir: node.dataDir },
    ...more,
  };
  return node.cni('podwire', { command, id, netns, config });
}

interface Pod {
  readonly netns: ScratchNetns;
  readonly mac: string;
  readonly ip: string;
  readonly ip6: string;
  /** Where it sends what is not for a neighbour. */
  readonly routerMac: string;
}

async function start(id: string, more: object): Promise<Pod> {
  const netns = await node.pod();
  const { exitCode, json } = await call('ADD', netns.path, id, more);
  // An entry that was just made would not change for a second.
  await netns.exec('sysctl', ['-qw', 'net.ipv4.neigh.eth0.locktime=0']);
  expect({ exitCode, json }).toMatchObject({ exitCode: 0 });
  const [ip = '', ip6 = ''] = json.ips.map(({ address }) => address.replace(/\/.*/, ''));
  const { address: mac } = await showLink(netns, 'eth0');
  return { netns, mac, ip, ip6, routerMac: json.interfaces[0]?.mac ?? '' };
}

/** Packets that came to the host's UDP port, by their text. */
async function listen(port: number): Promise<() => Promise<string>> {
  const rules = `table inet watch {
    chain in { type filter hook input priority 0; udp dport ${port} counter; }
  }`;
  await node.netns.exec('nft', ['-f', '-'], { input: rules });
  return async () => (await node.netns.exec('nft', ['list', 'table', 'inet', 'watch'])).stdout;
}

const forgedMac = '0a:58:de:ad:be:ef';

describe.each(['bridge', 'routed'])('anti-spoofing, mode %s', (mode) => {
  it('lets a pod use what is its own', async () => {
    const [a, b] = [await start('a', { mode }), await start('b', { mode })];
    await serve(b.netns, 'b', [80]);
    expect(await ask(a.netns, `tcp ${b.ip} 80`)).toBe(`b ${a.ip}`);
    expect(await ask(a.netns, `tcp ${b.ip6} 80`)).toBe(`b ${a.ip6}`);
    expect(await ask(node.netns, `udp ${b.ip} 80`)).toMatch(/^b 10\.244\.1\.1$/);
    for (const gateway of ['10.244.1.1', 'fd00:10:244:1::1']) {
      expect(await reaches(a.netns, gateway)).toBe(true);
    }
    // Neighbours that are forgotten are found again: ARP and neighbour discovery pass.
    for (const { netns } of [a, b, node]) await netns.ip('neigh flush all');
    expect(await ask(a.netns, `tcp ${b.ip} 80`)).toBe(`b ${a.ip}`);
    expect(await ask(a.netns, `tcp ${b.ip6} 80`)).toBe(`b ${a.ip6}`);
  });

  it.each([
    ['its own', {}, 1],
    ["another pod's address", { source: '10.244.1.3' }, 0],
    ['an address of elsewhere', { source: '192.0.2.66' }, 0],
    ['another MAC', { from: forgedMac }, 0],
  ])('packets from %s', async (_, forged: { source?: string; from?: string }, arrive) => {
    const [a] = [await start('a', { mode }), await start('b', { mode })];
    const seen = await listen(7777);
    const ethernet = { to: a.routerMac, from: forged.from ?? a.mac };
    const packet = { source: forged.source ?? a.ip, destination: '10.244.1.1', port: 7777 };
    sendFrame(sys, a.netns, 'eth0', udpFrame(ethernet, packet, 'x'));
    await probe(a, seen);
    expect(await seen()).toContain(`counter packets ${arrive + 1} `);
  });

  it.each([
    ['its own', {}, 1],
    ["another pod's address", { source: 'fd00:10:244:1::3' }, 0],
    ["another's link-local address", { source: 'fe80::1234' }, 0],
    ['another MAC', { from: forgedMac }, 0],
  ])('IPv6 packets from %s', async (_, forged: { source?: string; from?: string }, arrive) => {
    const [a] = [await start('a', { mode }), await start('b', { mode })];
    const seen = await listen(7777);
    const ethernet = { to: a.routerMac, from: forged.from ?? a.mac };
    const packet = {
      source: forged.source ?? a.ip6,
      destination: 'fd00:10:244:1::1',
      port: 7777,
    };
    sendFrame(sys, a.netns, 'eth0', udpFrame(ethernet, packet, 'x'));
    await probe(a, seen);
    expect(await seen()).toContain(`counter packets ${arrive + 1} `);
  });

  it('can be turned off', async () => {
    const a = await start('a', { mode, antiSpoofing: false });
    const seen = await listen(7777);
    const packet = { source: '10.244.1.77', destination: '10.244.1.1', port: 7777 };
    sendFrame(sys, a.netns, 'eth0', udpFrame({ to: a.routerMac, from: forgedMac }, packet, 'x'));
    await probe(a, seen);
    expect(await seen()).toContain('counter packets 2 ');
    expect((await node.netns.exec('nft', ['list', 'tables'])).stdout).not.toContain('antispoof');
  });

  /** One packet that must arrive: all that were sent before have arrived or are lost. */
  async function probe(pod: Pod, seen: () => Promise<string>): Promise<void> {
    const before = /packets (\d+)/.exec(await seen())?.[1] ?? '0';
    const packet = { source: pod.ip, destination: '10.244.1.1', port: 7777 };
    const ethernet = { to: pod.routerMac, from: pod.mac };
    sendFrame(sys, pod.netns, 'eth0', udpFrame(ethernet, packet, 'probe'));
    await expect.poll(seen).toContain(`counter packets ${Number(before) + 1} `);
  }

  it('CHECK misses what was taken away, DEL leaves nothing', async () => {
    const netns = await node.pod();
    const { json: prevResult } = await call('ADD', netns.path, 'a', { mode });
    const check = (): Promise<CniOutcome> => call('CHECK', netns.path, 'a', { mode, prevResult });
    expect(await check()).toMatchObject({ exitCode: 0 });
    const family = mode === 'bridge' ? 'bridge' : 'inet';
    await node.netns.exec('nft', ['flush', 'set', family, 'podwire-antispoof', 'macs']);
    expect((await check()).json.msg).toContain('podwire-antispoof macs lacks');
    expect(await call('DEL', netns.path, 'a', { mode })).toMatchObject({ exitCode: 0 });
    const { stdout } = await node.netns.exec('nft', ['list', 'ruleset']);
    expect(stdout).not.toContain('elements');
  });
});

describe('anti-spoofing of neighbours', () => {
  it.each([
    ['an ARP answer for another', 2, forgedMac, '10.244.1.1'],
    ['an ARP question as another', 1, 'own', '10.244.1.1'],
    ['an ARP answer with another MAC inside', 2, forgedMac, 'own'],
  ] as const)('drops %s', async (_, operation, senderMac, sender) => {
    const [a, b] = [await start('a', {}), await start('b', {})];
    const frame = arpFrame(
      { to: b.mac, from: a.mac },
      {
        operation,
        senderMac: senderMac === 'own' ? a.mac : senderMac,
        sender: sender === 'own' ? a.ip : sender,
        target: b.ip,
      },
    );
    await b.netns.ip(`neigh replace 10.244.1.1 lladdr ${a.routerMac} dev eth0 nud stale`);
    await b.netns.ip(`neigh replace ${a.ip} lladdr ${a.mac} dev eth0 nud stale`);
    sendFrame(sys, a.netns, 'eth0', frame);
    await serve(b.netns, 'b', [80]);
    expect(await ask(a.netns, `tcp ${b.ip} 80`)).toBe(`b ${a.ip}`);
    const neighbours = await b.netns.ip('neigh');
    expect(neighbours).not.toContain(forgedMac);
    expect(neighbours).toContain(`10.244.1.1 dev eth0 lladdr ${a.routerMac}`);
  });

  it('drops a neighbour advertisement for another, and router advertisements', async () => {
    const [a, b] = [await start('a', {}), await start('b', {})];
    const gateway = 'fd00:10:244:1::1';
    await b.netns.ip(`neigh replace ${gateway} lladdr ${a.routerMac} dev eth0 nud stale`);
    const ethernet = { to: b.mac, from: a.mac };
    const linkLocal = /inet6 (fe80::\S+)\//.exec(await a.netns.ip('-6 addr show dev eth0'))?.[1];
    const source = linkLocal ?? '';
    const advert = { type: 136, source, destination: b.ip6, target: gateway } as const;
    sendFrame(sys, a.netns, 'eth0', neighbourFrame(ethernet, advert));
    sendFrame(sys, a.netns, 'eth0', neighbourFrame(ethernet, { ...advert, type: 134 }));
    await serve(b.netns, 'b', [80]);
    expect(await ask(a.netns, `tcp ${b.ip6} 80`)).toBe(`b ${a.ip6}`);
    expect(await b.netns.ip('-6 neigh')).toContain(`${gateway} dev eth0 lladdr ${a.routerMac}`);
    expect(await b.netns.ip('-6 route')).not.toContain('proto ra');
  });

  it('without it, the same frames change the neighbours: the tests above can fail', async () => {
    const open = { antiSpoofing: false };
    const [a, b] = [await start('a', open), await start('b', open)];
    await b.netns.ip(`neigh replace 10.244.1.1 lladdr ${a.routerMac} dev eth0 nud stale`);
    const gateway = 'fd00:10:244:1::1';
    await b.netns.ip(`neigh replace ${gateway} lladdr ${a.routerMac} dev eth0 nud stale`);
    const arp = { operation: 2, senderMac: a.mac, sender: '10.244.1.1', target: b.ip } as const;
    sendFrame(sys, a.netns, 'eth0', arpFrame({ to: b.mac, from: a.mac }, arp));
    const advert = { type: 136, source: a.ip6, destination: b.ip6, target: gateway } as const;
    sendFrame(sys, a.netns, 'eth0', neighbourFrame({ to: b.mac, from: a.mac }, advert));
    await expect.poll(() => b.netns.ip('neigh')).toContain(`10.244.1.1 dev eth0 lladdr ${a.mac}`);
    await expect
      .poll(() => b.netns.ip('-6 neigh'))
      .toContain(`${gateway} dev eth0 lladdr ${a.mac}`);
  });

  it('lets a pod with several addresses use them all, and its link-local address', async () => {
    const ranges = ['10.9.1.0/24', '10.9.2.0/24', 'fd09:1::/64', 'fd09:2::/64'];
    const ipam = {
      type: 'host-local',
      dataDir: node.dataDir,
      ranges: ranges.map((subnet) => [{ subnet }]),
    };
    const netns = await node.pod();
    // An IPv4 address of another subnet on the bridge is one too many: no gateways.
    const more = { ipam, isDefaultGateway: false, isGateway: false };
    const { json, exitCode } = await call('ADD', netns.path, 'many', more);
    expect({ exitCode, json }).toMatchObject({ exitCode: 0 });
    for (const { address } of json.ips) {
      const [ip = '', length = ''] = address.split('/');
      const gateway = ip.replace(/2$/, '1');
      await node.netns.ip(`addr add ${gateway}/${length} dev cni0 nodad`);
      expect(await reaches(netns, gateway), ip).toBe(true);
    }
    const bridge = /inet6 (fe80::\S+)\//.exec(await node.netns.ip('-6 addr show dev cni0'))?.[1];
    expect(await reaches(netns, `${bridge}%eth0`)).toBe(true);
  });

  it('leaves other links of the bridge alone', async () => {
    const a = await start('a', {});
    const other = await node.pod();
    await node.netns.ip(`link add v9 type veth peer name eth0 netns ${other.name}`);
    await node.netns.ip('link set v9 up master cni0');
    await other.ip('addr add 10.244.1.200/24 dev eth0');
    await other.ip('link set eth0 up');
    await serve(a.netns, 'a', [80]);
    await expect.poll(() => ask(other, `tcp ${a.ip} 80`)).toBe('a 10.244.1.200');
  });
});
