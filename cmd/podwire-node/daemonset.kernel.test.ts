/** deploy/podwire-node to the letter: command, configuration, mounts, probes and rights. */
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseNodeConfig } from '#pkg/config/node-config.ts';
import { invalid } from '#pkg/embedded-api/api-error.ts';
import type { PolicyRule } from '#pkg/embedded-api/http/authentication.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { buildExecutable } from '#cmd/podwire-cni/scratch-node.ts';
import {
  ask,
  manifest,
  startApiFor,
  startContainer,
  type DaemonSet,
} from '#cmd/scratch/deployment.ts';
import { setInternalIPs } from './scratch/cluster.ts';
import { buildDaemon } from './scratch/daemon.ts';

const name = 'node-one';
const listOptions = { group: 'meta.k8s.io', kind: 'ListOptions', plural: 'listoptions' };
const noStreams = invalid(listOptions, '', [
  { field: 'sendInitialEvents', message: 'Forbidden', reason: 'FieldValueForbidden' },
]);
const announced = {
  'podwire.dev/backend-type': 'vxlan',
  'podwire.dev/backend-data': '{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}',
  'podwire.dev/public-ip': '192.168.1.2',
};
const slow = { timeout: 20_000, interval: 50 };
const bin = new URL('../../dist', import.meta.url).pathname;

let node: ScratchNetns;
let dir: string;
beforeEach(async () => {
  buildExecutable();
  await buildDaemon();
  node = await createScratchNetns('daemonset');
  await node.ip('link add eth0 type veth peer name peer');
  await node.ip('link set eth0 up');
  await node.ip('link set peer up');
  await node.ip('addr add 192.168.1.1/24 dev eth0');
  dir = await mkdtemp(join(tmpdir(), 'podwire-daemonset-'));
});
afterEach(async () => {
  await node[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

test('the DaemonSet works as it is, uses all of its rights, and goes as the README says', async () => {
  const { rules } = await manifest<{ rules: PolicyRule[] }>(
    'podwire-node/rbac.yaml',
    'ClusterRole',
  );
  const { data } = await manifest<{ data: Record<string, string> }>(
    'podwire-node/configmap.yaml',
    'ConfigMap',
  );
  const daemonSet = await manifest<DaemonSet>('podwire-node/daemonset.yaml', 'DaemonSet');
  const pod = daemonSet.spec.template.spec;
  const { api, ca } = await startApiFor(node, { name: 'podwire-node', rules });
  await using _ = api;
  const used = new Set<string>();
  api.faults.intercept(({ method, path, query }) => {
    // As a server before Kubernetes 1.32 that does not stream lists: then one is asked for.
    if (query.has('sendInitialEvents')) return { kind: 'refuse', error: noStreams };
    used.add(verbOf(method, path, query.has('watch')));
    return undefined;
  });
  for (const [n, of] of [name, 'neighbour'].entries()) {
    api.objects.create({
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name: of, annotations: n === 0 ? {} : announced },
      spec: { podCIDRs: [`10.244.${n + 1}.0/24`] },
    });
    setInternalIPs(api, of, [`192.168.1.${n + 1}`]);
  }
  const { child, log } = await startContainer(node, pod, { dir, bin, ca, data, nodeName: name });
  try {
    const [{ livenessProbe, readinessProbe }] = pod.containers;
    const answers = async (): Promise<readonly string[]> => {
      const urls = [livenessProbe, readinessProbe].map((probe) => {
        const { host, path, port } = probe?.httpGet ?? { host: '', path: '', port: 0 };
        return `http://${host}:${port}${path}`;
      });
      return await Promise.all(urls.map((url) => ask(node, url))).catch(() => [log()]);
    };
    await expect.poll(answers, slow).toEqual(['200 ok\n', '200 ok\n']);
    const host = (path: string): string => join(dir, 'host', path);
    const conflist = await readFile(host('etc/cni/net.d/10-podwire.conflist'), 'utf8');
    expect(conflist).toContain('"type": "podwire"');
    expect(await readFile(host('run/podwire/node.json'), 'utf8')).toContain('10.244.1.0/24');
    expect(await readdir(host('run/podwire'))).toContain('cni.sock');
    expect(await readdir(host('opt/cni/bin'))).toContain('podwire');
    expect(await node.ip('-br link show podwire.1')).toContain('podwire.1');
    const condition = { type: 'NetworkUnavailable', status: 'False' };
    await expect
      .poll(() => api.objects.get({ apiVersion: 'v1', kind: 'Node', name }), slow)
      .toMatchObject({
        status: { conditions: expect.arrayContaining([expect.objectContaining(condition)]) },
      });
    expect([...used].toSorted()).toEqual(granted(rules));
    expect(log()).not.toContain('"level":50');
    child.kill('SIGTERM');
    expect((await child).exitCode).toBe(0);
    expect(await leftOver()).toMatch(/podwire\.1.*proto 220.*podwire-masquerade.*PODWIRE-FORWARD/s);
    await node.exec('sh', ['-c', `${await removalByReadme()}\ntrue`]);
    expect(await leftOver()).toBe('');
  } finally {
    child.kill('SIGKILL');
    await child;
  }
});

test("every folder that the daemon or its plugin writes is the host's, under one name", async () => {
  const { data } = await manifest<{ data: Record<string, string> }>(
    'podwire-node/configmap.yaml',
    'ConfigMap',
  );
  const daemonSet = await manifest<DaemonSet>('podwire-node/daemonset.yaml', 'DaemonSet');
  const { containers, volumes } = daemonSet.spec.template.spec;
  const shared = containers[0].volumeMounts.flatMap(({ name: volumeName, mountPath }) => {
    const path = volumes.find((volume) => volume.name === volumeName)?.hostPath?.path;
    return path === mountPath ? [path] : [];
  });
  const config = parseNodeConfig(data['node.yaml'] ?? '', 'configmap.yaml');
  const { cniBinDir, cniConfDir, runDir, stateDir } = config;
  for (const folder of [cniBinDir, cniConfDir, runDir, stateDir]) expect(shared).toContain(folder);
});

/** What of the daemon's the kernel has. */
async function leftOver(): Promise<string> {
  const list = 'ip -br link; ip -N route; ip -N -6 route; nft list tables; iptables-save';
  const { stdout } = await node.exec('sh', ['-ec', list]);
  return stdout
    .split('\n')
    .filter((line) => /podwire|proto 220/i.test(line))
    .join('\n');
}

/** The README's lines, but for the last, which is of files; where there is no IPv6, some fail. */
async function removalByReadme(): Promise<string> {
  const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
  const [, lines = ''] =
    /What the daemon made stays[^]*?```sh\n([^]*?)\npodwire uninstall/.exec(readme) ?? [];
  expect(lines).toContain('ip link del');
  return lines;
}

/** "patch nodes/status", as RBAC names what a request does. */
function verbOf(method: string, path: string, isWatch: boolean): string {
  const [, resource = path, objectName, subresource] =
    /^\/api\/v1\/([^/]+)(?:\/([^/]+))?(?:\/([^/]+))?$/.exec(path) ?? [];
  const reads = isWatch ? 'watch' : objectName === undefined ? 'list' : 'get';
  const verb = method === 'GET' ? reads : method.toLowerCase();
  return `${verb} ${resource}${subresource === undefined ? '' : `/${subresource}`}`;
}

function granted(rules: readonly PolicyRule[]): readonly string[] {
  return rules
    .flatMap(({ resources = [], verbs }) => resources.flatMap((r) => verbs.map((v) => `${v} ${r}`)))
    .toSorted();
}
