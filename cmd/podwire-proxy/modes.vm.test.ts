/** A node that changes its proxy mode by a restart with another configuration. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { ApiAccess } from '#pkg/embedded-api/access.ts';
import { startAgent, type Agent } from '#pkg/proxy/testdata/agent.ts';
import { createProxiedNode, type Daemon, type ProxiedNode } from './scratch/proxied-node.ts';

/** The build: its source would take ten times as long to start there. */
const program = join(import.meta.dirname, '../../dist/podwire-proxy');
const slow = { timeout: 90_000, interval: 200 };
const vip = '10.96.0.10';

let node: ProxiedNode;
let client: Agent;
const opened = new AsyncDisposableStack();

beforeAll(async () => {
  node = opened.use(await createProxiedNode(program));
  createService(node.api.objects);
  opened.use(await startAgent(node.network.servers[0], { name: 'first', port: 9000 }));
  client = opened.use(await startAgent(node.network.client));
});
afterAll(() => opened.disposeAsync());

function createService(objects: ApiAccess): void {
  objects.create({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'default', name: 'web' },
    spec: {
      clusterIP: vip,
      ports: [
        { name: 'http', port: 80, targetPort: 8080 },
        { name: 'stream', port: 81, targetPort: 9001 },
      ],
    },
  });
  objects.apply({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      namespace: 'default',
      name: 'web-v4',
      labels: { 'kubernetes.io/service-name': 'web' },
    },
    addressType: 'IPv4',
    ports: [
      { name: 'http', port: 8080, protocol: 'TCP' },
      { name: 'stream', port: 9001, protocol: 'TCP' },
    ],
    endpoints: [{ addresses: ['10.1.2.2'], conditions: { ready: true } }],
  });
}

async function start(mode: 'iptables' | 'ipvs'): Promise<Daemon> {
  const text = (await readFile(node.config, 'utf8')).replaceAll(/^mode: .*\n/gm, '');
  await writeFile(node.config, `${text}mode: ${mode}\n`);
  const daemon = node.startDaemon();
  const status = (): Promise<string> =>
    node.ask('http://127.0.0.1:10249/proxyMode').then(
      ({ body }) => body,
      () => daemon.log(),
    );
  await expect.poll(status, slow).toBe(mode);
  return daemon;
}

const answers = (): Promise<string[]> => client.ask({ host: vip, port: 80, timeoutMs: 5000 });

async function leftovers(): Promise<string> {
  const { node: netns } = node.network;
  const outputs = await Promise.all([
    netns.exec('ipvsadm', ['-S', '-n']),
    netns.exec('ipset', ['list', '-n']),
    netns.exec('ip', ['-br', 'link', 'show', 'type', 'dummy']),
    netns.exec('iptables-nft-save', []),
  ]);
  return outputs.map(({ stdout }) => stdout).join('\n');
}

it('ipvs to iptables and back: Services work, connections through them go on, nothing is left', async () => {
  const first = await start('ipvs');
  await expect.poll(answers, slow).toEqual(['one 10.1.1.2']);
  expect(await leftovers()).toContain(`-A -t ${vip}:80 -s rr`);
  await first.kill('SIGTERM');
  expect(await answers()).toEqual(['one 10.1.1.2']);

  const second = await start('iptables');
  await expect
    .poll(leftovers, slow)
    .not.toMatch(/-A -t |KUBE-CLUSTER-IP|kube-ipvs0|KUBE-NODE-PORT /);
  expect(await answers()).toEqual(['one 10.1.1.2']);
  await client.openStream('s', { host: vip, port: 81 });
  await second.kill('SIGTERM');

  const third = await start('ipvs');
  await expect.poll(leftovers, slow).toContain(`-A -t ${vip}:80 -s rr`);
  await expect.poll(leftovers, slow).not.toMatch(/KUBE-SEP-|KUBE-EXTERNAL-SERVICES/);
  expect(await answers()).toEqual(['one 10.1.1.2']);
  // Translated by connection tracking, which asks no rules any more.
  const { answered, error } = await client.closeStream('s');
  expect({ answered: answered > 0, error }).toEqual({ answered: true, error: undefined });
  await third.kill('SIGTERM');
}, 300_000);
