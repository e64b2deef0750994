/** Three nodes announce their pods by the routing daemon beside each, through a route reflector. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { families } from '#pkg/ip/address.ts';
import { birdIn, birdReflectorIn, hasBird, type BirdProgram } from './scratch/bird.ts';
import { startFlow } from './scratch/flow.ts';
import { frrIn, hasFrr } from './scratch/frr.ts';
import { matrixProblems } from './scratch/matrix.ts';
import {
  createRoundCluster,
  nodeNames,
  type NodeName,
  type RoundCluster,
} from './scratch/rounds.ts';
import type { RoutingProgram } from './scratch/routing-program.ts';

interface World {
  readonly title: string;
  readonly daemons: Readonly<Record<NodeName, 'bird' | 'frr'>>;
  /** Whose daemon is killed while packets go from a to c. */
  readonly killed: readonly NodeName[];
  /** What a's says of a session that is not up, and of a peer in another AS. */
  readonly sessionDown: RegExp;
  readonly otherAs?: RegExp;
  /** What is said when it is not there. */
  readonly absent: RegExp;
}

const bird = {
  sessionDown: /^a: BGP session podwire_192_168_1_254 of BIRD is not up: /,
  otherAs: /^a: BGP session podwire_192_168_1_254 of BIRD is not up: .*Bad peer AS/,
  absent: /^Cannot ask BIRD at \S+a\.ctl to configure$/,
} as const;

const worlds: readonly World[] = [
  { title: 'BIRD 2', daemons: { a: 'bird', b: 'bird', c: 'bird' }, killed: ['a'], ...bird },
  {
    title: 'FRR',
    daemons: { a: 'frr', b: 'frr', c: 'frr' },
    killed: ['a', 'c'],
    sessionDown: /^a: BGP session with 192\.168\.1\.254 of FRR is not up: \w+, /,
    absent: /^Cannot ask FRR at \S+frr-a\/bgpd\.vty for "enable"$/,
  },
  {
    title: 'a BIRD 2 among FRRs',
    daemons: { a: 'bird', b: 'frr', c: 'frr' },
    killed: ['c'],
    sessionDown: bird.sessionDown,
    absent: bird.absent,
  },
];

const identifier = (name: NodeName): string => `192.0.2.${nodeNames.indexOf(name) + 1}`;
const slow = { timeout: 60_000, interval: 100 };

const rows = worlds.map((world) => [world.title, world] as const);

describe.each(rows)('backend bgp, with %s through a route reflector', (title, world) => {
  let cluster: RoundCluster;
  let dir: string;
  let reflector: RoutingProgram;
  let programs: Record<NodeName, RoutingProgram>;
  const birdOfA = (): BirdProgram => programs.a as BirdProgram;
  const kinds = new Set(Object.values(world.daemons));
  const isThere = hasBird && (!kinds.has('frr') || hasFrr);
  // Rows that mean nothing for a world are none of its tests: a skipped one lacks its programs.
  const isMixed = kinds.size > 1;

  const settings = (name: NodeName): string => {
    const subnet = name === 'c' ? 2 : 1;
    return [
      'backend: bgp',
      'bgp:',
      `  reflectors: [192.168.${subnet}.254, "fd00:${subnet}::254"]`,
      ...programs[name].settings.map((line) => `  ${line}`),
    ].join('\n');
  };

  beforeAll(async () => {
    if (!isThere) return;
    dir = mkdtempSync(join(tmpdir(), 'podwire-bgp-'));
    cluster = await createRoundCluster(families);
    const { nodes, router } = cluster;
    const clients = nodeNames.flatMap((name) => Object.values(nodes[name].addresses));
    reflector = birdReflectorIn(router, { dir, clients });
    const program = (name: NodeName): RoutingProgram =>
      world.daemons[name] === 'frr'
        ? frrIn(nodes[name].netns, { dir, name })
        : birdIn(nodes[name].netns, { dir, name, id: identifier(name) });
    programs = { a: program('a'), b: program('b'), c: program('c') };
    await Promise.all([reflector, ...Object.values(programs)].map((one) => one.start()));
    for (const name of nodeNames) cluster.configure(name, settings(name));
    await cluster.settle();
  });
  afterAll(async () => {
    await Promise.all([reflector, ...Object.values(programs ?? {})].map((one) => one?.end()));
    await cluster?.[Symbol.asyncDispose]();
    if (dir !== undefined) rmSync(dir, { recursive: true });
  });

  const routesToPods = (verb: 'add' | 'del'): readonly string[] =>
    Object.values(cluster.nodes).flatMap(({ addresses }, i) => [
      `route ${verb} 10.244.${i + 1}.0/24 via ${addresses.ip} metric 1`,
      `route ${verb} fd00:10:244:${i + 1}::/64 via ${addresses.ip6} metric 1`,
    ]);

  /** @param name of the node whose daemon it is, if it is one's */
  async function expectNoLoss(which: RoutingProgram, name?: NodeName): Promise<void> {
    const flow = startFlow(cluster.nodes.a, cluster.nodes.c);
    await which.kill();
    const before = flow.sent();
    await expect.poll(() => flow.sent(), slow).toBeGreaterThan(before + 20);
    await which.start(true);
    // As the node's daemon does when it hears of it.
    // And again, when the program is too young to be told all.
    if (name !== undefined) await vi.waitFor(() => cluster.round(name), slow);
    await expect.poll(() => programs[name ?? 'a'].established(), slow).toBe(2);
    await expect.poll(() => which.isRecovering(), slow).toBe(false);
    const { problems } = await flow.stop();
    expect(problems).toEqual([]);
  }

  /** What is wrong of a, with more settings of its section `bgp`. */
  async function problemsOfA(more = ''): Promise<readonly string[]> {
    // A driver that starts anew asks at once, and the next round tells.
    cluster.configure('a', settings('a') + more);
    await cluster.round('a');
    await cluster.round('a');
    return cluster.nodes.a.problems();
  }

  async function routesOf(name: NodeName): Promise<string> {
    const { netns } = cluster.nodes[name];
    const of = `route show proto ${programs[name].routeProtocol}`;
    // FRR makes its next hops objects of the kernel.
    return ((await netns.ip(of)) + (await netns.ip(`-6 ${of}`))).replaceAll(/ nhid \d+/g, '');
  }

  test.skipIf(!isThere)(
    '135. 137. peers’ routes come into the kernel as the daemon’s own, and carry all',
    async () => {
      for (const name of nodeNames) {
        for (const n of [1, 2, 3].filter((other) => other !== nodeNames.indexOf(name) + 1)) {
          await expect.poll(() => routesOf(name), slow).toContain(`10.244.${n}.0/24 via `);
          await expect.poll(() => routesOf(name), slow).toContain(`fd00:10:244:${n}::/64 via `);
        }
      }
      expect(await routesOf('a')).toContain('10.244.2.0/24 via 192.168.1.2 dev eth0');
      expect(await routesOf('a')).toContain('10.244.3.0/24 via 192.168.1.254 dev eth0');
      expect(await routesOf('a')).not.toContain('10.244.1.0/24');
      expect(await cluster.nodes.a.netns.ip('route show proto 220')).toBe('');
      expect(await matrixProblems(cluster, families, ['same L2', 'routed'])).toEqual([]);
    },
  );

  if (!isMixed) {
    test.skipIf(!isThere).each([
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
  }

  test.skipIf(!isThere).each(world.killed)(
    'the daemon of node %s killed and started again: no packet of a flow is lost',
    async (name) => {
      await expectNoLoss(programs[name], name);
    },
  );

  if (!isMixed) {
    test.skipIf(!isThere)('another backend takes the announcement back', async () => {
      cluster.configure('a', settings('a').replace('backend: bgp', 'backend: none'));
      await cluster.round('a');
      await expect.poll(() => routesOf('b'), slow).not.toContain('10.244.1.0/24');
      cluster.configure('a', settings('a'));
      await cluster.round('a');
      await expect.poll(() => routesOf('b'), slow).toContain('10.244.1.0/24');
    });
  }

  if (!isMixed) {
    test.skipIf(!isThere)(
      'the reflector killed and started again: no packet of a flow is lost',
      async () => {
        // For two minutes an FRR tells that it has been started. A BIRD that recovers does not wait for
        // such a one's routes: what is asked of this one is to reflect, not to carry.
        if (title === 'FRR') await cluster.router.batch(routesToPods('add'));
        await expectNoLoss(reflector);
        if (title === 'FRR') await cluster.router.batch(routesToPods('del'));
      },
    );
  }

  // Of two FRRs each has a reason: frr.kernel.test.ts.
  if (world.otherAs !== undefined) {
    test.skipIf(!isThere)(
      'a neighbour that is in another AS is a problem of the node, with the daemon’s reason',
      async () => {
        const problems = (): Promise<readonly string[]> => problemsOfA('\n  asNumber: 64999');
        await expect
          .poll(problems, slow)
          .toContainEqual(expect.stringMatching(world.otherAs ?? ''));
        cluster.configure('a', settings('a'));
        await cluster.round('a');
      },
    );
  }

  if (title === 'BIRD 2') {
    describe.skipIf(!isThere)('what is BIRD’s alone', () => {
      test('a configuration that does not change is not read again', async () => {
        const before = await lastConfigured();
        await cluster.round('a');
        cluster.doubt('a');
        await cluster.round('a');
        expect(await lastConfigured()).toBe(before);
      });

      test('what BIRD refuses is named, and its file stays as it was', async () => {
        const { configFile, included } = birdOfA();
        const text = readFileSync(included, 'utf8');
        const config = readFileSync(configFile, 'utf8');
        writeFileSync(configFile, `${config}protocol nonsense;\n`);
        cluster.configure('a', `${settings('a')}\n  asNumber: 64999`);
        await expect(cluster.round('a')).rejects.toMatchObject({
          errors: [
            {
              message: expect.stringMatching(
                /^Cannot announce pods: BIRD refuses its .*syntax error/,
              ),
            },
          ],
        });
        expect(readFileSync(included, 'utf8')).toBe(text);
        writeFileSync(configFile, config.replace(/^include.*$/m, ''));
        cluster.configure('a', settings('a'));
        await expect(cluster.round('a')).rejects.toMatchObject({
          errors: [{ message: expect.stringContaining(`must say include "${included}";`) }],
        });
        writeFileSync(configFile, config);
        await cluster.round('a');
      });

      async function lastConfigured(): Promise<string> {
        return (
          /Last reconfiguration on (.*)/.exec(await birdOfA().ask('show', 'status'))?.[1] ?? ''
        );
      }
    });
  }

  if (!isMixed) {
    test.skipIf(!isThere)('a session that is not up is a problem of the node', async () => {
      await reflector.kill();
      await expect
        .poll(() => problemsOfA(), slow)
        .toContainEqual(expect.stringMatching(world.sessionDown));
    });
  }

  if (!isMixed) {
    test.skipIf(!isThere)('a daemon that is not there is named', async () => {
      await programs.a.kill();
      cluster.configure('a', settings('a'));
      await expect(cluster.round('a')).rejects.toMatchObject({
        errors: [{ message: expect.stringMatching(world.absent) }],
      });
    });
  }
});
