/**
 * Every backend that this kernel has, with real packets: {IPv4, IPv6, both} × {same L2, routed} ×
 * the rows of scratch/matrix.ts. Those that most kernels lack are in backends.vm.test.ts; bgp, which
 * needs a daemon beside each node, in bgp.kernel.test.ts.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { unlikeByHand } from '#hack/bench/overlay/by-hand.ts';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { families, type Family } from '#pkg/ip/address.ts';
import { answerTunnel, exchange, sendDatagrams } from './scratch/datagram.ts';
import { matrixProblems, type Placement } from './scratch/matrix.ts';
import { createRoundCluster, nodeNames, outside, type RoundCluster } from './scratch/rounds.ts';
import { switchingProblems } from './scratch/switching.ts';

let cluster: RoundCluster;
beforeAll(async () => {
  cluster = await createRoundCluster(families);
});
afterAll(() => cluster?.[Symbol.asyncDispose]());

const everywhere: readonly Placement[] = ['same L2', 'routed'];
const familySets: readonly (readonly [string, readonly Family[]])[] = [
  ['IPv4', ['ip']],
  ['IPv6', ['ip6']],
  ['dual stack', families],
];

async function run(config: string, podFamilies: readonly Family[]): Promise<void> {
  cluster.setPodFamilies(podFamilies);
  for (const name of nodeNames) {
    cluster.configure(name, config);
    cluster.nodes[name].takeSteps();
  }
  await cluster.settle();
}

describe.each(familySets)('the matrix, %s', (_, podFamilies) => {
  test.each([
    ['vxlan', 'backend: vxlan\ndirectRouting: false'],
    ['vxlan with direct routing', 'backend: vxlan'],
    ['vxlan with group policy and a large VNI', 'backend: vxlan\ngbp: true\nvni: 16777215'],
    ['udp', 'backend: udp'],
  ])('135. 137. %s', async (_backend, config) => {
    await run(config, podFamilies);
    expect(await matrixProblems(cluster, podFamilies, everywhere)).toEqual([]);
    // The law of every driver, across a restart.
    await run(config, podFamilies);
    for (const name of nodeNames) expect(cluster.nodes[name].takeSteps()).toEqual([]);
  });

  test('135. 137. host-gw, which cannot reach a node behind a router, and says so', async () => {
    await run('backend: host-gw', podFamilies);
    expect(await matrixProblems(cluster, podFamilies, ['same L2'])).toEqual([]);
    expect(cluster.nodes.a.problems()).toEqual(
      podFamilies.map((family) =>
        expect.stringMatching(
          `^c: Cannot route ${family === 'ip' ? 'IPv4' : 'IPv6'} to the node: .* is not on the L2 network`,
        ),
      ),
    );
  });

  test('135. none, where somebody else routes', async () => {
    await run('backend: none', podFamilies);
    expect(await cluster.nodes.a.netns.ip('-br link show type vxlan')).toBe('');
    const routes = async (verb: 'add' | 'del'): Promise<void> => {
      for (const from of [...nodeNames, 'router'] as const) {
        for (const to of nodeNames) {
          if (from === to || (from === 'c') !== (to === 'c')) continue;
          const netns = from === 'router' ? cluster.router : cluster.nodes[from].netns;
          for (const family of podFamilies) {
            const { pods, addresses } = cluster.nodes[to];
            await netns.ip(`route ${verb} ${pods[family]} via ${addresses[family]}`);
          }
        }
      }
      for (const family of podFamilies) {
        const { pods, addresses } = cluster.nodes.c;
        await cluster.router.ip(`route ${verb} ${pods[family]} via ${addresses[family]}`);
      }
    };
    await routes('add');
    try {
      expect(await matrixProblems(cluster, podFamilies, everywhere)).toEqual([]);
    } finally {
      await routes('del');
    }
  });
});

describe('udp', () => {
  test('151. a device that somebody deletes comes back, and packets pass again', async () => {
    await run('backend: udp', families);
    await cluster.nodes.a.netns.ip('link del podwire.udp');
    cluster.doubt('a');
    // The thread that reads the device hears of its end from its next call.
    const { a, b } = cluster.nodes;
    const ends = [
      { address: a.pods.ip, inside: a.inside },
      { address: b.pods.ip, inside: b.inside },
    ] as const;
    const carries = async (): Promise<boolean> => {
      cluster.doubt('a');
      await cluster.round('a');
      const once = { bytes: 64, fragment: 'never', attempts: 1 } as const;
      return await exchange(...ends, once).then(
        () => true,
        () => false,
      );
    };
    await expect.poll(carries).toBe(true);
    expect(await matrixProblems(cluster, families, everywhere)).toEqual([]);
  });

  test('151. a device whose mark somebody takes away has it again, and no other is made', async () => {
    await run('backend: udp', families);
    const { netns } = cluster.nodes.a;
    const device = (): Promise<string> => netns.ip('-d link show podwire.udp');
    const before = await device();
    await netns.ip('link set podwire.udp alias ');
    expect(await device()).not.toBe(before);
    cluster.doubt('a');
    await cluster.round('a');
    expect(await device()).toBe(before);
    expect(await matrixProblems(cluster, families, everywhere)).toEqual([]);
  });

  test('a TAP device of its name is somebody else’s: it stays, and the error has the remedy', async () => {
    await run('backend: none', families);
    const { netns } = cluster.nodes.a;
    await netns.ip('tuntap add dev podwire.udp mode tap');
    const before = await netns.ip('-d link show podwire.udp');
    cluster.configure('a', 'backend: udp');
    const failure: unknown = await cluster.round('a').catch((error: unknown) => error);
    expect(messageOf(failure)).toContain('if nobody uses it any more: ip link del podwire.udp');
    expect(await netns.ip('-d link show podwire.udp')).toBe(before);
    await netns.ip('link del podwire.udp');
    await run('backend: udp', families);
    expect(await matrixProblems(cluster, families, everywhere)).toEqual([]);
  });

  test('a datagram is an IP packet and nothing more, at port 8285, as in flannel', async () => {
    await run('backend: udp', ['ip']);
    const { a, b } = cluster.nodes;
    const record = cluster.records.get('b');
    if (record === undefined) throw new Error('there is no b');
    // b's own forwarder makes room, while a still believes in it.
    cluster.configure('b', 'backend: none');
    await cluster.round('b');
    cluster.records.set('b', record);
    const { packet, echoed } = await answerTunnel(
      { address: b.addresses.ip, port: 8285, inside: b.inside },
      { address: a.pods.ip, inside: a.inside },
      { address: b.pods.ip, payload: new TextEncoder().encode('through a tunnel') },
      swapEnds,
    );
    // Version 4, 20 bytes of header, 44 in all; protocol 17; from 10.244.1.9 to 10.244.2.9.
    expect(Array.from(packet.subarray(0, 4))).toEqual([0x45, 0, 0, 44]);
    expect([...packet.slice(9, 10), ...packet.slice(12, 20)]).toEqual([
      17, 10, 244, 1, 9, 10, 244, 2, 9,
    ]);
    expect(new TextDecoder().decode(packet.slice(28))).toBe('through a tunnel');
    expect(echoed).toBe(true);
  });

  test('datagrams that are no IP packets are dropped, and the others carried on', async () => {
    await run('backend: udp', families);
    const { a, b } = cluster.nodes;
    const header = (...start: readonly number[]): Uint8Array => {
      const bytes = new Uint8Array(60);
      bytes.set(start);
      return bytes;
    };
    const nonsense = [
      new Uint8Array(0),
      Uint8Array.of(0x45),
      new Uint8Array(19).fill(0x45),
      new Uint8Array(400).fill(0xff),
      header(0),
      // IPv4 that says to be longer and shorter than it is; a header that is longer than the packet.
      header(0x45, 0, 255, 255),
      header(0x45, 0, 0, 1),
      header(0x4f, 0, 0, 60),
      // IPv6 with half a header's worth, and with none of what it promises.
      header(0x60).subarray(0, 20),
      header(0x60, 0, 0, 0, 255, 255),
    ];
    for (const family of families) {
      const to = { address: a.addresses[family], port: 8285 };
      await sendDatagrams({ inside: cluster.insideRouter }, to, nonsense);
      const [from, back] = [
        { address: b.pods[family], inside: b.inside },
        { address: a.pods[family], inside: a.inside },
      ];
      await exchange(from, back, { bytes: 64, fragment: 'never' });
    }
  });

  test('leaves nothing behind for another backend', async () => {
    await run('backend: vxlan', families);
    expect(await cluster.nodes.a.netns.ip('-br link show type tun')).toBe('');
  });
});

test('151. IPv6 is on on a device where the host has it off for new ones, or somebody turns it off', async () => {
  await run('backend: none', families);
  const { netns } = cluster.nodes.a;
  const set = (link: string, value: 0 | 1): Promise<unknown> =>
    netns.exec('sysctl', ['-qw', `net/ipv6/conf/${link}/disable_ipv6=${value}`]);
  await set('default', 1);
  try {
    await run('backend: vxlan\ndirectRouting: false', families);
    expect(await matrixProblems(cluster, families, ['same L2'])).toEqual([]);
    await set('podwire-v6.1', 1);
    cluster.doubt('a');
    await cluster.round('a');
    expect(await matrixProblems(cluster, families, ['same L2'])).toEqual([]);
  } finally {
    await set('default', 0);
  }
});

test('a VXLAN device is one that somebody sets up by hand with `ip`', async () => {
  await run('backend: vxlan\ndirectRouting: false', ['ip']);
  expect(await unlikeByHand(cluster, 'vxlan')).toEqual([]);
});

test('wrapped routes take the place of plain ones, in both families', async () => {
  await run('backend: host-gw', families);
  await run('backend: vxlan\ndirectRouting: false', families);
  expect(await matrixProblems(cluster, families, everywhere)).toEqual([]);
});

test('152. the MTU follows that of the link below', async () => {
  await run('backend: vxlan', families);
  const { a } = cluster.nodes;
  const mtu = async (link: string): Promise<string | undefined> =>
    / mtu (\d+) /.exec(await a.netns.ip(`link show ${link}`))?.[1];
  const follow = async (mtuBytes: number): Promise<readonly unknown[]> => {
    await a.netns.ip(`link set eth0 mtu ${mtuBytes}`);
    cluster.doubt('a');
    await cluster.round('a');
    return [await mtu('podwire.1'), await mtu('podwire-v6.1'), a.nodeFile().mtuBytes];
  };
  expect(await follow(1400)).toEqual(['1350', '1330', 1330]);
  expect(await follow(1500)).toEqual(['1450', '1430', 1430]);
});

test('141. pods keep their addresses where nonMasqueradeCIDRs says so, in both families', async () => {
  const from = cluster.nodes.a;
  const sources = (): Promise<readonly string[]> =>
    Promise.all(
      families.map(async (family) => {
        const pod = { address: from.pods[family], inside: from.inside };
        const beyond = { address: outside[family], inside: cluster.insideRouter };
        const { source } = await exchange(pod, beyond, { bytes: 64, fragment: 'never' });
        return source;
      }),
    );
  await run('backend: vxlan', families);
  expect(await sources()).toEqual(families.map((family) => from.addresses[family]));
  for (const family of families) {
    await cluster.router.ip(`route add ${from.pods[family]} via ${from.addresses[family]}`);
  }
  await run('backend: vxlan\nnonMasqueradeCIDRs: [203.0.113.0/24, "2001:db8::/32"]', families);
  expect(await sources()).toEqual(families.map((family) => from.pods[family]));
  for (const family of families) {
    await cluster.router.ip(`route del ${from.pods[family]} via ${from.addresses[family]}`);
  }
});

test('a backend leaves nothing of itself to any other', { timeout: 180_000 }, async () => {
  cluster.setPodFamilies(families);
  const problems = await switchingProblems(cluster, {
    vxlan: 'backend: vxlan\ndirectRouting: false',
    // The kernel refuses to have both at one port.
    'vxlan with group policy': 'backend: vxlan\ndirectRouting: false\ngbp: true',
    'host-gw': 'backend: host-gw',
    udp: 'backend: udp',
  });
  expect(problems).toEqual([]);
});

describe('a change of one node costs the others what concerns it', () => {
  const objects = (): string[] =>
    cluster.nodes.a.takeSteps().map(({ op, object }) => `${op} ${object.kind}`);

  test('150. its VTEP’s MAC, its address, its pods’ range, its leaving and its coming', async () => {
    await run('backend: vxlan\ndirectRouting: false', ['ip']);
    objects();
    const record = cluster.records.get('b');
    if (record === undefined) throw new Error('there is no b');
    const change = async (fields: Partial<typeof record> | undefined): Promise<string[]> => {
      if (fields === undefined) cluster.records.delete('b');
      else cluster.records.set('b', { ...record, ...fields });
      await cluster.round('a');
      return objects();
    };
    const annotate = (key: string, value: string): Partial<typeof record> => ({
      annotations: { ...record.annotations, [`podwire.dev/${key}`]: value },
    });
    const other = '{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}';
    expect(await change(annotate('backend-data', other))).toEqual([
      'put neighbor',
      'put fdb',
      'delete fdb',
    ]);
    expect(await change({})).toEqual(['put neighbor', 'put fdb', 'delete fdb']);
    expect(await change(annotate('public-ip', '192.168.1.77'))).toEqual(['put fdb']);
    expect(await change({})).toEqual(['put fdb']);
    expect(await change({ podCIDRs: ['10.244.77.0/24'] })).toEqual([
      'put neighbor',
      'put route',
      'delete route',
      'delete neighbor',
    ]);
    expect(await change({})).toEqual([
      'put neighbor',
      'put route',
      'delete route',
      'delete neighbor',
    ]);
    expect(await change(undefined)).toEqual(['delete route', 'delete fdb', 'delete neighbor']);
    expect(await change({})).toEqual(['put neighbor', 'put fdb', 'put route']);
    expect(await matrixProblems(cluster, ['ip'], everywhere)).toEqual([]);
  });
});

/** The same UDP packet on its way back; its checksums stay right, being sums. */
function swapEnds(packet: Uint8Array): Uint8Array {
  const back = packet.slice();
  back.set(packet.slice(16, 20), 12);
  back.set(packet.slice(12, 16), 16);
  back.set(packet.slice(22, 24), 20);
  back.set(packet.slice(20, 22), 22);
  return back;
}
