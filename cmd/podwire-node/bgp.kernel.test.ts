/** Three nodes announce their pods by the BIRD beside each, through a route reflector. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { families } from '#pkg/ip/address.ts';
import { birdIn, hasBird, type BirdProgram } from './scratch/bird.ts';
import { exchange } from './scratch/datagram.ts';
import { matrixProblems } from './scratch/matrix.ts';
import {
  createRoundCluster,
  nodeNames,
  type NodeName,
  type RoundCluster,
} from './scratch/rounds.ts';

let cluster: RoundCluster;
let dir: string;
let reflector: BirdProgram;
let birds: Record<NodeName, BirdProgram>;

/** Debian's own configuration, with what a restart without a gap takes. */
const common = (id: string): string => `log stderr all;
router id ${id};
protocol device { }
protocol direct { ipv4; ipv6; }
protocol kernel { ipv4 { export where source = RTS_BGP; }; graceful restart; persist; }
protocol kernel { ipv6 { export where source = RTS_BGP; }; graceful restart; persist; }
`;

const ours = (name: NodeName): string => join(dir, `podwire-${name}.conf`);
const settings = (name: NodeName): string => {
  const subnet = name === 'c' ? 2 : 1;
  return [
    'backend: bgp',
    'bgp:',
    `  reflectors: [192.168.${subnet}.254, "fd00:${subnet}::254"]`,
    `  configFile: ${ours(name)}`,
    `  controlSocket: ${birds[name].controlSocket}`,
  ].join('\n');
};

beforeAll(async () => {
  if (!hasBird) return;
  dir = mkdtempSync(join(tmpdir(), 'podwire-bgp-'));
  cluster = await createRoundCluster(families);
  const { a, b, c } = cluster.nodes;
  birds = {
    a: birdIn(a.netns, dir, 'a'),
    b: birdIn(b.netns, dir, 'b'),
    c: birdIn(c.netns, dir, 'c'),
  };
  reflector = birdIn(cluster.router, dir, 'reflector');
  const clients = [a, b, c].flatMap(({ addresses }) =>
    [
      ['4', addresses.ip],
      ['6', addresses.ip6],
    ].map(
      ([n, address]) => `protocol bgp {
  local as 64512;
  neighbor ${address} as 64512;
  direct;
  rr client;
  graceful restart on;
  connect delay time 1;
  error wait time 1, 5;
  ipv${n} { import all; export where source = RTS_BGP; };
}
`,
    ),
  );
  writeFileSync(reflector.configFile, common('203.0.113.1') + clients.join(''));
  for (const [i, name] of nodeNames.entries()) {
    writeFileSync(ours(name), '');
    writeFileSync(
      birds[name].configFile,
      `${common(`192.0.2.${i + 1}`)}include "${ours(name)}";\n`,
    );
  }
  await Promise.all([reflector, ...Object.values(birds)].map((bird) => bird.start()));
  for (const name of nodeNames) cluster.configure(name, settings(name));
  await cluster.settle();
});
afterAll(async () => {
  await Promise.all([reflector, ...Object.values(birds ?? {})].map((bird) => bird?.kill()));
  await cluster?.[Symbol.asyncDispose]();
  if (dir !== undefined) rmSync(dir, { recursive: true });
});

const slow = { timeout: 20_000, interval: 100 };

async function routesOf(name: NodeName): Promise<string> {
  const { netns } = cluster.nodes[name];
  return (await netns.ip('route show proto bird')) + (await netns.ip('-6 route show proto bird'));
}

describe.skipIf(!hasBird)('backend bgp, with BIRD 2 through a route reflector', () => {
  test('135. 137. peers’ routes come into the kernel as BIRD’s own, and carry all', async () => {
    for (const name of nodeNames) {
      for (const n of [1, 2, 3].filter((other) => other !== nodeNames.indexOf(name) + 1)) {
        await expect.poll(() => routesOf(name), slow).toContain(`10.244.${n}.0/24 via `);
        await expect.poll(() => routesOf(name), slow).toContain(`fd00:10:244:${n}::/64 via `);
      }
    }
    expect(await routesOf('a')).toContain('10.244.2.0/24 via 192.168.1.2 dev eth0');
    expect(await routesOf('a')).toContain('10.244.3.0/24 via 192.168.1.254 dev eth0');
    expect(await routesOf('a')).not.toContain('10.244.1.0/24');
    expect(await cluster.nodes.a.netns.ip('route show proto 196')).toBe('');
    expect(await matrixProblems(cluster, families, ['same L2', 'routed'])).toEqual([]);
  });

  test.each([
    ['IPv4', ['ip']],
    ['IPv6', ['ip6']],
  ] as const)('135. 137. pods of one family alone, %s', async (_, podFamilies) => {
    cluster.setPodFamilies(podFamilies);
    await cluster.settle();
    const [gone, kept] =
      podFamilies[0] === 'ip' ? ['fd00:10:244:', '10.244.'] : ['10.244.', 'fd00:10:244:'];
    for (const name of nodeNames) {
      await expect.poll(() => routesOf(name), slow).not.toContain(gone);
      const count = async (): Promise<number> => (await routesOf(name)).split(kept).length - 1;
      await expect.poll(count, slow).toBe(2);
    }
    expect(await matrixProblems(cluster, podFamilies, ['same L2', 'routed'])).toEqual([]);
    cluster.setPodFamilies(families);
    await cluster.settle();
    for (const name of nodeNames) {
      await expect.poll(() => routesOf(name), slow).toContain(gone);
    }
  });

  test.each([
    ['a node’s BIRD', () => birds.a],
    ['the reflector', () => reflector],
  ])('%s killed and started again: no packet of a flow is lost', async (_, which) => {
    const flow = startFlow();
    await which().kill();
    await sleep(300);
    await which().start(true);
    const established = async (): Promise<number> =>
      (await birds.a.ask('show', 'protocols')).split('Established').length - 1;
    await expect.poll(established, slow).toBe(2);
    await expect
      .poll(() => which().ask('show', 'status'), slow)
      .not.toContain('Graceful restart recovery in progress');
    const { sent, problems } = await flow.stop();
    expect(problems).toEqual([]);
    expect(sent).toBeGreaterThan(20);
  });

  test('a configuration that does not change is not read again', async () => {
    const before = await lastConfigured();
    await cluster.round('a');
    cluster.doubt('a');
    await cluster.round('a');
    expect(await lastConfigured()).toBe(before);
  });

  test('what BIRD refuses is named, and its file stays as it was', async () => {
    const text = readFileSync(ours('a'), 'utf8');
    const config = readFileSync(birds.a.configFile, 'utf8');
    writeFileSync(birds.a.configFile, `${config}protocol nonsense;\n`);
    cluster.configure('a', `${settings('a')}\n  asNumber: 64999`);
    await expect(cluster.round('a')).rejects.toMatchObject({
      errors: [
        {
          message: expect.stringMatching(/^Cannot announce pods: BIRD refuses its .*syntax error/),
        },
      ],
    });
    expect(readFileSync(ours('a'), 'utf8')).toBe(text);
    writeFileSync(birds.a.configFile, config.replace(/^include.*$/m, ''));
    cluster.configure('a', settings('a'));
    await expect(cluster.round('a')).rejects.toMatchObject({
      errors: [{ message: expect.stringContaining(`must say include "${ours('a')}";`) }],
    });
    writeFileSync(birds.a.configFile, config);
    await cluster.round('a');
  });

  test('another backend takes the announcement back', async () => {
    cluster.configure('a', settings('a').replace('backend: bgp', 'backend: none'));
    await cluster.round('a');
    await expect.poll(() => routesOf('b'), slow).not.toContain('10.244.1.0/24');
    cluster.configure('a', settings('a'));
    await cluster.round('a');
    await expect.poll(() => routesOf('b'), slow).toContain('10.244.1.0/24');
  });

  test('a neighbour that is in another AS is a problem of the node, with BIRD’s reason', async () => {
    const problems = async (): Promise<readonly string[]> => {
      // A driver that starts anew asks at once, and the next round tells.
      cluster.configure('a', `${settings('a')}\n  asNumber: 64999`);
      await cluster.round('a');
      await cluster.round('a');
      return cluster.nodes.a.problems();
    };
    await expect
      .poll(problems, slow)
      .toContainEqual(
        expect.stringMatching(
          /^a: BGP session podwire_192_168_1_254 of BIRD is not up: .*Bad peer AS/,
        ),
      );
    cluster.configure('a', settings('a'));
    await cluster.round('a');
  });

  test('a session that is not up is a problem of the node', async () => {
    await reflector.kill();
    cluster.configure('a', settings('a'));
    await cluster.round('a');
    await cluster.round('a');
    expect(cluster.nodes.a.problems()).toContainEqual(
      expect.stringMatching(/^a: BGP session podwire_192_168_1_254 of BIRD is not up: /),
    );
  });

  test('a BIRD that is not there is named', async () => {
    await birds.a.kill();
    cluster.configure('a', settings('a'));
    await expect(cluster.round('a')).rejects.toMatchObject({
      errors: [{ message: `Cannot ask BIRD at ${birds.a.controlSocket} to configure` }],
    });
  });
});

async function lastConfigured(): Promise<string> {
  return /Last reconfiguration on (.*)/.exec(await birds.a.ask('show', 'status'))?.[1] ?? '';
}

/** Packets from a to c and back, one each 20 ms, that must not get lost. */
function startFlow(): { stop(): Promise<{ sent: number; problems: readonly string[] }> } {
  const { a, c } = cluster.nodes;
  let stopped = false;
  let sent = 0;
  const problems: string[] = [];
  const running = (async () => {
    while (!stopped) {
      for (const family of families) {
        const to = { address: c.pods[family], inside: c.inside };
        const from = { address: a.pods[family], inside: a.inside };
        sent += 1;
        await exchange(from, to, { bytes: 64, fragment: 'never', attempts: 1 }).catch(
          (error: unknown) => problems.push(String(error)),
        );
      }
      await sleep(20);
    }
  })();
  return {
    stop: async () => {
      stopped = true;
      await running;
      return { sent, problems };
    },
  };
}
