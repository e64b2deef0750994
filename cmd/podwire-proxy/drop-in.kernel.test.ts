/** What of kube-proxy people and tools meet besides its rules: endpoints, Events, live changes. */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Json } from '#pkg/embedded-api/json.ts';
import { systemClock } from '#pkg/clock/clock.ts';
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
const healthz = 'http://127.0.0.1:10256/healthz';
const status = 'http://127.0.0.1:10249';

/** As an editor or the kubelet does it: beside, then renamed. */
async function configure(more: string): Promise<void> {
  const text = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: { kubeconfig: ${node.kubeconfig} }
clusterCIDR: 10.1.0.0/16,fd00:10::/32
${more}`;
  await writeFile(`${node.configPath}.new`, text);
  await rename(`${node.configPath}.new`, node.configPath);
}

async function up(): Promise<Daemon> {
  const daemon = node.startDaemon();
  const code = (): Promise<number | string> =>
    node.ask(healthz).then(
      (a) => a.status,
      () => daemon.log(),
    );
  await expect.poll(code, slow).toBe(200);
  return daemon;
}

/** PUTs, which `ask` cannot. */
async function put(url: string, body: string): Promise<string> {
  const script = `const a = await fetch(process.argv[1], {method: 'PUT', body: process.argv[2]}); console.log(a.status, (await a.text()).trim())`;
  const args = ['--input-type=module', '-e', script, url, body];
  return (await node.network.node.exec(process.execPath, args)).stdout;
}

function eventsOf(kind: string): readonly (readonly unknown[])[] {
  const { items } = node.api.objects.list({ apiVersion: 'v1', kind: 'Event' });
  return items
    .map((event) => event as unknown as Record<string, unknown> & { involvedObject: object })
    .filter((event) => Reflect.get(event.involvedObject, 'kind') === kind)
    .map((event) => [Reflect.get(event.involvedObject, 'name'), event['reason'], event['count']]);
}

const periods = 'iptables: { syncPeriod: 1s, minSyncPeriod: 50ms }\n';

test('answers what kube-proxy answers, and tells of itself by an Event', async () => {
  await configure(`${periods}enableProfiling: true\noomScoreAdj: 321\n`);
  const service = (name: string, spec: Record<string, Json>): void => {
    const metadata = { namespace: 'default', name };
    node.api.objects.create({ apiVersion: 'v1', kind: 'Service', metadata, spec });
  };
  service('web', {
    type: 'LoadBalancer',
    ports: [{ port: 80, nodePort: 30080 }],
    clusterIP: '10.96.0.10',
  });
  node.api.objects.create({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      namespace: 'default',
      name: 'web-1',
      labels: { 'kubernetes.io/service-name': 'web' },
    },
    addressType: 'IPv4',
    ports: [{ name: '', port: 80, protocol: 'TCP' }],
    endpoints: [{ addresses: ['10.1.2.2'] }],
  });
  const daemon = await up();
  const configz = JSON.parse((await node.ask(`${status}/configz`)).body) as Record<string, object>;
  expect(configz['kubeproxy.config.k8s.io']).toMatchObject({
    Mode: 'iptables',
    SyncPeriod: '1s',
    EnableProfiling: true,
    HostnameOverride: nodeName,
    Linux: { OOMScoreAdj: 321 },
  });
  expect(JSON.parse((await node.ask(healthz)).body)).toMatchObject({
    lastUpdated: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
  });
  expect((await node.ask(`${status}/proxyMode`)).body).toBe('iptables');
  expect(await node.ask(`${status}/healthz`)).toEqual({ status: 200, body: 'ok' });
  expect((await node.ask(`${status}/healthz?verbose`)).body).toContain('healthz check passed');
  expect((await node.ask(`${status}/metrics/slis`)).body).toContain(
    'kubernetes_healthcheck{name="ping",type="healthz"} 1',
  );
  expect((await node.ask(`${status}/flagz`)).body).toContain(`\nhostname-override: ${nodeName}\n`);
  const { body: metrics } = await node.ask(`${status}/metrics`);
  expect(metrics).toMatch(/^rest_client_requests_total\{code="200",method="GET",host="127/m);
  expect(metrics).toMatch(/^kubeproxy_sync_proxy_rules_endpoint_changes_total [1-9]/m);
  expect(metrics).toMatch(/^kubernetes_build_info\{.*platform="linux\/.*\} 1$/m);

  expect(daemon.log()).not.toContain('"level":20');
  expect(await put(`${status}/debug/flags/v`, '4')).toBe(
    '200 successfully set klog.logging.verbosity to 4',
  );
  expect(await put(`${status}/debug/flags/v`, 'x')).toMatch(/^400 /);

  await expect.poll(() => eventsOf('Node'), slow).toEqual([[nodeName, 'Starting', 1]]);
  expect(await readFile(`/proc/${daemon.pid}/oom_score_adj`, 'utf8')).toBe('321\n');

  // A change with the time of its cause is measured.
  const now = new Date(systemClock.now()).toISOString();
  const key = 'endpoints.kubernetes.io/last-change-trigger-time';
  node.api.objects.patch(
    {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      namespace: 'default',
      name: 'web-1',
    },
    'merge',
    { metadata: { annotations: { [key]: now } }, endpoints: [{ addresses: ['10.1.3.2'] }] },
  );
  await expect.poll(() => daemon.log(), slow).toContain('"level":20');
  await expect
    .poll(async () => (await node.ask(`${status}/metrics`)).body, slow)
    .toMatch(/network_programming_duration_seconds_count\{ip_family="IPv4"\} 1$/m);
});

test('takes over a new configuration, keeps the old one when it is wrong, ends when it must', async () => {
  await configure(periods);
  const daemon = await up();
  expect(await node.save('ip')).not.toContain('-s 10.9.0.0/16');
  await configure(
    `${periods}logging: { verbosity: 2 }\nconntrack: { tcpCloseWaitTimeout: 77s }\nmetricsBindAddress: 127.0.0.1:10999\noomScoreAdj: 7\n`,
  );
  await expect.poll(() => daemon.log(), slow).toContain('Configuration changed');
  const changed = /"changed":(\[[^\]]*\])/.exec(daemon.log())?.[1] ?? '[]';
  expect(JSON.parse(changed)).toEqual([
    'conntrack.tcpCloseWaitTimeout',
    'logging.verbosity',
    'metricsBindAddress',
    'oomScoreAdj',
  ]);
  await expect
    .poll(() => node.ask('http://127.0.0.1:10999/proxyMode').catch(() => undefined), slow)
    .toEqual({ status: 200, body: 'iptables' });
  const former = (): Promise<boolean> =>
    node.ask(`${status}/proxyMode`).then(
      () => true,
      () => false,
    );
  await expect.poll(former, slow).toBe(false);
  const score = (): Promise<string> => readFile(`/proc/${daemon.pid}/oom_score_adj`, 'utf8');
  await expect.poll(score, slow).toBe('7\n');
  const args = ['-n', 'net.netfilter.nf_conntrack_tcp_timeout_close_wait'];
  const timeout = async (): Promise<string> =>
    (await node.network.node.exec('sysctl', args)).stdout;
  await expect.poll(timeout, slow).toBe('77');

  await configure('oomScoreAdj: 5000\n');
  await expect.poll(() => daemon.log(), slow).toContain('the old one stays');
  await expect
    .poll(() => daemon.log())
    .toContain('oomScoreAdj 5000: expected a number from -1000 to 1000');
  expect((await node.ask(healthz)).status).toBe(200);

  await configure(`${periods}iptables-mode: x\nmode: nftables\n`);
  expect(await daemon.exited).toBe(1);
  await expect.poll(() => daemon.log()).toContain('a change of mode needs a new start');
});

test('node ports follow addresses of the host, and rules follow the configuration, live', async () => {
  await configure(`${periods}nodePortAddresses: [198.51.100.0/24]\n`);
  const metadata = { namespace: 'default', name: 'web' };
  const spec = {
    type: 'NodePort',
    ports: [{ port: 80, nodePort: 30080 }],
    clusterIP: '10.96.0.10',
  };
  node.api.objects.create({ apiVersion: 'v1', kind: 'Service', metadata, spec });
  await up();
  const targets = async (): Promise<string[]> => {
    const rules = await node.save('ip');
    return [...rules.matchAll(/-A KUBE-SERVICES (?:-d (\S+) )?.*-j KUBE-NODEPORTS/g)].map(
      ([, to]) => to ?? 'all',
    );
  };
  expect(await targets()).toEqual([]);
  await node.network.node.ip('addr add 198.51.100.7/32 dev lo');
  await expect.poll(targets, slow).toEqual(['198.51.100.7/32']);
  await node.network.node.ip('addr del 198.51.100.7/32 dev lo');
  await expect.poll(targets, slow).toEqual([]);
  await configure(`${periods}nodePortAddresses: []\n`);
  await expect.poll(targets, slow).toEqual(['all']);
});

test('is unhealthy, with the reason, while it hears of no changes, but alive', async () => {
  await configure(periods);
  await up();
  node.api.faults.intercept(({ path }) =>
    path.includes('/services') ? { kind: 'cut' } : undefined,
  );
  node.api.faults.disconnectWatches();
  await expect.poll(() => node.ask(healthz).then((a) => a.status), slow).toBe(503);
  const { body } = await node.ask(healthz);
  expect(JSON.parse(body)).toMatchObject({
    healthy: false,
    reasons: expect.arrayContaining([
      expect.stringMatching(/^the watch of services is down since .*: \w+/),
    ]),
    status: { IPv4: { healthy: true }, IPv6: { healthy: true } },
  });
  expect((await node.ask('http://127.0.0.1:10256/livez')).status).toBe(200);
  node.api.faults.intercept(undefined);
  await expect.poll(() => node.ask(healthz).then((a) => a.status), slow).toBe(200);
});

test('--init-only sets what needs privileges and ends; a port that is taken can be fatal', async () => {
  await configure(`${periods}conntrack: { maxPerCore: 0, tcpCloseWaitTimeout: 55s }\n`);
  const run = (...flags: string[]): Promise<string> =>
    node.network.node
      .exec('sh', ['-c', '"$@" 2>&1; echo "exit $?"', 'sh', process.execPath, program, ...flags])
      .then(({ stdout }) => stdout);
  expect(await run('--init-only', '--config', node.configPath)).toMatch(/exit 0$/);
  const settings = [
    'net.netfilter.nf_conntrack_tcp_timeout_close_wait',
    'net.ipv4.conf.all.route_localnet',
  ];
  const { stdout } = await node.network.node.exec('sysctl', ['-n', ...settings]);
  expect(stdout).toBe('55\n1');
  expect(await node.save('ip')).not.toContain('KUBE-');

  await configure(
    `${periods}bindAddressHardFail: true\nmetricsBindAddress: 127.0.0.1:6443\nhealthzBindAddress: ""\n`,
  );
  const log = await run('--config', node.configPath, '--hostname-override', nodeName);
  expect(log).toContain('Cannot listen on 127.0.0.1:6443');
  expect(log).toMatch(/exit 1$/);
});
