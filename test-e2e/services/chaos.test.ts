/**
 * podwire-proxy is killed at random moments while Services and endpoints change at random. After the
 * last start the kernel holds what is wanted, and who used a Service that did not change never
 * noticed. PODWIRE_CHAOS_CHANGES and PODWIRE_CHAOS_SEED make a longer run, or another one.
 */
import { join } from 'node:path';
import { execa } from 'execa';
import { describe, expect, it } from 'vitest';
import { systemClock } from '#pkg/clock/clock.ts';
import { probeBackends } from '#pkg/iptables/testdata/scratch-tools.ts';
import {
  createProxiedNode,
  nodeName,
  type Daemon,
  type ProxiedNode,
} from '#cmd/podwire-proxy/scratch/proxied-node.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { programs } from '#test/test-cluster.ts';
import { RandomChanges } from './random-changes.ts';

const allChanges = Number(process.env['PODWIRE_CHAOS_CHANGES'] ?? 1000);
const seed = Number(process.env['PODWIRE_CHAOS_SEED'] ?? 20_261_129);
/** Of changes that come at once, as a rolling update makes them. */
const batch = 25;
/** A kill every so many batches. */
const batchesPerLife = 4;
const probes = await probeBackends();
/** Each backend gets its share. */
const changes =
  Math.ceil(allChanges / probes.filter(({ usable }) => usable).length / batch) * batch;

describe.each(probes)('iptables, backend $title', ({ backend, usable }) => {
  it.skipIf(!usable)(
    `S141. is killed during ${changes} random changes of seed ${seed}`,
    async () => {
      await using node = await createProxiedNode(join(programs.dist, 'podwire-proxy'));
      if (backend === 'legacy') {
        await node.network.node.exec('iptables-legacy', [
          '-t',
          'mangle',
          '-N',
          'KUBE-IPTABLES-HINT',
        ]);
      }
      createSteady(node);
      let daemon = node.startDaemon();
      await expect.poll(() => differences(node), slow).toBe('');

      const { network } = node;
      const users = [network.client, network.node].map((netns) => network.agent(netns));
      // Not on the node, where the daemon that dies has connections, too.
      const sentAgain = (): Promise<number[]> =>
        Promise.all([network.client, ...network.servers].map(retransmitted));
      const before = await sentAgain();
      for (const user of users) {
        expect(await user.openStream('stream', { host: steadyIP, port: 81 })).toHaveProperty(
          'localPort',
        );
        await user.startConnecting('new', { host: steadyIP, port: 80 });
      }
      const random = new RandomChanges(node.api.objects, seed);
      let kills = 0;
      for (let done = 0; done < changes; done += batch) {
        for (let i = 0; i < batch; i++) random.change();
        // The daemon is at any point of its work then: reading, planning, writing, or done.
        await systemClock.sleep(random.moment(250));
        if ((done / batch) % batchesPerLife !== batchesPerLife - 1) continue;
        daemon = await replace(daemon, node);
        kills += 1;
      }
      daemon = await replace(daemon, node);
      expect(kills).toBe(Math.floor(changes / batch / batchesPerLife));
      await expect.poll(() => differences(node), slow).toBe('');

      for (const user of users) {
        const stream = await user.closeStream('stream');
        expect(stream.error).toBeUndefined();
        expect(stream.answered).toBeGreaterThan(100);
        const { answers, count, failures } = await user.stopConnecting('new');
        expect(failures).toEqual([]);
        expect(Object.values(answers).reduce((sum, n) => sum + n, 0)).toBe(count);
        expect(count).toBeGreaterThan(50);
      }
      // What is lost is sent again. How long an answer takes is the machine's matter.
      expect(await sentAgain()).toEqual(before);
      await daemon.kill('SIGKILL');

      // What the survivor of all this holds is what a newcomer writes into an empty kernel.
      const survived = await rulesOf(node, backend);
      await empty(node, backend);
      expect(await rulesOf(node, backend)).not.toEqual(survived);
      node.startDaemon();
      await expect.poll(() => differences(node), slow).toBe('');
      expect(await rulesOf(node, backend)).toEqual(survived);
      expect(Object.values(random.counts).every((count) => count > changes / 50)).toBe(true);
    },
  );
});

const slow = { timeout: 60_000, interval: 100 };
const steadyIP = '10.96.0.77';

/** A Service that nothing here changes. */
function createSteady({ api }: ProxiedNode): void {
  const ports = [
    { name: 'new', port: 80, protocol: 'TCP' },
    { name: 'lasting', port: 81, protocol: 'TCP' },
  ];
  api.objects.create({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'default', name: 'steady' },
    spec: { clusterIP: steadyIP, ports },
  });
  api.objects.create({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      namespace: 'default',
      name: 'steady',
      labels: { 'kubernetes.io/service-name': 'steady' },
    },
    addressType: 'IPv4',
    ports: ports.map((port) => ({ ...port, port: 8000 + port.port })),
    endpoints: ['10.1.2.2', '10.1.3.2'].map((address) => ({ addresses: [address] })),
  });
}

async function replace(daemon: Daemon, node: ProxiedNode): Promise<Daemon> {
  await daemon.kill('SIGKILL');
  return node.startDaemon();
}

/** What the proxy would still change, by `podwire diff`; its complaint when it cannot tell. */
async function differences({ configPath, network }: ProxiedNode): Promise<string> {
  const program = [programs.node, join(programs.dist, 'podwire'), 'diff'];
  const flags = ['--config', configPath, '--hostname-override', nodeName];
  const { exitCode, stderr, stdout } = await execa(
    'ip',
    ['netns', 'exec', network.node.name, ...program, ...flags],
    { reject: false, timeout: 120_000 },
  );
  if (exitCode === 0) return '';
  return exitCode === 1 ? stdout : `${exitCode}: ${stderr}`;
}

/** How many TCP segments were sent again, by whomever of the namespace, the first of a connection too. */
async function retransmitted(netns: ScratchNetns): Promise<number> {
  const [names = [], values = []] = (await netns.exec('cat', ['/proc/net/snmp'])).stdout
    .split('\n')
    .filter((line) => line.startsWith('Tcp: '))
    .map((line) => line.split(' '));
  return Number(values[names.indexOf('RetransSegs')]);
}

/** Everything of ours in both families, without what changes by itself and orders of no meaning. */
async function rulesOf({ network }: ProxiedNode, backend: string): Promise<string[]> {
  const lines: string[] = [];
  for (const tool of ['iptables', 'ip6tables']) {
    const program = `${tool}-${backend === 'legacy' ? 'legacy' : 'nft'}-save`;
    for (const table of ['filter', 'nat', 'mangle']) {
      const { stdout } = await network.node.exec(program, ['-t', table]);
      const chains = stdout.split('\n').filter((line) => /^(?::KUBE|-A )/.test(line));
      const named = chains.map((line) => `${tool} ${table} ${line}`);
      // Rules keep their order within a chain; chains have none, nor have Services in the common ones.
      lines.push(...named.toSorted());
    }
  }
  return lines;
}

async function empty({ network }: ProxiedNode, backend: string): Promise<void> {
  if (backend !== 'legacy') {
    await network.node.exec('nft', ['flush', 'ruleset']);
    return;
  }
  for (const tool of ['iptables-legacy', 'ip6tables-legacy']) {
    for (const table of ['filter', 'nat']) {
      await network.node.exec(tool, ['-t', table, '-F']);
      await network.node.exec(tool, ['-t', table, '-X']);
    }
  }
}
