/** The daemon as it runs on a node: an API server on one side, packets on the other. */
import { readFile, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ApiAccess } from '#pkg/embedded-api/access.ts';
import {
  createProxiedNode,
  nodeName,
  program,
  type Daemon,
  type ProxiedNode,
} from './scratch/proxied-node.ts';

let node: ProxiedNode;
beforeEach(async () => {
  node = await createProxiedNode();
});
afterEach(() => node[Symbol.asyncDispose]());

const slow = { timeout: 60_000, interval: 50 };
const vips = ['10.96.0.10', 'fd00:96::10'];
const healthz = 'http://127.0.0.1:10256/healthz';

async function up(): Promise<Daemon> {
  const daemon = node.startDaemon();
  await expect
    .poll(
      () =>
        node.ask(healthz).then(
          (a) => a.status,
          () => daemon.log(),
        ),
      slow,
    )
    .toBe(200);
  return daemon;
}

function createService(objects: ApiAccess, nodePort = 0): void {
  objects.create({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'default', name: 'web' },
    spec: {
      type: nodePort === 0 ? 'ClusterIP' : 'NodePort',
      clusterIP: vips[0] ?? '',
      clusterIPs: vips,
      ipFamilies: ['IPv4', 'IPv6'],
      ipFamilyPolicy: 'RequireDualStack',
      ports: [
        { name: 'http', port: 80, targetPort: 8080, ...(nodePort === 0 ? {} : { nodePort }) },
      ],
    },
  });
}

function putSlice(objects: ApiAccess, family: 'IPv4' | 'IPv6', addresses: readonly string[]): void {
  objects.apply({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      namespace: 'default',
      name: `web-${family.toLowerCase()}`,
      labels: { 'kubernetes.io/service-name': 'web' },
    },
    addressType: family,
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
  });
}

/** Until a connection from the client to the first cluster address is answered so. */
async function answersBecome(expected: string[], host = '10.96.0.10'): Promise<void> {
  const { network } = node;
  const answers = async (): Promise<string[]> => {
    const count = expected.length === 1 ? 1 : 20;
    return [
      ...new Set(
        await network.connect(network.client, { host, port: 80, count, timeoutMs: 2_000 }),
      ),
    ].toSorted();
  };
  await expect.poll(answers, slow).toEqual(expected);
}

describe('podwire-proxy', () => {
  test('serves what the API says, as it changes, in both families', async () => {
    const { objects } = node.api;
    createService(objects);
    await up();
    await answersBecome(['ECONNREFUSED']);
    putSlice(objects, 'IPv4', ['10.1.2.2']);
    putSlice(objects, 'IPv6', ['fd00:10:2::2', 'fd00:10:3::2']);
    await answersBecome(['one 10.1.1.2']);
    await answersBecome(['one fd00:10:1::2', 'two fd00:10:1::2'], 'fd00:96::10');
    putSlice(objects, 'IPv4', ['10.1.3.2']);
    await answersBecome(['two 10.1.1.2']);
    objects.delete({ apiVersion: 'v1', kind: 'Service', namespace: 'default', name: 'web' });
    await expect.poll(() => node.save('ip'), slow).not.toContain('default/web');
    expect(await node.save('ip')).not.toMatch(/KUBE-(?:SVC|SEP)-/);
  });

  test('a second proxy of another configuration waits, and takes over when the first has ended', async () => {
    const { objects } = node.api;
    createService(objects);
    putSlice(objects, 'IPv4', ['10.1.2.2']);
    const first = await up();
    await answersBecome(['one 10.1.1.2']);
    const configuration = await readFile(node.configPath, 'utf8');
    const configPath = `${node.configPath}.second`;
    await writeFile(configPath, configuration);
    const second = node.startDaemon(['--config', configPath, '--hostname-override', nodeName]);
    await expect.poll(() => second.log(), slow).toContain('Waits until another podwire-proxy');
    // What counts is the configuration when it takes over.
    await writeFile(configPath, `${configuration}mode: nftables\n`);
    putSlice(objects, 'IPv4', ['10.1.3.2']);
    await answersBecome(['two 10.1.1.2']);
    const tables = async (): Promise<string> =>
      (await node.network.node.exec('nft', ['list', 'tables'])).stdout;
    expect(await tables()).not.toContain('podwire-proxy');
    expect(await first.kill('SIGTERM')).toBe(0);
    await expect.poll(tables, slow).toContain('table ip podwire-proxy');
    await answersBecome(['two 10.1.1.2']);
    expect(second.log().match(/another podwire-proxy/g)).toHaveLength(1);
  });

  test('writes nothing before it knows everything, and says that it is not healthy', async () => {
    const { api } = node;
    createService(api.objects);
    putSlice(api.objects, 'IPv4', ['10.1.2.2']);
    let held = 0;
    api.faults.intercept(({ path }) => {
      if (!path.includes('endpointslices')) return undefined;
      held += 1;
      return { kind: 'cut' };
    });
    const daemon = node.startDaemon();
    await expect.poll(() => held, slow).toBeGreaterThan(0);
    await expect
      .poll(
        () =>
          node.ask(healthz).then(
            (a) => a.status,
            () => daemon.log(),
          ),
        slow,
      )
      .toBe(503);
    expect(await node.save('ip')).not.toContain('KUBE-');
    api.faults.intercept(undefined);
    await answersBecome(['one 10.1.1.2']);
    // Its first rules already had the endpoint: it was never refused. IPv6 is written after IPv4.
    await expect.poll(async () => (await node.ask(healthz)).status, slow).toBe(200);
  });

  test('puts back what others delete at once, says so, and is at rest then', async () => {
    const { network, api } = node;
    createService(api.objects);
    putSlice(api.objects, 'IPv4', ['10.1.2.2']);
    const daemon = await up();
    await answersBecome(['one 10.1.1.2']);
    const before = await node.save('ip');
    // Long before the next comparison, which is due after an hour, as the kernel tells of changes.
    for (const words of ['-t nat -F', '-t filter -D FORWARD 1', '-t nat -X KUBE-PROXY-CANARY']) {
      await network.node.exec('iptables-nft', words.split(' '));
      await expect.poll(() => node.save('ip'), slow).toEqual(before);
    }
    await network.node.exec('nft', ['flush', 'ruleset']);
    await expect.poll(() => node.save('ip'), slow).toEqual(before);
    await expect.poll(() => daemon.log()).toContain('Rules were changed by somebody else');

    // What the proxy itself writes and what others add for themselves is no reason to compare.
    const comparisons = await fullSyncs();
    for (const addresses of [['10.1.2.2', '10.1.3.2'], ['10.1.3.2'], ['10.1.2.2']]) {
      putSlice(api.objects, 'IPv4', addresses);
      const answers = addresses.map((a) => (a === '10.1.2.2' ? 'one' : 'two'));
      await answersBecome(answers.map((name) => `${name} 10.1.1.2`));
      await network.node.exec('iptables-nft', ['-t', 'nat', '-N', `OTHER-${answers.join('-')}`]);
    }
    // The change of this is heard after all those.
    await network.node.exec('iptables-nft', ['-t', 'nat', '-F', 'KUBE-MARK-MASQ']);
    await expect.poll(() => node.save('ip'), slow).toContain('-A KUBE-MARK-MASQ');
    await expect.poll(fullSyncs, slow).toBeGreaterThan(comparisons);
    expect(await fullSyncs()).toBe(comparisons + 1);
  });

  async function fullSyncs(): Promise<number> {
    const { body } = await node.ask('http://127.0.0.1:10249/metrics');
    const counted = /sync_full_proxy_rules_duration_seconds_count\{ip_family="IPv4"\} (\d+)/;
    return Number(counted.exec(body)?.[1]);
  }

  test('stops with its rules in place; the next one finds them and changes nothing', async () => {
    const { network, api } = node;
    createService(api.objects, 30080);
    putSlice(api.objects, 'IPv4', ['10.1.2.2', '10.1.3.2']);
    const first = await up();
    await answersBecome(['one 10.1.1.2', 'two 10.1.1.2']);
    expect(await first.kill('SIGTERM')).toBe(0);
    const rules = await node.save('ip');
    await answersBecome(['one 10.1.1.2', 'two 10.1.1.2']);
    const second = await up();
    expect(second.log()).not.toContain('Rules written');
    expect(await node.save('ip')).toBe(rules);
    const answers = await network.connect(network.outside, { host: '203.0.113.1', port: 30080 });
    expect(answers[0]).toMatch(/^(?:one 10\.1\.2\.1|two 10\.1\.3\.1)$/);
  });

  test('opens 127.0.0.1 for node ports only when there is one', async () => {
    const { api, network } = node;
    const setting = async (): Promise<string> => {
      const args = ['-n', 'net.ipv4.conf.all.route_localnet'];
      return (await network.node.exec('sysctl', args)).stdout;
    };
    await up();
    expect(await setting()).toBe('0');
    createService(api.objects, 30080);
    putSlice(api.objects, 'IPv4', ['10.1.2.2']);
    await expect.poll(setting, slow).toBe('1');
    // The setting may be there before the endpoint is.
    await expect
      .poll(
        () => network.connect(network.node, { host: '127.0.0.1', port: 30080, timeoutMs: 2_000 }),
        slow,
      )
      .toEqual(['one 10.1.2.1']);
  });

  test("answers kube-proxy's questions at its ports", async () => {
    createService(node.api.objects);
    await up();
    expect(JSON.parse((await node.ask(healthz)).body)).toMatchObject({
      nodeEligible: true,
      healthy: true,
      status: { IPv4: { healthy: true }, IPv6: { healthy: true } },
    });
    expect(await node.ask('http://127.0.0.1:10249/proxyMode')).toEqual({
      status: 200,
      body: 'iptables',
    });
    const { body } = await node.ask('http://127.0.0.1:10249/metrics');
    expect(body).toMatch(
      /^kubeproxy_sync_proxy_rules_duration_seconds_count\{ip_family="IPv6"\} [1-9]/m,
    );
    expect(body).toMatch(/^kubeproxy_sync_proxy_rules_iptables_total\{.*table="nat".*\} [1-9]/m);
    expect(body).toMatch(/^kubeproxy_proxy_healthz_total\{code="200"\} [1-9]/m);

    const ref = { apiVersion: 'v1', kind: 'Node', name: nodeName };
    const taints = [{ key: 'ToBeDeletedByClusterAutoscaler', effect: 'NoSchedule' }];
    node.api.objects.patch(ref, 'merge', { spec: { taints } });
    await expect.poll(() => node.ask(healthz).then((a) => a.status), slow).toBe(503);
    expect((await node.ask('http://127.0.0.1:10256/livez')).status).toBe(200);
  });

  test.each([
    [1, 'Cannot find iptables', ['--kubeconfig', '/nonexistent']],
    [2, 'expected one of iptables, ipvs, nftables', ['--proxy-mode', 'userspace']],
    [2, 'Cannot read configuration /nonexistent', ['--config=/nonexistent']],
  ])('ends with %i and one line when it says: %s', async (exitCode, reason, flags) => {
    const args = ['PATH=/nonexistent', process.execPath, program, ...flags];
    const error: unknown = await node.network.node
      .exec('/usr/bin/env', args)
      .catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'CommandFailed', details: { exitCode } });
    const lines = String(error)
      .split('\n')
      .filter((line) => line.includes('"level":50'));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain(reason);
  });
});
