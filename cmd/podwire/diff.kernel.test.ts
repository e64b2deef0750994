/** `podwire diff` on a node: what it prints, what it exits with, and that it writes nothing. */
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  createProxiedNode,
  nodeName,
  type ProxiedNode,
} from '#cmd/podwire-proxy/scratch/proxied-node.ts';

const program = new URL('./main.ts', import.meta.url).pathname;
let node: ProxiedNode;

beforeAll(async () => {
  node = await createProxiedNode();
  node.api.objects.create({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'default', name: 'web' },
    spec: {
      type: 'NodePort',
      clusterIP: '10.96.0.10',
      clusterIPs: ['10.96.0.10', 'fd00:96::10'],
      ipFamilies: ['IPv4', 'IPv6'],
      ipFamilyPolicy: 'RequireDualStack',
      ports: [{ name: 'http', port: 80, targetPort: 8080, nodePort: 30080 }],
    },
  });
  node.api.objects.create({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      namespace: 'default',
      name: 'web-v4',
      labels: { 'kubernetes.io/service-name': 'web' },
    },
    addressType: 'IPv4',
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints: [{ addresses: ['10.1.2.2'], conditions: { ready: true } }],
  });
});
afterAll(() => node?.[Symbol.asyncDispose]());

async function diff(
  flags = ['--config', node.configPath, '--hostname-override', nodeName],
): Promise<{ exitCode: number | undefined; stdout: string; stderr: string }> {
  const command = ['netns', 'exec', node.network.node.name, process.execPath, program, 'diff'];
  const options = { reject: false, stripFinalNewline: false, timeout: 120_000 } as const;
  const { exitCode, stderr, stdout } = await execa('ip', [...command, ...flags], options);
  return { exitCode, stdout, stderr };
}

test('on a node without rules it prints all of them, as iptables-restore takes them', async () => {
  const { exitCode, stdout } = await diff();
  expect(exitCode).toBe(1);
  expect(await node.save('ip')).not.toContain('KUBE-');
  const parts = stdout.split(/^# (.*)\n/m).slice(1);
  expect(parts.filter((_, i) => i % 2 === 0)).toEqual([
    'iptables-nft-restore --noflush',
    'sysctl -w net.ipv4.conf.all.route_localnet=1',
    'ip6tables-nft-restore --noflush',
  ]);
  const [v4 = '', , , , v6 = ''] = parts.slice(1);
  await node.network.node.exec('iptables-nft-restore', ['--noflush'], { input: v4 });
  await node.network.node.exec('ip6tables-nft-restore', ['--noflush'], { input: v6 });
  await node.network.node.exec('sysctl', ['-qw', 'net.ipv4.conf.all.route_localnet=1']);
  expect(await diff()).toMatchObject({ exitCode: 0, stdout: '' });
});

test('behind a proxy there is no difference; a rule deleted by hand is one', async () => {
  const { network } = node;
  const daemon = node.startDaemon();
  const slow = { timeout: 60_000, interval: 50 };
  const healthy = (): Promise<number> =>
    node.ask('http://127.0.0.1:10256/healthz').then(
      (answer) => answer.status,
      () => 0,
    );
  await expect.poll(healthy, slow).toBe(200);
  await daemon.kill('SIGKILL');
  expect(await diff()).toMatchObject({ exitCode: 0, stdout: '' });

  await network.node.exec('iptables-nft', ['-t', 'nat', '-D', 'KUBE-MARK-MASQ', '1']);
  const before = await node.save('ip');
  const found = await diff();
  expect(found.exitCode).toBe(1);
  expect(found.stdout.split('\n').filter((line) => !line.startsWith(':'))).toEqual([
    '# iptables-nft-restore --noflush',
    '*nat',
    '-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000',
    'COMMIT',
    '',
  ]);
  expect(await node.save('ip')).toBe(before);
});

test('in mode nftables it prints a script that nft reads, and one element when one is gone', async () => {
  const netns = node.network.node;
  const flags = ['--kubeconfig', node.kubeconfig, '--hostname-override', nodeName];
  const nftables = (): ReturnType<typeof diff> => diff([...flags, '--proxy-mode', 'nftables']);
  const first = await nftables();
  expect(first.exitCode).toBe(1);
  expect((await netns.exec('nft', ['list', 'tables'])).stdout).not.toContain('podwire-proxy');
  await netns.exec('nft', ['-f', '-'], { input: first.stdout });
  const element = 'endpoints { 10.96.0.10 . tcp . 80 . 0 : 10.1.2.2 . 8080 }';
  await netns.exec('nft', ['delete', 'element', 'ip', 'podwire-proxy', ...element.split(' ')]);
  expect(await nftables()).toMatchObject({
    exitCode: 1,
    stdout: `add element ip podwire-proxy ${element}\n`,
  });
});

test.each([
  ['a flag the proxy does not know', ['--no-such-flag'], 'no-such-flag'],
  ['a configuration that is not there', ['--config=/nonexistent'], 'Cannot read configuration'],
  ['credentials that are not there', ['--kubeconfig', '/nonexistent'], '/nonexistent'],
])('%s is trouble', async (_, flags, said) => {
  const { exitCode, stderr, stdout } = await diff(flags);
  expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: '' });
  expect(stderr).toContain(said);
});
