import { existsSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { buildExecutable } from '#cmd/podwire-cni/scratch-node.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { birdIn, hasBird } from './scratch/bird.ts';
import { createTestCluster, setInternalIPs, type TestCluster } from './scratch/cluster.ts';
import type { Daemon } from './scratch/daemon.ts';
import { startPing, type NodeName, type Pinger } from './scratch/three-nodes.ts';

let cluster: TestCluster;
beforeAll(buildExecutable);

const created = async (): Promise<void> => {
  cluster = await createTestCluster();
};
const removed = async (): Promise<void> => {
  await cluster[Symbol.asyncDispose]();
};

const names: readonly NodeName[] = ['a', 'b', 'c'];
const slow = { timeout: 60_000, interval: 50 };

/**
 * What changed is put back because it was noticed, and not by the look that comes unasked 30 s after the
 * last round. How soon it is noticed is in the tests of who looks (silent-watch.test.ts, pkg/netlink and
 * pkg/nftables monitor tests), by their clocks: here a machine under load may take its time.
 */
const noticed = { timeout: 20_000, interval: 50 };

/** Registers all Nodes and starts all daemons; resolves when every one has written its conflist. */
async function up(config = ''): Promise<Record<NodeName, Daemon>> {
  for (const name of names) cluster.register(cluster.network.nodes[name]);
  const [a, b, c] = await Promise.all(names.map((name) => cluster.startDaemon(name, config)));
  if (a === undefined || b === undefined || c === undefined) throw new Error('three were started');
  const daemons = { a, b, c };
  for (const name of names) await ready(name, daemons[name]);
  return daemons;
}

/** Also in a hook, where expect.poll() is refused. */
async function ready(name: NodeName, daemon: Daemon): Promise<void> {
  await vi.waitFor(async () => {
    const conflist = await file(name, 'net.d/10-podwire.conflist').catch(() => daemon.log());
    expect(conflist).toContain('"cniVersion"');
  }, slow);
}

function file(name: NodeName, path: string): Promise<string> {
  return readFile(join(cluster.dir, name, path), 'utf8');
}

/** All that the daemon has in the kernel for IPv4, in an order of its own. */
async function overlayOf(name: NodeName): Promise<readonly string[]> {
  const host = netns(name);
  const { stdout } = await host.exec('bridge', ['fdb', 'show', 'dev', 'podwire.1']);
  const texts = [
    await host.ip('-br link show podwire.1'),
    await host.ip('-4 -br addr show podwire.1'),
    await host.ip('neigh show dev podwire.1'),
    await host.ip('route show proto 220'),
    stdout,
  ];
  return texts.flatMap((text) => text.split('\n').map((line) => line.trim())).toSorted();
}

/** Until two looks a second apart find no round between them: the next of its own accord is far. */
async function quiet(name: NodeName): Promise<void> {
  const rounds = async (): Promise<string> =>
    (await ask(name, '/metrics'))
      .split('\n')
      .filter((line) => line.startsWith('podwire_node_round_duration_seconds_count'))
      .join('\n');
  let before = '';
  await expect
    .poll(
      async () => {
        const last = before;
        before = await rounds();
        return before !== '' && last === before;
      },
      { timeout: 20_000, interval: 1_000 },
    )
    .toBe(true);
}

/** What the daemon's /healthz answers to the node itself. */
function healthz(name: NodeName): Promise<string> {
  return ask(name, '/healthz');
}

async function ask(name: NodeName, path: string): Promise<string> {
  const url = `http://127.0.0.1:9964${path}`;
  const script = `process.stdout.write(await (await fetch('${url}')).text() + '.')`;
  const { stdout } = await netns(name).exec(process.execPath, [
    '--input-type=module',
    '-e',
    script,
  ]);
  return stdout.slice(0, -1);
}

function netns(name: NodeName): ScratchNetns {
  return cluster.network.nodes[name].netns;
}

function pod(name: NodeName, family: 'ip' | 'ip6'): string {
  return cluster.network.nodes[name].pods[family];
}

function ping(from: NodeName, to: string, family: 'ip' | 'ip6'): Promise<Pinger> {
  return startPing(netns(from), pod(from, family), to);
}

/** Whether packets from a pod to an address are answered, after a while at the latest. */
async function reaches(from: NodeName, to: string): Promise<void> {
  const pinger = await ping(from, to, to.includes(':') ? 'ip6' : 'ip');
  await expect.poll(() => pinger.answered(), slow).toBeGreaterThan(3);
  await pinger.stop();
}

async function allPodsReachEachOther(): Promise<void> {
  for (const family of ['ip', 'ip6'] as const) {
    for (const from of names) {
      for (const to of names) if (from !== to) await reaches(from, pod(to, family));
    }
  }
}

/** Packets the device has sent. */
async function sentBy(name: NodeName, link: string): Promise<number> {
  const listing = await netns(name).ip(`-s -j link show ${link}`);
  return (JSON.parse(listing) as { stats64: { tx: { packets: number } } }[])[0]?.stats64.tx
    .packets as number;
}

describe('podwire-node on three nodes', () => {
  beforeEach(created);
  afterEach(removed);

  test('135. vxlan: pods reach pods and the outside; only the node behind the router needs wrapping', async () => {
    await up();
    await allPodsReachEachOther();
    for (const name of names) {
      await reaches(name, cluster.network.outside.ip);
      await reaches(name, cluster.network.outside.ip6);
    }
    const before = await sentBy('a', 'podwire.1');
    await reaches('a', pod('b', 'ip'));
    const between = await sentBy('a', 'podwire.1');
    await reaches('a', pod('c', 'ip'));
    const after = await sentBy('a', 'podwire.1');
    expect(between).toBe(before);
    expect(after).toBeGreaterThanOrEqual(between + 3);
    expect(await file('a', 'run/node.json')).toBe(
      '{"podCIDRs":["10.244.1.0/24","fd00:10:244:1::/64"],"mtuBytes":1430,"backend":"vxlan"}\n',
    );
    const node = cluster.api.objects.get({ apiVersion: 'v1', kind: 'Node', name: 'a' });
    expect(node).toMatchObject({
      metadata: { annotations: { 'podwire.dev/public-ip': '192.168.1.1' } },
      status: { conditions: [{ type: 'NetworkUnavailable', status: 'False' }] },
    });
  });

  test('135. host-gw: pods on one L2 reach each other; the node behind the router is reported', async () => {
    const { a } = await up('backend: host-gw\n');
    for (const family of ['ip', 'ip6'] as const) {
      await reaches('a', pod('b', family));
      await reaches('b', pod('a', family));
    }
    expect(await netns('a').ip('route show proto 220')).toBe(
      '10.244.2.0/24 via 192.168.1.2 dev eth0 ',
    );
    await expect.poll(() => a.log()).toContain('192.168.2.3 is not on the L2 network of link eth0');
  });

  test('135. udp: the built daemon’s threads carry both families, across the router too', async () => {
    await up('backend: udp\n');
    for (const to of ['b', 'c'] as const) {
      for (const family of ['ip', 'ip6'] as const) await reaches('a', pod(to, family));
    }
    expect(await file('a', 'run/node.json')).toContain('"mtuBytes":1452,"backend":"udp"');
  });

  test('installs the plugins before the conflist, and routed pods made by it reach other nodes', async () => {
    const bin = join(cluster.dir, 'bin');
    const keys = `mode: routed\nhostPorts: false\ncniBinDir: ${bin}\n`;
    const { a } = await up(keys);
    const conflist = JSON.parse(await file('a', 'net.d/10-podwire.conflist')) as {
      readonly plugins: readonly [object];
    };
    const [plugin] = conflist.plugins;
    expect(plugin).toMatchObject({ mode: 'routed', capabilities: { bandwidth: true } });
    await using podNetns = await createScratchNetns('pw-node-pod');
    const call = (command: string): Promise<{ readonly stdout: string }> =>
      netns('a').exec(
        'env',
        [
          `CNI_COMMAND=${command}`,
          'CNI_CONTAINERID=routed',
          'CNI_IFNAME=eth0',
          `CNI_NETNS=${podNetns.path}`,
          `CNI_PATH=${bin}`,
          join(bin, 'podwire'),
        ],
        { input: JSON.stringify({ cniVersion: '1.1.0', name: 'podwire', ...plugin }) },
      );
    const { ips } = JSON.parse((await call('ADD')).stdout) as {
      readonly ips: readonly { readonly address: string }[];
    };
    expect(ips.map(({ address }) => address)).toEqual(['10.244.1.2/32', 'fd00:10:244:1::2/128']);
    for (const [i, family] of (['ip', 'ip6'] as const).entries()) {
      const [own = ''] = ips[i]?.address.split('/') ?? [];
      const pinger = await startPing(podNetns, own, pod('c', family));
      await expect.poll(() => pinger.answered(), slow).toBeGreaterThan(3);
      await pinger.stop();
    }
    await call('DEL');
    expect(await netns('a').ip('route show 10.244.1.2')).toBe('');
    // Deleted by hand.
    await rm(join(bin, 'podwire'));
    await expect.poll(() => existsSync(join(bin, 'podwire')), noticed).toBe(true);
    // While no daemon ran: the next start heals.
    await a.kill('SIGTERM');
    await rm(join(bin, 'podwire'));
    await cluster.startDaemon('a', keys);
    await expect.poll(() => existsSync(join(bin, 'podwire')), slow).toBe(true);
  });

  test.skipIf(!hasBird)('131. our part of BIRD’s configuration is back within 2 s', async () => {
    const { a } = cluster.network.nodes;
    const bird = birdIn(a.netns, { dir: cluster.dir, name: 'a', id: '192.168.1.1' });
    await bird.start();
    try {
      cluster.register(a);
      const daemon = await cluster.startDaemon(
        'a',
        `backend: bgp\nbgp: { ${bird.settings.join(', ')} }\n`,
      );
      await ready('a', daemon);
      await quiet('a');
      const before = await readFile(bird.included, 'utf8');
      expect(before).toContain('route 10.244.1.0/24 unreachable;');
      await rm(bird.included);
      await expect
        .poll(() => readFile(bird.included, 'utf8').catch(() => 'nothing'), noticed)
        .toBe(before);
    } finally {
      await bird.end();
    }
  });

  test('waits for its podCIDRs, then goes on by itself', async () => {
    const { a } = cluster.network.nodes;
    cluster.register({ ...a, podCIDRs: [] });
    const daemon = await cluster.startDaemon('a');
    await expect.poll(() => daemon.log(), slow).toContain('none assigned yet');
    expect(await healthz('a')).toContain('waiting: Cannot find podCIDRs of Node a');
    const patch = { spec: { podCIDR: a.podCIDRs[0] ?? '', podCIDRs: [...a.podCIDRs] } };
    cluster.api.objects.patch({ apiVersion: 'v1', kind: 'Node', name: 'a' }, 'merge', patch);
    await ready('a', daemon);
    await expect.poll(() => healthz('a'), slow).toBe('ok\n');
    expect(await daemon.kill('SIGTERM')).toBe(0);
  });

  test('131. the link by which an address is reached is another one within 2 s of a change of the way', async () => {
    const { netns: host } = cluster.network.nodes.a;
    await cluster.network.router.ip(`link add to-a2 type veth peer name eth1 netns ${host.name}`);
    await cluster.network.router.ip('link set to-a2 master br1 up');
    await host.ip('link set eth1 up');
    await host.ip('addr add 192.168.1.11/24 dev eth1 noprefixroute');
    await host.ip('addr add fd00:1::11/64 dev eth1 nodad noprefixroute');
    await host.ip('route add 203.0.113.0/24 via 192.168.1.254 dev eth0 proto 17 metric 50');
    cluster.register(cluster.network.nodes.a);
    cluster.register(cluster.network.nodes.c);
    const keys = `directRouting: false\nifaceCanReach: ${cluster.network.outside.ip}\n`;
    const daemon = await cluster.startDaemon('a', keys);
    await ready('a', daemon);
    const device = (): Promise<string> => host.ip('-d link show podwire.1');
    expect(await device()).toContain('local 192.168.1.1 dev eth0 ');
    await expect.poll(() => daemon.log(), slow).toContain('Pod network is ready');
    await quiet('a');
    await host.ip('route add 203.0.113.0/24 via 192.168.1.254 dev eth1 onlink proto 17 metric 10');
    await expect.poll(device, noticed).toContain('local 192.168.1.11 dev eth1 ');
    await quiet('a');
    await host.ip('route del 203.0.113.0/24 dev eth1');
    await expect.poll(device, noticed).toContain('local 192.168.1.1 dev eth0 ');
  });

  test('follows a node that leaves, comes back, and changes its address', async () => {
    await up();
    await reaches('a', pod('c', 'ip'));
    const { c } = cluster.network.nodes;
    cluster.api.objects.delete({ apiVersion: 'v1', kind: 'Node', name: 'c' });
    await expect.poll(() => netns('a').ip('route show proto 220'), slow).not.toContain('10.244.3.');
    expect(await netns('a').ip('neigh show dev podwire.1')).toBe('');
    cluster.register(c);
    await reaches('a', pod('c', 'ip'));

    const pinger = await ping('a', pod('c', 'ip'), 'ip');
    await netns('c').ip('addr del 192.168.2.3/24 dev eth0');
    await netns('c').ip('addr add 192.168.2.33/24 dev eth0');
    await netns('c').ip('route replace default via 192.168.2.254');
    setInternalIPs(cluster.api, 'c', ['192.168.2.33', 'fd00:2::3']);
    const answered = pinger.answered();
    await expect.poll(() => pinger.answered(), slow).toBeGreaterThan(answered + 10);
    await pinger.stop();
    const { stdout } = await netns('a').exec('bridge', ['fdb', 'show', 'dev', 'podwire.1']);
    expect(stdout).toContain('dst 192.168.2.33 ');
    expect(stdout).not.toContain('dst 192.168.2.3 ');
  });

  test('154. killed and started again under traffic, it loses no packet', async () => {
    const { a } = await up();
    await reaches('a', pod('c', 'ip'));
    await reaches('a', pod('c', 'ip6'));
    await reaches('a', cluster.network.outside.ip);
    const pingers = await Promise.all([
      ping('a', pod('b', 'ip'), 'ip'),
      ping('a', pod('c', 'ip'), 'ip'),
      ping('a', pod('c', 'ip6'), 'ip6'),
      ping('a', cluster.network.outside.ip, 'ip'),
    ]);
    await a.kill('SIGKILL');
    const again = await cluster.startDaemon('a');
    await expect.poll(() => again.log(), slow).toContain('Pod network is ready');
    for (const pinger of pingers) expect(await pinger.stop()).toMatchObject({ lost: 0 });
    expect(again.log()).not.toContain('Host network changed');
    expect(again.log()).not.toContain('Masquerade table changed');
  });

  test('a second daemon of another configuration waits, and takes over when the first is killed', async () => {
    const { a } = await up();
    await reaches('a', pod('c', 'ip'));
    const before = await overlayOf('a');
    const second = await cluster.startDaemon('a', 'backend: host-gw\n');
    await expect.poll(() => second.log(), slow).toContain('Waits until another podwire-node');
    const third = await cluster.startDaemon('a', 'backend: host-gw\n');
    await expect.poll(() => third.log(), slow).toContain('Waits until another podwire-node');
    expect(await third.kill('SIGTERM')).toBe(0);
    // Two of them would have changed the routes to and fro since.
    cluster.api.objects.delete({ apiVersion: 'v1', kind: 'Node', name: 'b' });
    await expect.poll(() => netns('a').ip('route show proto 220'), slow).not.toContain('10.244.2.');
    cluster.register(cluster.network.nodes.b);
    await expect.poll(() => overlayOf('a'), slow).toEqual(before);
    await a.kill('SIGKILL');
    await expect
      .poll(() => netns('a').ip('route show proto 220'), slow)
      .toBe('10.244.2.0/24 via 192.168.1.2 dev eth0 ');
    expect(second.log().match(/another podwire-node/g)).toHaveLength(1);
    expect(second.log()).not.toContain('Cannot serve');
  });

  test('149. a node that left while the daemon was away is cleaned up at its start', async () => {
    const { a } = await up();
    await reaches('a', pod('c', 'ip'));
    await a.kill('SIGKILL');
    cluster.api.objects.delete({ apiVersion: 'v1', kind: 'Node', name: 'c' });
    const again = await cluster.startDaemon('a');
    await expect.poll(() => again.log(), slow).toContain('Pod network is ready');
    expect(await netns('a').ip('route show proto 220')).not.toContain('10.244.3.');
    expect(await netns('a').ip('neigh show dev podwire.1')).toBe('');
  });

  test('nodes change from vxlan to host-gw and back one by one, and a flow between them loses no packet', async () => {
    const wrapped = 'directRouting: false\n';
    const daemons = await up(wrapped);
    await reaches('a', pod('b', 'ip'));
    await reaches('a', pod('b', 'ip6'));
    const routes = async (name: NodeName): Promise<string> =>
      (await netns(name).ip('route show proto 220')) +
      (await netns(name).ip('-6 route show proto 220'));
    expect(await routes('a')).toContain('10.244.2.0/24 via 10.244.2.0 dev podwire.1 onlink');
    const pingers = await Promise.all([
      ping('a', pod('b', 'ip'), 'ip'),
      ping('a', pod('b', 'ip6'), 'ip6'),
    ]);
    const restart = async (name: 'a' | 'b', config: string): Promise<void> => {
      expect(await daemons[name].kill('SIGTERM')).toBe(0);
      const daemon = await cluster.startDaemon(name, config);
      daemons[name] = daemon;
      await expect.poll(() => daemon.log(), slow).toContain('Pod network is ready');
    };
    const direct = ['10.244.2.0/24 via 192.168.1.2 dev eth0', 'fd00:10:244:2::/64 via fd00:1::2'];
    await restart('a', 'backend: host-gw\n');
    for (const route of direct) expect(await routes('a')).toContain(route);
    // Until b has heard of it, its packets still come that way.
    await restart('b', 'backend: host-gw\n');
    const devices = (name: NodeName): Promise<string> => netns(name).ip('-br link show type vxlan');
    await expect.poll(() => devices('a'), slow).toBe('');
    await expect.poll(() => devices('b'), slow).toBe('');
    const node = cluster.api.objects.get({ apiVersion: 'v1', kind: 'Node', name: 'a' });
    expect(JSON.stringify(node)).not.toContain('VtepMAC');
    await restart('b', wrapped);
    await restart('a', wrapped);
    await expect
      .poll(() => routes('a'), slow)
      .toContain('10.244.2.0/24 via 10.244.2.0 dev podwire.1');
    await expect
      .poll(() => routes('b'), slow)
      .toContain('10.244.1.0/24 via 10.244.1.0 dev podwire.1');
    for (const pinger of pingers) {
      const { sent, lost } = await pinger.stop();
      expect(lost).toBe(0);
      expect(sent).toBeGreaterThan(100);
    }
  });
});

// One cluster for all: each test leaves it as whole as it found it, or fails.
describe('podwire-node heals', () => {
  beforeAll(async () => {
    await created();
    await up();
    await routesAreThere();
  });
  beforeEach(async () => {
    // Put back by a round that is over just now.
    await netns('a').ip('route del 10.244.2.0/24');
    await routesAreThere();
  });
  afterAll(removed);

  /** Each is the last that is made of what a peer needs. */
  async function routesAreThere(): Promise<void> {
    await vi.waitFor(async () => {
      const routes = await netns('a').ip('route show proto 220');
      for (const range of ['10.244.2.0/24', '10.244.3.0/24']) expect(routes).toContain(range);
    }, slow);
  }

  test.each<[string, string, readonly string[]]>([
    ['a deleted route', 'ip', ['route', 'del', '10.244.3.0/24']],
    ['a deleted neighbour', 'ip', ['neigh', 'del', '10.244.3.0', 'dev', 'podwire.1']],
    [
      'deleted forwarding entries',
      'bridge',
      ['fdb', 'flush', 'dev', 'podwire.1', 'self', 'permanent'],
    ],
    ['a device set down', 'ip', ['link', 'set', 'podwire.1', 'down']],
    ['a deleted device', 'ip', ['link', 'del', 'podwire.1']],
    ['another MAC', 'ip', ['link', 'set', 'podwire.1', 'address', '02:00:00:00:00:99']],
    ['a deleted address', 'ip', ['addr', 'flush', 'dev', 'podwire.1']],
    [
      'a route that leads elsewhere',
      'ip',
      'route change 10.244.3.0/24 via 192.168.1.2 dev eth0 proto 220'.split(' '),
    ],
    [
      'a route that is no longer marked as ours',
      'ip',
      'route change 10.244.3.0/24 via 192.168.1.2 dev eth0'.split(' '),
    ],
    [
      'a neighbour with another MAC',
      'ip',
      ['neigh', 'replace', '10.244.3.0', 'lladdr', '02:00:00:00:00:99', 'dev', 'podwire.1'],
    ],
    [
      'the parent link going down and up',
      'sh',
      [
        '-c',
        // The kernel takes these away with the link; who sets it down by hand puts them back.
        'ip link set eth0 down; ip link set eth0 up; ip route replace default via 192.168.1.254; ' +
          'ip addr add fd00:1::1/64 dev eth0 nodad; ip route replace default via fd00:1::254',
      ],
    ],
  ])('131. 151. %s', async (_, program, args) => {
    const before = await overlayOf('a');
    const pinger = await ping('a', pod('c', 'ip'), 'ip');
    await expect.poll(() => pinger.answered(), noticed).toBeGreaterThan(10);
    await netns('a').exec(program, args);
    const answered = pinger.answered();
    await Promise.all([
      expect.poll(() => pinger.answered(), noticed).toBeGreaterThan(answered + 20),
      expect.poll(() => overlayOf('a'), noticed).toEqual(before),
    ]);
    await pinger.stop();
  });

  test('151. a second next hop that somebody gave an IPv6 route, which then takes every other flow', async () => {
    const route = (): Promise<string> => netns('a').ip('-6 route show fd00:10:244:3::/64');
    const before = await route();
    await quiet('a');
    await netns('a').ip('-6 route append fd00:10:244:3::/64 via fd00:1::2 dev eth0');
    expect(await route()).not.toBe(before);
    await expect.poll(route, noticed).toBe(before);
  });

  test("151. touches nothing of others', whatever is healed beside it", async () => {
    const { netns: host } = cluster.network.nodes.a;
    const theirs = [
      'route add 10.250.0.0/24 via 192.168.1.254 proto 17',
      'route add 10.251.0.0/24 via 192.168.1.254 table 77',
      'link add other0 type bridge',
      'neigh add 192.168.1.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent',
    ];
    for (const words of theirs) await host.ip(words);
    await host.exec('nft', ['add', 'table', 'inet', 'others']);
    await host.exec('iptables', ['-A', 'FORWARD', '-s', '203.0.113.0/24', '-j', 'ACCEPT']);
    await host.ip('link del podwire.1');
    await host.exec('nft', ['delete', 'table', 'inet', 'podwire-masquerade']);
    await host.exec('iptables', ['-F', 'PODWIRE-FORWARD']);
    await reaches('a', pod('c', 'ip'));
    const rules = async (): Promise<string> => (await host.exec('nft', ['list', 'ruleset'])).stdout;
    await expect.poll(rules, slow).toContain('table inet podwire-masquerade');
    await expect
      .poll(async () => (await host.exec('iptables-save', [])).stdout, slow)
      .toMatch(/-A PODWIRE-FORWARD -s .*\n-A PODWIRE-FORWARD -d /);
    expect(await host.ip('route show 10.250.0.0/24')).toContain('192.168.1.254');
    expect(await host.ip('route show table 77')).toContain('10.251.0.0/24');
    expect(await host.ip('link show other0')).toContain('other0');
    expect(await host.ip('neigh show 192.168.1.77')).toContain('PERMANENT');
    expect(await rules()).toContain('table inet others');
    expect((await host.exec('iptables-save', [])).stdout).toContain('-s 203.0.113.0/24 -j ACCEPT');
  });

  test('a deleted conflist, and a node.json with something else in it', async () => {
    const paths = ['net.d/10-podwire.conflist', 'run/node.json'] as const;
    const read = (): Promise<readonly string[]> =>
      Promise.all(paths.map((path) => file('a', path).catch(() => 'nothing')));
    const before = await read();
    // What happened before shall not be what makes it look.
    await quiet('a');
    // The second time the daemon has not looked since it mended them.
    for (const _ of ['once', 'again']) {
      await rm(join(cluster.dir, 'a', paths[0]));
      await writeFile(join(cluster.dir, 'a', paths[1]), '{}\n');
      await expect.poll(read, noticed).toEqual(before);
    }
  });

  test.each([
    'net.ipv4.ip_forward',
    'net.ipv6.conf.all.forwarding',
    // Where the module br_netfilter is there at all.
    ...(existsSync('/proc/sys/net/bridge') ? ['net.bridge.bridge-nf-call-iptables'] : []),
  ])('%s = 0', async (path) => {
    await quiet('a');
    const read = async (): Promise<string> =>
      (await netns('a').exec('sysctl', ['-n', path])).stdout;
    for (const _ of ['once', 'again']) {
      await netns('a').exec('sysctl', ['-qw', `${path}=0`]);
      await expect.poll(read, noticed).toBe('1');
    }
  });

  test('132. 151. nft flush ruleset: pods reach the outside again', async () => {
    await netns('a').exec('nft', ['flush', 'ruleset']);
    const list = async (): Promise<string> =>
      (await netns('a').exec('nft', ['list', 'ruleset'])).stdout;
    await expect.poll(list, noticed).toContain('masquerade');
    await reaches('a', cluster.network.outside.ip);
  });
});
