/**
 * Another mode by configuration and a new start, under traffic. In the VM, since it needs a kernel
 * with all of them. The proxy runs inside this process, which lives in the node's namespace: a start
 * of its program takes seconds there.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { ProxyMode } from '#pkg/config/proxy-config.ts';
import { startEmbeddedApi } from '#pkg/embedded-api/embedded-api.ts';
import { kubeconfigFor } from '#pkg/embedded-api/kubeconfig-for.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { openNetns, openOwnNetns } from '#pkg/netns/netns.ts';
import { helloOverSctp } from '#pkg/proxy/testdata/sctp.ts';
import { createSmallCluster, type SmallCluster } from '#pkg/proxy/testdata/small-cluster.ts';
import { CLONE_NEWNET } from '#pkg/sys/constants.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { readSysctl, writeSysctl } from '#pkg/sysctl/sysctl.ts';
import { readOptions } from './options.ts';
import { found, modesIn, out, type Found } from './scratch/kernel-finds.ts';
import { runProxy } from './wire.ts';

const node = 'node-one';
const vips = ['10.96.0.10', 'fd00:96::10'] as const;
/** Nobody's else on the endpoint. */
const sctpPort = 7000;
/** Each question costs the machine as much as a moment of the proxy's own work. */
const slow = { timeout: 200_000, interval: 1_000 };
/** Of a whole switch; on a busy machine with an emulated processor. */
const patienceMs = 600_000;
const stack = new AsyncDisposableStack();
let small: SmallCluster;
let configPath: string;
let kubeconfig: string;
let running: AsyncDisposable | undefined;
let log: string[] = [];

beforeAll(async () => {
  const dir = await mkdtemp(join(tmpdir(), 'podwire-modes-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  configPath = join(dir, 'config.conf');
  kubeconfig = join(dir, 'kubeconfig');
  small = stack.use(await createSmallCluster());
  // Threads of the pool have started by now: they stay where they are, and open no sockets.
  const sys = await openSys();
  const home = stack.use(openOwnNetns());
  const there = stack.use(openNetns(small.node.path));
  sys.setns(there.fd, CLONE_NEWNET);
  stack.defer(() => sys.setns(home.fd, CLONE_NEWNET));
  const api = stack.use(await startEmbeddedApi({ listen: [{ host: '127.0.0.1', port: 6443 }] }));
  await writeFile(kubeconfig, kubeconfigFor({ server: 'http://127.0.0.1:6443' }));
  api.objects.create({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: node },
    // Mode nftables serves node ports on it.
    status: { addresses: [{ type: 'InternalIP', address: '203.0.113.1' }] },
  });
  api.objects.create({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'node-two' },
    status: { addresses: [{ type: 'InternalIP', address: '203.0.113.2' }] },
  });
  const ports = [
    { name: 'http', port: 80, targetPort: 8080, nodePort: 30080 },
    { name: 'echo', port: 81, targetPort: 8081, nodePort: 30081 },
    { name: 'udp', protocol: 'UDP', port: 80, targetPort: 8080, nodePort: 30080 },
    { name: 'sctp', protocol: 'SCTP', port: 80, targetPort: sctpPort, nodePort: 30080 },
  ];
  for (const [name, n] of [
    ['web', 10],
    ['none', 11],
  ] as const) {
    const clusterIPs = [`10.96.0.${n}`, `fd00:96::${n}`];
    api.objects.create({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { namespace: 'default', name },
      spec: {
        type: name === 'web' ? 'NodePort' : 'ClusterIP',
        clusterIP: clusterIPs[0] ?? '',
        clusterIPs,
        ipFamilies: ['IPv4', 'IPv6'],
        ipFamilyPolicy: 'RequireDualStack',
        ports: name === 'web' ? ports : [{ name: 'http', port: 80, targetPort: 8080 }],
        // Of node two, and of nobody.
        externalIPs: name === 'web' ? [] : ['203.0.113.2', '203.0.113.99'],
      },
    });
  }
  for (const [addressType, address] of [
    ['IPv4', '10.1.2.2'],
    ['IPv6', 'fd00:10:2::2'],
  ] as const) {
    api.objects.create({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        namespace: 'default',
        name: `web-${addressType.toLowerCase()}`,
        labels: { 'kubernetes.io/service-name': 'web' },
      },
      addressType,
      ports: ports.map(({ name, protocol = 'TCP', targetPort: port }) => ({
        name,
        protocol,
        port,
      })),
      endpoints: [{ addresses: [address], conditions: { ready: true }, nodeName: node }],
    });
  }
});
afterAll(async () => {
  await running?.[Symbol.asyncDispose]();
  await stack.disposeAsync();
});

/** Ends the proxy that runs, writes the configuration, and starts one that reads it. */
async function restartAs(mode: ProxyMode): Promise<void> {
  await running?.[Symbol.asyncDispose]();
  log = [];
  await writeFile(
    configPath,
    `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: { kubeconfig: ${kubeconfig} }
clusterCIDR: 10.1.0.0/16,fd00:10::/32
mode: ${mode}
ipvs: { scheduler: sh, schedulerFlags: [sh-port], strictARP: true, tcpTimeout: 800s, udpTimeout: 250s }
`,
  );
  const argv = ['--config', configPath, '--hostname-override', node, '--strict-mode'];
  const program = 'podwire-proxy';
  const options = await readOptions(argv, { env: {}, hostname: node, version: '0', program });
  if ('kind' in options) throw new Error('no options');
  const stop = new AbortController();
  const note = (fields: object, message: string): void => {
    log.push(`${message} ${JSON.stringify(fields)}`);
  };
  const collected: Logger = { debug: note, info: note, warn: note, error: note };
  const context = {
    env: {},
    version: '0',
    program,
    log: collected,
    setVerbosity: () => undefined,
    reread: async () => options,
  };
  const over = runProxy(options, context, stop.signal).catch((error: unknown) => {
    if (!stop.signal.aborted) log.push(`FAILED ${String(error)}`);
  });
  running = {
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      await over;
    },
  };
  await said('Rules written');
  await expect.poll(() => answer('http://127.0.0.1:10249/proxyMode'), slow).toBe(mode);
  await expect.poll(() => answer('http://127.0.0.1:10256/healthz'), slow).toContain('lastUpdated');
  expect(log.join('\n')).not.toContain('FAILED');
}

/** Waits for a line of the proxy's log that begins so. */
async function said(beginning: string): Promise<void> {
  const deadlineMs = performance.now() + slow.timeout;
  while (!log.some((line) => line.startsWith(beginning))) {
    if (performance.now() > deadlineMs) {
      throw new Error(`It did not say "${beginning}", but:\n${log.join('\n')}`);
    }
    await setTimeout(50);
  }
}

async function answer(url: string): Promise<string> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(5_000) });
    return response.ok ? await response.text() : `${response.status} ${log.join('\n')}`;
  } catch (error) {
    return `${String(error)} ${log.join('\n')}`;
  }
}

async function served(): Promise<void> {
  const ask = { port: 80, timeoutMs: 5_000 };
  const { client, outside } = small;
  for (const [i, host] of vips.entries()) {
    const from = i === 0 ? '10.1.1.2' : 'fd00:10:1::2';
    expect(await small.connect(client, { ...ask, host })).toEqual([`one ${from}`]);
    expect(await small.connect(client, { ...ask, host, protocol: 'udp' })).toEqual([`one ${from}`]);
    const sctp = {
      server: small.servers[0],
      serverPort: sctpPort,
      client,
      address: host,
      port: 80,
    };
    expect(await helloOverSctp(sctp)).toBe('hello');
  }
  const none = await small.connect(client, { ...ask, host: '10.96.0.11' });
  expect(none).toEqual(['ECONNREFUSED']);
  const nodePort = { ...ask, host: '203.0.113.1', port: 30080 };
  expect(await small.connect(outside, nodePort)).toEqual(['one 10.1.2.1']);
}

/** What each mode was found to leave in the kernel when it was alone. */
const alone = new Map<ProxyMode, Found>();

/** Waits until nothing but the mode's own is there, the very same each time. */
async function onlyOf(mode: ProxyMode): Promise<void> {
  await said('Looked for leftovers of other');
  const now = await found();
  expect(modesIn(now)).toEqual([mode]);
  expect(now).toEqual(alone.get(mode) ?? now);
  alone.set(mode, now);
}

it(
  'starts with mode ipvs',
  async () => {
    // The mode itself makes the node forward.
    writeSysctl('net/ipv4/ip_forward', '0');
    await restartAs('ipvs');
    await served();
    await onlyOf('ipvs');
  },
  patienceMs,
);

it('mode ipvs has the settings that its configuration asks for', async () => {
  const settings = {
    'net/ipv4/vs/conntrack': '1',
    // Linux 6.1 needs no other.
    'net/ipv4/vs/conn_reuse_mode': '1',
    'net/ipv4/vs/expire_nodest_conn': '1',
    'net/ipv4/vs/expire_quiescent_template': '1',
    'net/ipv4/ip_forward': '1',
    'net/ipv4/conf/all/arp_ignore': '1',
    'net/ipv4/conf/all/arp_announce': '2',
  };
  const set = Object.keys(settings).map((path) => [path, readSysctl(path)]);
  expect(Object.fromEntries(set)).toEqual(settings);
  // What is 0 in the configuration is as the kernel has it.
  expect(await out('ipvsadm', '-L', '--timeout')).toContain(
    'Timeout (tcp tcpfin udp): 800 120 250',
  );
  expect(await out('ipvsadm', '-S', '-n')).toContain('-A -t 10.96.0.10:80 -s sh -b sh-port\n');
});

it("mode ipvs leaves a Service's address to the node whose it is", async () => {
  const addresses = await out('ip', '-o', 'addr', 'show', 'dev', 'kube-ipvs0');
  expect(addresses).toContain('203.0.113.99/32');
  expect(addresses).not.toContain('203.0.113.2/32');
});

/** One walk. */
const switches: readonly (readonly [from: ProxyMode, to: ProxyMode])[] = [
  ['ipvs', 'iptables'],
  ['iptables', 'ipvs'],
  ['ipvs', 'nftables'],
  ['nftables', 'iptables'],
  ['iptables', 'nftables'],
  ['nftables', 'ipvs'],
];

it.each(switches)(
  'from %s to %s connections go on, new ones are served by the new mode, nothing of the old one is left',
  async (from, to) => {
    const client = small.agent(small.client);
    for (const host of vips) {
      const opened = await client.openStream(host, { host, port: 81 });
      expect(opened.error).toBeUndefined();
    }
    await restartAs(to);
    await served();
    if (from === 'ipvs') {
      await said('What mode ipvs left stays until');
    }
    for (const host of vips) {
      const { answered, error } = await client.closeStream(host, 15_000);
      expect({ host, error, some: answered > 0 }).toEqual({ host, error: undefined, some: true });
    }
    await onlyOf(to);
  },
  patienceMs,
);

it('the guard of 127.0.0.0/8 stays while the node routes there', async () => {
  expect(readSysctl('net/ipv4/conf/all/route_localnet')).toBe('1');
  const rules = await out('iptables-nft-save', '-t', 'filter');
  for (const chain of ['INPUT', 'OUTPUT'])
    expect(rules).toContain(`-A ${chain} -j KUBE-FIREWALL\n`);
  expect(rules).toMatch(/^-A KUBE-FIREWALL ! -s 127\.0\.0\.0\/8 -d 127\.0\.0\.0\/8 .*-j DROP$/m);
});
