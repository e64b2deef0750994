import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { completeProxyConfig } from '#pkg/config/proxy-config-defaults.ts';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { flags, type Draft } from './flags.ts';
import { readOptions, type Answered, type ProxyOptions } from './options.ts';

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
logging: { verbosity: 1 }
surprise: 1
`,
  );
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function answer(
  argv: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<ProxyOptions | Answered> {
  const here = { env, hostname: 'The-Host', version: '9.9.9', program: 'kube-proxy' };
  return await readOptions(argv, here);
}

async function read(
  argv: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<ProxyOptions> {
  const options = await answer(argv, env);
  if ('kind' in options) throw new Error('expected options');
  return options;
}

/** What each flag does to a file that says nothing. */
const effects: Readonly<Record<string, readonly [value: string, change: object]>> = {
  'bind-address': ['192.0.2.1', { bindAddress: '192.0.2.1' }],
  'bind-address-hard-fail': ['', { bindAddressHardFail: true }],
  'cluster-cidr': ['10.0.0.0/8', { clusterCIDR: '10.0.0.0/8' }],
  'config-sync-period': ['1m', { configSyncPeriod: 60_000 }],
  'conntrack-max-per-core': ['5', { conntrack: { maxPerCore: 5 } }],
  'conntrack-min': ['6', { conntrack: { min: 6 } }],
  'conntrack-tcp-be-liberal': ['', { conntrack: { tcpBeLiberal: true } }],
  'conntrack-tcp-timeout-close-wait': ['1s', { conntrack: { tcpCloseWaitTimeout: 1_000 } }],
  'conntrack-tcp-timeout-established': ['2s', { conntrack: { tcpEstablishedTimeout: 2_000 } }],
  'conntrack-udp-timeout': ['3s', { conntrack: { udpTimeout: 3_000 } }],
  'conntrack-udp-timeout-stream': ['4s', { conntrack: { udpStreamTimeout: 4_000 } }],
  'detect-local-mode': ['NodeCIDR', { detectLocalMode: 'NodeCIDR' }],
  'feature-gates': ['A=true,B=0', { featureGates: { A: true, B: false } }],
  'healthz-bind-address': ['127.0.0.1', { healthzBindAddress: '127.0.0.1:10256' }],
  'healthz-port': ['0', { healthzBindAddress: '0.0.0.0:0' }],
  'hostname-override': ['Node', { hostnameOverride: 'node' }],
  'iptables-localhost-nodeports': ['false', { iptables: { localhostNodePorts: false } }],
  'iptables-masquerade-bit': [
    '7',
    { iptables: { masqueradeBit: 7 }, nftables: { masqueradeBit: 7 } },
  ],
  'iptables-min-sync-period': [
    '0',
    { iptables: { minSyncPeriod: 0 }, nftables: { minSyncPeriod: 0 } },
  ],
  'iptables-sync-period': [
    '1m',
    { iptables: { syncPeriod: 60_000 }, nftables: { syncPeriod: 60_000 } },
  ],
  'ipvs-exclude-cidrs': [
    '1.0.0.0/8,2.0.0.0/8',
    { ipvs: { excludeCIDRs: ['1.0.0.0/8', '2.0.0.0/8'] } },
  ],
  'ipvs-min-sync-period': ['1s', { ipvs: { minSyncPeriod: 1_000 } }],
  'ipvs-scheduler': ['lc', { ipvs: { scheduler: 'lc' } }],
  'ipvs-strict-arp': ['', { ipvs: { strictARP: true } }],
  'ipvs-sync-period': ['1m', { ipvs: { syncPeriod: 60_000 } }],
  'ipvs-tcp-timeout': ['1s', { ipvs: { tcpTimeout: 1_000 } }],
  'ipvs-tcpfin-timeout': ['2s', { ipvs: { tcpFinTimeout: 2_000 } }],
  'ipvs-udp-timeout': ['3s', { ipvs: { udpTimeout: 3_000 } }],
  'kube-api-burst': ['20', { clientConnection: { burst: 20 } }],
  'kube-api-content-type': [
    'application/json',
    { clientConnection: { contentType: 'application/json' } },
  ],
  'kube-api-qps': ['7.5', { clientConnection: { qps: 7.5 } }],
  'log-flush-frequency': ['1s', { logging: { flushFrequency: 1_000 } }],
  'log-json-info-buffer-size': ['1M', { logging: { options: { json: { infoBufferSize: '1M' } } } }],
  'log-json-split-stream': ['', { logging: { options: { json: { splitStream: true } } } }],
  'log-text-info-buffer-size': ['1M', { logging: { options: { text: { infoBufferSize: '1M' } } } }],
  'log-text-split-stream': ['', { logging: { options: { text: { splitStream: true } } } }],
  'logging-format': ['json', { logging: { format: 'json' } }],
  'masquerade-all': ['', { iptables: { masqueradeAll: true }, nftables: { masqueradeAll: true } }],
  'metrics-bind-address': ['', { metricsBindAddress: '0.0.0.0:0' }],
  'metrics-port': ['0', { metricsBindAddress: '0.0.0.0:0' }],
  'nodeport-addresses': ['primary', { nodePortAddresses: ['primary'] }],
  'oom-score-adj': ['-5', { oomScoreAdj: -5 }],
  'pod-bridge-interface': ['cni0', { detectLocal: { bridgeInterface: 'cni0' } }],
  'pod-interface-name-prefix': ['veth', { detectLocal: { interfaceNamePrefix: 'veth' } }],
  'proxy-mode': ['ipvs', { mode: 'ipvs' }],
  'show-hidden-metrics-for-version': ['1.35', { showHiddenMetricsForVersion: '1.35' }],
  kubeconfig: ['/k', { clientConnection: { kubeconfig: '/k' } }],
  profiling: ['', { enableProfiling: true }],
  v: ['3', { logging: { verbosity: 3 } }],
  vmodule: ['a=2', { logging: { vmodule: [{ filePattern: 'a', verbosity: 2 }] } }],
};
/** Read before there is a configuration. */
const noEffect = [
  'apiserver',
  'boot-id-file',
  'cleanup',
  'config',
  'help',
  'init-only',
  'machine-id-file',
  'master',
  'strict-mode',
  'version',
  'write-config-to',
];

describe('flags', () => {
  it('none are needed: the host is the Node, the cluster is the one we are in', async () => {
    const { action, config, nodeName, warnings } = await read([]);
    expect(nodeName).toBe('the-host');
    expect(config.kubeconfig).toBeUndefined();
    expect(config.mode).toBe('iptables');
    expect(action).toEqual({ kind: 'run' });
    expect(warnings).toEqual([]);
  });

  it("are kube-proxy's, and each has its row here", () => {
    const names = flags.map(({ name }) => name).toSorted();
    expect(names).toEqual([...Object.keys(effects), ...noEffect].toSorted());
  });

  it.each(Object.entries(effects))('--%s sets its fields and no other', async (name, row) => {
    const [value, change] = row;
    const flag = flags.find((f) => f.name === name);
    const dashes = flag?.shorthand === name ? '-' : '--';
    const text = flag?.isBoolean === true && value === '' ? '' : `=${value}`;
    const { file: read1 } = await read([`${dashes}${name}${text}`]);
    const defaults = structuredClone(completeProxyConfig({})) as Draft;
    expect(read1).toEqual(merged(defaults, change));
  });

  it.each([[['-v=4']], [['-v', '4']], [['-v4']], [['--v=4']], [['--v', '4']], [['-v=1', '-v=4']]])(
    '%j is verbosity 4',
    async (argv) => {
      expect((await read(argv)).config.verbosity).toBe(4);
    },
  );

  it.each([
    [['--masquerade-all'], true],
    [['--masquerade-all=true'], true],
    [['--masquerade-all=T'], true],
    [['--masquerade-all=0'], false],
    [['--masquerade-all', '--masquerade-all=false'], false],
    [['--masquerade_all'], true],
  ])('%j: masqueradeAll is %s', async (argv, expected) => {
    expect((await read(argv)).config.iptables.masqueradeAll).toBe(expected);
  });

  it('lists add up, also over several flags', async () => {
    const argv = ['--nodeport-addresses=1.0.0.0/8,2.0.0.0/8', '--nodeport-addresses', 'fd00::/8'];
    const { nodePortAddresses } = (await read(argv)).config;
    expect(nodePortAddresses === 'primary' ? [] : nodePortAddresses.map(formatPrefix)).toEqual([
      '1.0.0.0/8',
      '2.0.0.0/8',
      'fd00::/8',
    ]);
  });

  it('a port of its own completes an address that has none, and 0 turns a server off', async () => {
    const { config } = await read([
      '--healthz-port=99',
      '--healthz-bind-address=127.0.0.1',
      '--metrics-port=0',
      '--metrics-bind-address=127.0.0.1:1',
    ]);
    expect(config.healthzBindAddress).toEqual({ host: '127.0.0.1', port: 10256 });
    expect(config.metricsBindAddress).toBeUndefined();
  });

  it.each([
    [['--write-config-to=/w', '--cleanup'], { kind: 'write-config', path: '/w' }],
    [['--cleanup', '--init-only'], { kind: 'cleanup' }],
    [['--cleanup=true'], { kind: 'cleanup' }],
    [['--init-only', '--cleanup=false'], { kind: 'init-only' }],
    [['--cleanup', '--proxy-mode=nftables'], { kind: 'cleanup' }],
  ])('%j: the action is %j', async (argv, action) => {
    expect((await read(argv)).action).toEqual(action);
  });

  it('--version and --help answer', async () => {
    expect(await answer(['--version'])).toEqual({ kind: 'answered', text: '9.9.9\n' });
    const help = await answer(['-h']);
    expect(help).toMatchObject({ kind: 'answered' });
    for (const { name } of flags) expect('text' in help ? help.text : '').toContain(`-${name}`);
  });

  it('gates that are not known here are told, and stop nothing', async () => {
    const { warnings } = await read([
      '--feature-gates=NewThing=true,NFTablesProxyMode=false,AllowServiceExternalIPs=false',
    ]);
    expect(warnings).toEqual([
      'feature gate NewThing is not known here and has no effect',
      'feature gate NFTablesProxyMode=false has no effect here',
    ]);
  });

  it.each([
    [['--proxy-mode', 'fast'], /mode "fast": expected one of/],
    [['--masquerade-all=perhaps'], /--masquerade-all "perhaps": expected true or false/],
    [['--iptables-sync-period', '30'], /--iptables-sync-period "30": expected a duration/],
    [['--iptables-masquerade-bit', '-1'], /masqueradeBit -1/],
    [['--iptables-masquerade-bit', 'x'], /--iptables-masquerade-bit "x": expected a number/],
    [['--iptables-masquerade-bit', '32'], /masqueradeBit 32/],
    [['--kube-api-qps', 'many'], /--kube-api-qps "many": expected a number/],
    [['--feature-gates', 'A'], /--feature-gates "A": expected name=true/],
    [['--vmodule', 'a'], /--vmodule "a": expected pattern=number/],
    [['--master', '10.0.0.1'], /--master "10\.0\.0\.1": expected a URL/],
    [['--hostname-override', ' '], /--hostname-override " ": expected the name of a Node/],
    [['--cluster-cidr', 'x'], /clusterCIDR "x"/],
    [['--proxy-mod=ipvs'], /unknown flag --proxy-mod, did you mean --proxy-mode/],
    [['-x'], /Cannot understand the command line: unknown flag -x$/],
    [['--surprise'], /Cannot understand the command line: unknown flag --surprise$/],
    [['word'], /Cannot understand the command line: unexpected word "word"/],
    [['--masquerade-all', 'false'], /unexpected word "false"/],
    [['--config'], /flag --config needs a value/],
    [['--config', '/nonexistent/file'], /Cannot read configuration \/nonexistent\/file/],
  ])('%j are refused', async (argv, message) => {
    await expect(read(argv)).rejects.toThrow(message);
  });
});

describe('with --config', () => {
  it('the file decides; what does not count is told', async () => {
    const argv = ['--config', file, '--cluster-cidr', '10.1.0.0/16', '--kubeconfig', '/from/flag'];
    const { config, configPath, nodeName, warnings } = await read(argv, { NODE_NAME: 'from-env' });
    expect(nodeName).toBe('from-file');
    expect(configPath).toBe(file);
    expect(config.kubeconfig).toBe('/from/file');
    expect(config.clusterCIDRs.map(formatPrefix)).toEqual(['10.9.0.0/16']);
    expect(warnings).toEqual([
      `${file}: unknown field surprise`,
      'flag --cluster-cidr does not count beside --config',
      'flag --kubeconfig does not count beside --config',
    ]);
  });

  it('--hostname-override, --master and the flags of logging beat the file', async () => {
    const argv = ['--config', file, '--hostname-override', ' Flag ', '--master=https://a', '-v=5'];
    const { config, nodeName } = await read(argv);
    expect(nodeName).toBe('flag');
    expect(config).toMatchObject({ master: 'https://a', verbosity: 5 });
  });
});

it('NODE_NAME beats the name of the host', async () => {
  expect((await read([], { NODE_NAME: 'env' })).nodeName).toBe('env');
});

function merged<T extends object>(into: T, change: object): T {
  for (const [key, value] of Object.entries(change)) {
    const old: unknown = Reflect.get(into, key);
    const nested = typeof value === 'object' && value !== null && !Array.isArray(value);
    Reflect.set(into, key, nested ? merged({ ...(old as object) }, value as object) : value);
  }
  return into;
}
