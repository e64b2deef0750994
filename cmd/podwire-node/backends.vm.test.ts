/** The backends this machine's kernel may lack, under one that has them. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { unlikeByHand } from '#hack/bench/overlay/by-hand.ts';
import { families, type Family } from '#pkg/ip/address.ts';
import { exchange, type End } from './scratch/datagram.ts';
import { matrixProblems } from './scratch/matrix.ts';
import { createRoundCluster, nodeNames, type RoundCluster } from './scratch/rounds.ts';
import { switchingProblems } from './scratch/switching.ts';

let cluster: RoundCluster;
beforeAll(async () => {
  cluster = await createRoundCluster(families);
});
afterAll(() => cluster?.[Symbol.asyncDispose]());
beforeEach(() => {
  for (const name of nodeNames) cluster.nodes[name].takeSteps();
});

async function run(config: string): Promise<void> {
  for (const name of nodeNames) cluster.configure(name, config);
  await cluster.settle();
}

/** A daemon that starts anew finds all as it wants it. */
async function nothingLeftToDo(config: string): Promise<void> {
  for (const name of nodeNames) cluster.nodes[name].takeSteps();
  await run(config);
  for (const name of nodeNames) expect(cluster.nodes[name].takeSteps()).toEqual([]);
}

const familySets: readonly (readonly [string, readonly Family[]])[] = [
  ['IPv4', ['ip']],
  ['IPv6', ['ip6']],
  ['dual stack', families],
];

describe('ipip', () => {
  test.each(familySets)('135. 137. carries all, %s', async (_, podFamilies) => {
    const config = 'backend: ipip\ndirectRouting: false';
    cluster.setPodFamilies(podFamilies);
    await run(config);
    expect(await matrixProblems(cluster, podFamilies, ['same L2', 'routed'])).toEqual([]);
    if (podFamilies === families) await nothingLeftToDo(config);
  });

  test('is two devices without a remote end, and a route for each peer', async () => {
    await run('backend: ipip\ndirectRouting: false');
    const { netns } = cluster.nodes.a;
    expect(await netns.ip('-d link show podwire.ipip')).toMatch(
      /mtu 1480 [^]*ipip remote any local 192\.168\.1\.1 /,
    );
    expect(await netns.ip('-d link show podwire-v6.ipip')).toMatch(/mtu 1460 [^]*ip6tnl external /);
    expect(await netns.ip('route show proto 220')).toBe(
      '10.244.2.0/24 via 192.168.1.2 dev podwire.ipip onlink \n' +
        '10.244.3.0/24 via 192.168.2.3 dev podwire.ipip onlink ',
    );
    expect(await netns.ip('-6 route show proto 220')).toMatch(
      /^fd00:10:244:2::\/64 +encap ip6 .*src fd00:1::1 dst fd00:1::2 .*dev podwire-v6\.ipip /m,
    );
  });
});

test('151. a TTL that somebody gave a device of ipip goes', async () => {
  await run('backend: ipip\ndirectRouting: false');
  const { netns } = cluster.nodes.a;
  const device = (): Promise<string> => netns.ip('-d link show podwire.ipip');
  expect(await device()).toContain('ttl inherit');
  await netns.ip('link set podwire.ipip type ipip local 192.168.1.1 remote any ttl 1');
  expect(await device()).toContain('ttl 1');
  cluster.doubt('a');
  await cluster.round('a');
  expect(await device()).toContain('ttl inherit');
  expect(await matrixProblems(cluster, families, ['same L2', 'routed'])).toEqual([]);
});

test.each([
  // Two without a remote end can be there at once when one is of a link.
  ['ipip', ['link: null, not "eth0"', 'linkinfo.info_data.link: none, not "eth0"']],
  ['wireguard', []],
])('the device of %s is one that somebody sets up by hand', async (backend, differences) => {
  // IPv4 alone has the MTU that one would set by hand.
  cluster.setPodFamilies(['ip']);
  await run(`backend: ${backend}\ndirectRouting: false`);
  expect(await unlikeByHand(cluster, backend)).toEqual(differences);
  cluster.setPodFamilies(families);
});

test('a backend leaves nothing of itself to any other', async () => {
  cluster.setPodFamilies(families);
  const problems = await switchingProblems(cluster, {
    vxlan: 'backend: vxlan',
    ipip: 'backend: ipip\ndirectRouting: false',
    wireguard: 'backend: wireguard',
    'one wireguard device': 'backend: wireguard\nwireguard: { mode: auto }',
  });
  expect(problems).toEqual([]);
});

test.each([
  ['ipip', ['podwire.ipip', 'podwire-v6.ipip']],
  ['wireguard', ['podwire-wg', 'podwire-wg-v6']],
])('151. devices of %s whose mark somebody takes away have it again', async (backend, links) => {
  await run(`backend: ${backend}\ndirectRouting: false`);
  const { netns } = cluster.nodes.a;
  const devices = async (): Promise<string[]> =>
    Promise.all(links.map((link) => netns.ip(`-d link show ${link}`)));
  const before = await devices();
  await netns.ip(`link set ${links[0]} alias `);
  await netns.ip(`link set ${links[1]} alias theirs`);
  cluster.doubt('a');
  await cluster.round('a');
  expect(await devices()).toEqual(before);
  expect(await matrixProblems(cluster, families, ['same L2', 'routed'])).toEqual([]);
});

describe('wireguard', () => {
  const presharedKey = Buffer.alloc(32, 7).toString('base64');

  test.each([
    'mode: separate',
    'mode: auto',
    `mode: ipv4, persistentKeepaliveSeconds: 25, presharedKey: ${presharedKey}`,
  ])('135. 137. carries all, %s', async (settings) => {
    const config = `backend: wireguard\nwireguard: { ${settings} }`;
    await run(config);
    expect(await matrixProblems(cluster, families, ['same L2', 'routed'])).toEqual([]);
    await nothingLeftToDo(config);
  });

  test.each(familySets.slice(0, 2))('135. 137. carries all, %s', async (_, podFamilies) => {
    cluster.setPodFamilies(podFamilies);
    await run('backend: wireguard');
    expect(await matrixProblems(cluster, podFamilies, ['same L2', 'routed'])).toEqual([]);
    const devices = (await cluster.nodes.a.netns.ip('-br link show type wireguard')).split('\n');
    expect(devices.map((line) => line.split(/\s/)[0])).toEqual(
      podFamilies.map((family) => (family === 'ip' ? 'podwire-wg' : 'podwire-wg-v6')),
    );
    cluster.setPodFamilies(families);
  });

  test('150. is to `wg` what was asked for, and a key that changes costs its peer’s entries alone', async () => {
    await run(`backend: wireguard\nwireguard: { presharedKey: ${presharedKey} }`);
    const { a } = cluster.nodes;
    const keys = nodeNames.map((name) => publicKey(name));
    const dump = async (): Promise<string[]> =>
      (await a.netns.exec('wg', ['show', 'podwire-wg', 'dump'])).stdout.split('\n');
    const [device = '', ...peers] = await dump();
    expect(device.split('\t').slice(1)).toEqual([keys[0], '51820', 'off']);
    const entries = peers.map((line) => line.split('\t').slice(0, 4));
    expect(entries).toHaveLength(2);
    expect(entries).toContainEqual([keys[1], presharedKey, '192.168.1.2:51820', '10.244.2.0/24']);
    expect(entries).toContainEqual([keys[2], presharedKey, '192.168.2.3:51820', '10.244.3.0/24']);
    const record = cluster.records.get('b');
    if (record === undefined) throw new Error('there is no b');
    const other = Buffer.alloc(32, 9).toString('base64');
    const annotations = Object.fromEntries(
      Object.entries(record.annotations).map(([key, value]) => [
        key,
        key.endsWith('-data') ? JSON.stringify({ PublicKey: other }) : value,
      ]),
    );
    a.takeSteps();
    cluster.records.set('b', { ...record, annotations });
    await cluster.round('a');
    expect(a.takeSteps().map(({ op, object }) => `${op} ${object.kind}`)).toEqual([
      'put wireguard-peer',
      'put wireguard-peer',
      'delete wireguard-peer',
      'delete wireguard-peer',
    ]);
    expect((await dump()).some((line) => line.startsWith(other))).toBe(true);
    cluster.records.set('b', record);
    await cluster.settle();
    expect(await matrixProblems(cluster, families, ['same L2'])).toEqual([]);
  });

  test('151. what was changed by hand comes back', async () => {
    const { a } = cluster.nodes;
    const wg = (...args: string[]): Promise<unknown> => a.netns.exec('wg', args);
    await wg('set', 'podwire-wg', 'peer', publicKey('b'), 'remove');
    await wg('set', 'podwire-wg', 'listen-port', '5555');
    await wg('set', 'podwire-wg-v6', 'peer', publicKey('c'), 'allowed-ips', 'fd00::/8');
    await wg('set', 'podwire-wg', 'peer', Buffer.alloc(32, 8).toString('base64'));
    cluster.doubt('a');
    await cluster.round('a');
    expect(await matrixProblems(cluster, families, ['same L2', 'routed'])).toEqual([]);
    cluster.doubt('a');
    a.takeSteps();
    await cluster.round('a');
    expect(a.takeSteps()).toEqual([]);
  });

  test('150. a peer that is heard from elsewhere is answered there, until its node says otherwise', async () => {
    const { a, b } = cluster.nodes;
    const endpoint = async (): Promise<string | undefined> => {
      const { stdout } = await a.netns.exec('wg', ['show', 'podwire-wg', 'endpoints']);
      return new RegExp(`^${escape(publicKey('b'))}\\t(.*)$`, 'm').exec(stdout)?.[1];
    };
    const end = (node: typeof a): End & { readonly address: string } => ({
      address: node.pods.ip,
      inside: node.inside,
    });
    const once = { bytes: 64, fragment: 'never' } as const;
    expect(await endpoint()).toBe('192.168.1.2:51820');
    await b.netns.batch([
      'addr del 192.168.1.2/24 dev eth0',
      'addr add 192.168.1.77/24 dev eth0',
      'route replace default via 192.168.1.254',
    ]);
    await exchange(end(b), end(a), once);
    expect(await endpoint()).toBe('192.168.1.77:51820');
    a.takeSteps();
    cluster.doubt('a');
    await cluster.round('a');
    expect(a.takeSteps()).toEqual([]);
    expect(await endpoint()).toBe('192.168.1.77:51820');
    await exchange(end(a), end(b), once);
    // A daemon that starts anew, too.
    cluster.configure('a', `backend: wireguard\nwireguard: { presharedKey: ${presharedKey} }`);
    await cluster.round('a');
    expect(await endpoint()).toBe('192.168.1.77:51820');
    const record = cluster.records.get('b');
    if (record === undefined) throw new Error('there is no b');
    const annotations = { ...record.annotations, 'podwire.dev/public-ip': '192.168.1.78' };
    cluster.records.set('b', { ...record, annotations });
    cluster.doubt('a');
    await cluster.round('a');
    expect(await endpoint()).toBe('192.168.1.78:51820');
    await b.netns.batch([
      'addr del 192.168.1.77/24 dev eth0',
      'addr add 192.168.1.2/24 dev eth0',
      'route replace default via 192.168.1.254',
    ]);
    cluster.records.set('b', record);
    await cluster.settle();
    expect(await endpoint()).toBe('192.168.1.2:51820');
  });

  test('151. a peer that somebody has given another endpoint has its own again', async () => {
    const { a, b } = cluster.nodes;
    const endpoint = async (): Promise<string | undefined> => {
      const { stdout } = await a.netns.exec('wg', ['show', 'podwire-wg', 'endpoints']);
      return new RegExp(`^${escape(publicKey('b'))}\\t(.*)$`, 'm').exec(stdout)?.[1];
    };
    const move = (): Promise<unknown> =>
      a.netns.exec('wg', [
        'set',
        'podwire-wg',
        'peer',
        publicKey('b'),
        'endpoint',
        '192.168.1.99:9',
      ]);
    const lookAndMend = async (): Promise<void> => {
      a.lookAtPeers('podwire-wg');
      cluster.doubt('a');
      await cluster.round('a');
    };
    const end = ({ pods, inside }: typeof a): End & { readonly address: string } => ({
      address: pods.ip,
      inside,
    });
    const once = { bytes: 64, fragment: 'never' } as const;
    await exchange(end(a), end(b), once);
    await lookAndMend();
    await move();
    await lookAndMend();
    expect(await endpoint()).toBe('192.168.1.2:51820');
    await exchange(end(a), end(b), once);
    // Heard between the two looks: only that it is heard no more tells.
    await move();
    await lookAndMend();
    expect(await endpoint()).toBe('192.168.1.99:9');
    await a.netns.exec('sh', ['-c', `ping -c 1 -W 1 -I ${a.pods.ip} ${b.pods.ip} || true`]);
    await lookAndMend();
    expect(await endpoint()).toBe('192.168.1.2:51820');
    await exchange(end(b), end(a), once);
  });

  test('leaves nothing behind for another backend, nor another backend for it', async () => {
    await run('backend: vxlan\ndirectRouting: false');
    expect(await cluster.nodes.a.netns.ip('-br link show type wireguard')).toBe('');
    expect(await cluster.nodes.a.netns.ip('-br link show type vxlan')).not.toBe('');
    await run('backend: wireguard');
    expect(await cluster.nodes.a.netns.ip('-br link show type vxlan')).toBe('');
    expect(await matrixProblems(cluster, families, ['same L2', 'routed'])).toEqual([]);
  });
});

function escape(text: string): string {
  return text.replace(/[+/]/g, (letter) => `\\${letter}`);
}

function publicKey(name: string): string {
  const data = cluster.records.get(name)?.annotations['podwire.dev/backend-data'] ?? '{}';
  return (JSON.parse(data) as { readonly PublicKey?: string }).PublicKey ?? '';
}
