import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { agentSocket, podAgent, startStream } from '#cmd/podwire/demo/agent-client.ts';
import { applyManifests } from '#cmd/podwire/demo/manifests.ts';
import { ipBatch, runIn } from '#cmd/podwire/demo/namespaces.ts';
import { rows } from '#cmd/podwire/demo/probe-list.ts';
import { pathsSettled } from '#cmd/podwire/demo/routes.ts';
import type { NodeName } from '#cmd/podwire/demo/topology.ts';
import { systemClock } from '#pkg/clock/clock.ts';
import { families } from '#pkg/ip/address.ts';
import { nodeType } from '#pkg/kube/resources.ts';
import { eventually, manifests, startTestCluster, type TestCluster } from '#test/test-cluster.ts';

const signal = new AbortController().signal;
const podRows = [rows.sameNode, rows.sharedL2, rows.acrossRouter, rows.nodeToOther, rows.outside];

let test: TestCluster;

beforeAll(async () => {
  test = await startTestCluster({ backend: 'vxlan', directRouting: true });
  expect(await test.problems(...podRows)).toEqual([]);
});
afterAll(() => test?.[Symbol.asyncDispose]());

describe('what was deleted by hand comes back', () => {
  it.each([
    ['a direct route', 'node1', ['ip', 'route', 'delete', '10.244.2.0/24'], ['ip', 'route']],
    ['an overlay route', 'node1', ['ip', 'route', 'delete', '10.244.3.0/24'], ['ip', 'route']],
    [
      'an IPv6 overlay route',
      'node3',
      ['ip', '-6', 'route', 'delete', 'fd00:10:244:1::/64'],
      ['ip', '-6', 'route'],
    ],
    [
      'the neighbours of the overlay device',
      'node3',
      ['ip', 'neighbour', 'flush', 'nud', 'permanent', 'dev', 'podwire.1'],
      ['ip', 'neighbour', 'show', 'nud', 'permanent', 'dev', 'podwire.1'],
    ],
    [
      'the mark of the overlay device',
      'node3',
      ['ip', 'link', 'set', 'podwire.1', 'alias', ''],
      ['ip', '-details', 'link', 'show', 'podwire.1'],
    ],
    [
      'the masquerade table',
      'node1',
      ['nft', 'delete', 'table', 'inet', 'podwire-masquerade'],
      ['nft', '--stateless', 'list', 'table', 'inet', 'podwire-masquerade'],
    ],
  ] as const)('131. 132. 151. %s', async (_what, node, remove, show) => {
    const before = await kernelText(node, show);
    expect(before).not.toBe('');
    await inNode(node, remove);
    await eventually(
      `${show.join(' ')} as before`,
      async () => (await kernelText(node, show)) === before,
    );
    expect(await test.problems(...podRows)).toEqual([]);
  });

  it('the forwarding entries of the overlay device', async () => {
    const show = ['bridge', 'fdb', 'show', 'dev', 'podwire.1'] as const;
    const before = await kernelText('node3', show);
    const [mac = ''] = /^\S+/.exec(before) ?? [];
    const [, remote = ''] =
      /dst (\S+)/.exec(before.split('\n').find((l) => l.startsWith(mac)) ?? '') ?? [];
    await inNode('node3', [
      'bridge',
      'fdb',
      'delete',
      mac,
      'dev',
      'podwire.1',
      'dst',
      remote,
      'self',
    ]);
    await eventually(
      'forwarding entries as before',
      async () => (await kernelText('node3', show)) === before,
    );
    expect(await test.problems(...podRows)).toEqual([]);
  });

  it.each(['podwire.1', 'podwire-v6.1'])(
    'the overlay device %s with all that was on it',
    async (link) => {
      await inNode('node3', ['ip', 'link', 'delete', link]);
      await settled();
      expect(await test.problems(...podRows)).toEqual([]);
    },
  );
});

describe('a node', () => {
  it('149. that leaves the cluster is forgotten by the others, and known again when it comes back', async () => {
    const { client } = test.cluster;
    await client.delete({ type: nodeType, name: 'node3' }, signal);
    for (const family of ['-4', '-6'] as const) {
      await eventually('no route to node3', async () => {
        const routes = await kernelText('node1', ['ip', family, 'route']);
        return !routes.includes('10.244.3.') && !routes.includes('fd00:10:244:3:');
      });
    }
    await eventually('no forwarding entry for node3', async () => {
      const fdb = await kernelText('node1', ['bridge', 'fdb', 'show']);
      return !fdb.includes(test.cluster.topology.hosts.node3.ip + ' ');
    });
    await applyManifests(client, join(manifests, 'nodes.yaml'), signal);
    await settled();
    expect(await test.problems(...podRows)).toEqual([]);
  });

  it('150. that comes back with another address is followed', async () => {
    const { hosts } = test.cluster.topology;
    const { ip } = hosts.node3;
    const moved = '198.51.100.33';
    await moveNode3(ip, moved);
    await eventually('node1 to know the new address', async () => {
      const fdb = await kernelText('node1', ['bridge', 'fdb', 'show', 'dev', 'podwire.1']);
      return fdb.includes(`dst ${moved} `) && !fdb.includes(`dst ${ip} `);
    });
    expect(await test.problems(rows.acrossRouter)).toEqual([]);
    await moveNode3(moved, ip);
    await eventually('node1 to know the old address', async () => {
      const fdb = await kernelText('node1', ['bridge', 'fdb', 'show', 'dev', 'podwire.1']);
      return fdb.includes(`dst ${ip} `) && !fdb.includes(`dst ${moved} `);
    });
    expect(await test.problems(rows.acrossRouter)).toEqual([]);
  });
});

describe('podwire-node killed and started again', () => {
  it.each(families)('138. 154. loses no packet of a connection over it (%s)', async (family) => {
    const { run } = test.cluster;
    const from = agentSocket(run.path, podAgent('default', 'echo-1'));
    const streams = await Promise.all(
      (['tcp', 'udp'] as const).flatMap((protocol) =>
        ['echo-2', 'echo-3'].map((pod) =>
          startStream(from, {
            protocol,
            address: test.facts.podIP(pod, family),
            port: 8080,
            intervalMs: 20,
          }),
        ),
      ),
    );
    for (const node of ['node1', 'node3'] as const) {
      const before = timesReady(node);
      const daemon = test.cluster.nodeDaemon(node);
      const { pid, ended } = daemon.program();
      process.kill(pid, 'SIGKILL');
      await ended;
      daemon.start();
      await eventually(`${node} ready again`, () => timesReady(node) > before);
    }
    const outcomes = await Promise.all(streams.map((stream) => stream.stop()));
    for (const outcome of outcomes) {
      expect(outcome.error).toBeUndefined();
      expect(outcome.answered).toBe(outcome.sent);
      expect(outcome.sent).toBeGreaterThan(10);
    }
  });
});

/** How often the daemon of a node has said, since the cluster started, that it has done its work. */
function timesReady(node: NodeName): number {
  const { logPath } = test.cluster.nodeDaemon(node).program();
  return readFileSync(logPath, 'utf8').split('"Pod network is ready"').length - 1;
}

function settled(): Promise<void> {
  const phase = { reachesNode3: true, sharedL2: 'plain' } as const;
  return pathsSettled(test.cluster.topology, phase, { clock: systemClock, withinMs: 60_000 });
}

/** What a command shows, sorted and without times, so that equal state gives equal text. */
async function kernelText(node: NodeName, command: readonly string[]): Promise<string> {
  const output = await inNode(node, command).catch((error: unknown) => String(error));
  return output
    .split('\n')
    .map((line) => line.trimEnd())
    .toSorted()
    .join('\n')
    .trim();
}

function inNode(node: NodeName, command: readonly string[]): Promise<string> {
  return runIn(test.cluster.topology.hosts[node].namespace, command as [string, ...string[]]);
}

/** Gives node3 another address, as a machine gets one when it starts again. */
async function moveNode3(from: string, to: string): Promise<void> {
  const { client, topology } = test.cluster;
  const daemon = test.cluster.nodeDaemon('node3');
  await daemon.stop();
  const { namespace, ip6 } = topology.hosts.node3;
  await ipBatch(namespace, [
    // Not the other way round: with the first address of a subnet the kernel removes the others.
    `address delete ${from}/24 dev eth0`,
    `address add ${to}/24 dev eth0`,
    'route replace default via 198.51.100.1',
  ]);
  const addresses = [
    { type: 'InternalIP', address: to },
    { type: 'InternalIP', address: ip6 },
    { type: 'Hostname', address: 'node3' },
  ];
  const ref = { type: nodeType, name: 'node3', subresource: 'status' } as const;
  await client.patch(ref, { kind: 'merge', body: { status: { addresses } } }, signal);
  daemon.start();
}
