import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { readOptions, type ProxyOptions } from './options.ts';

let dir: string;
let file: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'podwire-options-'));
  file = join(dir, 'config.conf');
  await writeFile(
    file,
    `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
hostnameOverride: from-file
clusterCIDR: 10.9.0.0/16
clientConnection: { kubeconfig: /from/file }
surprise: 1
`,
  );
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function read(
  argv: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<ProxyOptions> {
  const options = await readOptions(argv, { env, hostname: 'The-Host', version: '9.9.9' });
  if ('kind' in options) throw new Error('expected options');
  return options;
}

describe('flags', () => {
  it('none are needed: the host is the Node, the cluster is the one we are in', async () => {
    const { config, nodeName, warnings } = await read([]);
    expect(nodeName).toBe('the-host');
    expect(config.kubeconfig).toBeUndefined();
    expect(config.mode).toBe('iptables');
    expect(warnings).toEqual([]);
  });

  it('are spelled as in kube-proxy', async () => {
    const { config, nodeName } = await read([
      '--kubeconfig=/k',
      '--master=https://10.0.0.1:6443/',
      '--hostname-override=Node-1',
      '--proxy-mode=iptables',
      '--cluster-cidr=10.1.0.0/16,fd00::/48',
      '--healthz-bind-address=127.0.0.1:1',
      '--metrics-bind-address=0.0.0.0:0',
      '--nodeport-addresses=192.168.0.0/16,fd00::/8',
      '--masquerade-all',
      '--iptables-masquerade-bit=7',
      '--iptables-localhost-nodeports=false',
      '--iptables-sync-period=2m',
      '--iptables-min-sync-period=200ms',
      '-v=4',
    ]);
    expect(nodeName).toBe('node-1');
    expect(config.clusterCIDRs.map(formatPrefix)).toEqual(['10.1.0.0/16', 'fd00::/48']);
    expect(config).toMatchObject({
      kubeconfig: '/k',
      master: 'https://10.0.0.1:6443',
      healthzBindAddress: { host: '127.0.0.1', port: 1 },
      metricsBindAddress: undefined,
      iptables: {
        masqueradeAll: true,
        masqueradeBit: 7,
        localhostNodePorts: false,
        syncPeriodMs: 120_000,
        minSyncPeriodMs: 200,
      },
      verbosity: 4,
    });
  });

  it.each([
    [['--proxy-mode', 'ipvs'], /Cannot run in mode ipvs/],
    [['--proxy-mode', 'fast'], /mode "fast": expected one of/],
    [['--masquerade-all=perhaps'], /--masquerade-all "perhaps": expected true or false/],
    [['--iptables-sync-period', '30'], /--iptables-sync-period "30": expected a duration/],
    [['--iptables-masquerade-bit', '-1'], /--iptables-masquerade-bit/],
    [['--iptables-masquerade-bit', '32'], /masqueradeBit 32/],
    [['--master', '10.0.0.1'], /--master "10\.0\.0\.1": expected a URL/],
    [['--cluster-cidr', 'x'], /clusterCIDR "x"/],
    [['--no-such-flag'], /Cannot understand the command line: unknown option/],
    [['word'], /Cannot understand the command line/],
    [['--config', '/nonexistent/file'], /Cannot read configuration \/nonexistent\/file/],
  ])('%j are refused', async (argv, message) => {
    await expect(read(argv)).rejects.toThrow(message);
  });
});

describe('with --config', () => {
  it('the file decides; what does not count is told', async () => {
    const { config, nodeName, warnings } = await read(
      ['--config', file, '--cluster-cidr', '10.1.0.0/16', '--kubeconfig', '/from/flag'],
      { NODE_NAME: 'from-env' },
    );
    expect(nodeName).toBe('from-file');
    expect(config.kubeconfig).toBe('/from/file');
    expect(config.clusterCIDRs.map(formatPrefix)).toEqual(['10.9.0.0/16']);
    expect(warnings).toHaveLength(2);
    expect(warnings[0]).toContain('unknown field surprise');
    expect(warnings[1]).toContain('clusterCidr');
  });

  it('--hostname-override beats the file', async () => {
    const { nodeName } = await read(['--config', file, '--hostname-override', 'flag']);
    expect(nodeName).toBe('flag');
  });
});

it('NODE_NAME beats the name of the host', async () => {
  expect((await read([], { NODE_NAME: 'env' })).nodeName).toBe('env');
});
