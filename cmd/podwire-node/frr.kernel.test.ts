/** FRR beside each node: with a configuration of its own, in a full mesh, and a node that reflects. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseFrrConfig } from '#pkg/frr/config.ts';
import { planFrr } from '#pkg/frr/plan.ts';
import { families } from '#pkg/ip/address.ts';
import { frrSpeaker } from '#pkg/overlay/frr-config.ts';
import { frrIn, hasFrr, viaDefault, type FrrProgram } from './scratch/frr.ts';
import { matrixProblems } from './scratch/matrix.ts';
import {
  createRoundCluster,
  nodeNames,
  type NodeName,
  type RoundCluster,
} from './scratch/rounds.ts';

let cluster: RoundCluster;
let dir: string;
let frrs: Record<NodeName, FrrProgram>;

/** b's, by somebody else. */
const theirs = `router bgp 64512
 bgp router-id 192.0.2.2
 no bgp default ipv4-unicast
 bgp graceful-restart preserve-fw-state
 no bgp network import-check
 neighbor 203.0.113.77 remote-as 65000
 !
 address-family ipv4 unicast
  network 198.51.100.0/24
  neighbor 203.0.113.77 activate
  neighbor 203.0.113.77 route-map THEIRS in
  neighbor 203.0.113.77 route-map THEIRS out
 exit-address-family
exit
ip prefix-list THEIRS seq 5 permit 198.51.100.0/24
route-map THEIRS permit 10
 match ip address prefix-list THEIRS
exit
`;

const settings = (name: NodeName, ...more: readonly string[]): string =>
  ['backend: bgp', 'bgp:', ...[...frrs[name].settings, ...more].map((line) => `  ${line}`)].join(
    '\n',
  );

beforeAll(async () => {
  if (!hasFrr) return;
  dir = mkdtempSync(join(tmpdir(), 'podwire-frr-'));
  cluster = await createRoundCluster(families);
  const { a, b, c } = cluster.nodes;
  // It speaks no BGP, and carries what goes from one L2 network to the other.
  await cluster.router.batch(
    [a, b, c].flatMap(({ addresses }, i) => [
      `route add 10.244.${i + 1}.0/24 via ${addresses.ip}`,
      `route add fd00:10:244:${i + 1}::/64 via ${addresses.ip6}`,
    ]),
  );
  // What a node sends of its own has another address, by which nobody knows it.
  for (const { netns, addresses } of [a, b, c]) {
    const subnet = addresses.ip.replace(/\d+$/, '');
    const other = addresses.ip.replace(/\d+$/, '10$&');
    await netns.batch([
      `addr add ${other}/32 dev eth0`,
      `route replace ${subnet}0/24 dev eth0 proto kernel scope link src ${other}`,
      `route replace default via ${subnet}254 src ${other}`,
    ]);
  }
  frrs = {
    a: frrIn(a.netns, { dir, name: 'a', zebraConfig: viaDefault }),
    b: frrIn(b.netns, { dir, name: 'b', config: theirs, zebraConfig: viaDefault }),
    c: frrIn(c.netns, { dir, name: 'c', zebraConfig: viaDefault }),
  };
  await Promise.all(Object.values(frrs).map((frr) => frr.start()));
  for (const name of nodeNames) cluster.configure(name, settings(name));
  await cluster.settle();
});
afterAll(async () => {
  await Promise.all(Object.values(frrs ?? {}).map((frr) => frr.end()));
  await cluster?.[Symbol.asyncDispose]();
  if (dir !== undefined) rmSync(dir, { recursive: true });
});

const slow = { timeout: 60_000, interval: 100 };

const running = (name: NodeName): Promise<string> => frrs[name].ask('show running-config');

/** What is b's own, of all its bgpd has. */
async function foreignLines(): Promise<string[]> {
  const { lines } = parseFrrConfig(await running('b'));
  return lines
    .filter(({ block, text }) => !/PODWIRE-|192\.168\.|fd00:/.test(block + text))
    .map(({ block, text }) => `${block} | ${text}`)
    .toSorted();
}

async function routesOf(name: NodeName): Promise<string> {
  const { netns } = cluster.nodes[name];
  const text =
    (await netns.ip('route show proto bgp')) + (await netns.ip('-6 route show proto bgp'));
  return text.replaceAll(/ nhid \d+/g, '');
}

async function expectAllRoutes(): Promise<void> {
  for (const name of nodeNames) {
    for (const n of [1, 2, 3].filter((other) => other !== nodeNames.indexOf(name) + 1)) {
      await expect.poll(() => routesOf(name), slow).toContain(`10.244.${n}.0/24 via `);
      await expect.poll(() => routesOf(name), slow).toContain(`fd00:10:244:${n}::/64 via `);
    }
  }
}

describe.skipIf(!hasFrr)('backend bgp, with FRR that has a configuration of its own', () => {
  test('135. 137. a full mesh: routes of all, each over its own family, carry all', async () => {
    await expectAllRoutes();
    expect(await routesOf('a')).toContain('10.244.2.0/24 via 192.168.1.2 dev eth0');
    expect(await routesOf('a')).toContain('fd00:10:244:2::/64 via fd00:1::2 dev eth0');
    // Not what b says to others.
    expect(await routesOf('a')).not.toContain('198.51.100.0');
    expect(await matrixProblems(cluster, families, ['same L2', 'routed'])).toEqual([]);
  });

  test('nothing is left to say, and what is not ours is as it was', async () => {
    for (const name of nodeNames) {
      const speaker = cluster.nodes[name].spoken();
      const have = parseFrrConfig(await running(name));
      expect(planFrr(speaker && frrSpeaker(speaker), have)).toEqual({ commands: [], problems: [] });
    }
    const before = parseFrrConfig(theirs).lines.map(({ block, text }) => `${block} | ${text}`);
    expect(await foreignLines()).toEqual(expect.arrayContaining(before));
  });

  test('a static route of FRR’s stays', async () => {
    const { netns } = cluster.nodes.a;
    // As its staticd has them written: in /etc/iproute2/rt_protos.d/frr.conf 196 is "static".
    await netns.ip('route add 198.51.100.128/25 via 192.168.1.2 proto 196');
    cluster.doubt('a');
    await cluster.round('a');
    expect(await netns.ip('route show 198.51.100.128/25')).toContain('dev eth0');
    await netns.ip('route del 198.51.100.128/25');
  });

  test('a bgpd that was started again has both its own lines and ours', async () => {
    const before = parseFrrConfig(await running('b')).lines;
    await frrs.b.kill();
    await frrs.b.start();
    await cluster.round('b');
    const after = parseFrrConfig(await running('b')).lines;
    expect(new Set(after)).toEqual(new Set(before));
    await expect.poll(() => frrs.b.established(), slow).toBe(4);
    await expectAllRoutes();
  });

  test('a node that leaves is forgotten, and known again when it is back', async () => {
    const record = cluster.records.get('c');
    if (record === undefined) throw new Error('there is no node c');
    cluster.records.delete('c');
    await cluster.round('a');
    await cluster.round('b');
    expect((await running('a')) + (await running('b'))).not.toContain('192.168.2.3');
    await expect.poll(() => routesOf('a'), slow).not.toMatch(/10\.244\.3\.|fd00:10:244:3:/);
    cluster.records.set('c', record);
    await cluster.settle();
    await expectAllRoutes();
  });

  test('a node that is a reflector hands on what the others announce, and no more', async () => {
    const reflectors = 'reflectors: [192.168.1.2, "fd00:1::2"]';
    for (const name of nodeNames) cluster.configure(name, settings(name, reflectors));
    await cluster.settle();
    await expect.poll(() => frrs.a.established(), slow).toBe(2);
    await expect.poll(() => frrs.b.established(), slow).toBe(4);
    await expectAllRoutes();
    expect(await routesOf('a')).not.toContain('198.51.100.0');
    expect(await matrixProblems(cluster, families, ['same L2', 'routed'])).toEqual([]);
    for (const name of nodeNames) cluster.configure(name, settings(name));
    await cluster.settle();
    await expect.poll(() => frrs.a.established(), slow).toBe(4);
  });

  test('an FRR that speaks for others in another AS is left alone, and named', async () => {
    const before = await running('b');
    cluster.configure('b', settings('b', 'asNumber: 64999'));
    await expect(cluster.round('b')).rejects.toMatchObject({
      errors: [
        {
          message:
            'Cannot announce pods: FRR is "router bgp 64512" for others too, and bgp.asNumber is 64999',
        },
      ],
    });
    expect(await running('b')).toBe(before);
  });

  test('a neighbour that is in another AS is a problem of the node, with FRR’s reason', async () => {
    const problems = async (): Promise<readonly string[]> => {
      // A driver that starts anew asks at once, and the next round tells.
      cluster.configure('a', settings('a', 'asNumber: 64999'));
      await cluster.round('a');
      await cluster.round('a');
      return cluster.nodes.a.problems();
    };
    await expect
      .poll(problems, slow)
      .toContainEqual(
        expect.stringMatching(
          /^a: BGP session with 192\.168\.1\.2 of FRR is not up: .*Bad Peer AS/,
        ),
      );
    cluster.configure('a', settings('a'));
    await cluster.round('a');
    await expect.poll(() => frrs.a.established(), slow).toBe(4);
  });

  test('another backend takes back what is ours, and nothing else', async () => {
    const before = await foreignLines();
    cluster.configure('b', settings('b').replace('backend: bgp', 'backend: none'));
    await cluster.round('b');
    expect(await running('b')).not.toMatch(/PODWIRE|10\.244|fd00:/);
    expect(await foreignLines()).toEqual(before);
    // Also at peers that would keep routes of one that was killed.
    await expect.poll(() => routesOf('a'), slow).not.toMatch(/10\.244\.2\.|fd00:10:244:2:/);
    cluster.configure('a', settings('a').replace('backend: bgp', 'backend: none'));
    await cluster.round('a');
    expect(await running('a')).not.toMatch(/PODWIRE|router bgp/);
    await expect.poll(() => routesOf('c'), slow).not.toMatch(/10\.244\.1\.|fd00:10:244:1:/);
  });
});
