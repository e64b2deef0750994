/** kubeadm's DaemonSet and ConfigMap, to the letter, with this program under kube-proxy's name. */
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { startEmbeddedApi, type EmbeddedApi } from '#pkg/embedded-api/embedded-api.ts';
import type { PolicyRule } from '#pkg/embedded-api/http/authentication.ts';
import { createAuthority } from '#pkg/kube/testing/certificates.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { bundle } from '#hack/bundle.ts';
import { boundSocket, nodeName } from './scratch/proxied-node.ts';

/** ClusterRole system:node-proxier of Kubernetes 1.36. */
const nodeProxier: readonly PolicyRule[] = [
  { apiGroups: [''], resources: ['services', 'endpoints'], verbs: ['list', 'watch'] },
  { apiGroups: [''], resources: ['nodes'], verbs: ['get', 'list', 'watch'] },
  {
    apiGroups: ['', 'events.k8s.io'],
    resources: ['events'],
    verbs: ['create', 'patch', 'update'],
  },
  { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list', 'watch'] },
  { apiGroups: ['networking.k8s.io'], resources: ['servicecidrs'], verbs: ['list', 'watch'] },
];

const folder = new URL('../../deploy/kube-proxy/', import.meta.url);
const slow = { timeout: 60_000, interval: 50 };

let node: ScratchNetns;
let dir: string;
beforeEach(async () => {
  node = await createScratchNetns('kubeadm');
  dir = await mkdtemp(join(tmpdir(), 'podwire-kubeadm-'));
});
afterEach(async () => {
  await node[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

async function manifest<T>(file: string, kind: string): Promise<T> {
  const documents = parseAllDocuments(await readFile(new URL(file, folder), 'utf8'));
  const objects = ('empty' in documents ? [] : documents).map((d) => d.toJS() as { kind: string });
  return objects.find((object) => object.kind === kind) as T;
}

async function startApi(): Promise<{ readonly api: EmbeddedApi; readonly ca: string }> {
  const authority = createAuthority();
  if (typeof authority === 'string') throw new Error(authority);
  const sys = await openSys();
  const fd = withNetns(
    sys,
    node.path,
    () => boundSocket(sys),
    (error) => {
      throw error;
    },
  );
  const token = { token: 'the-token', user: 'system:serviceaccount:kube-system:kube-proxy' };
  const api = await startEmbeddedApi({
    listen: [{ fd }],
    tls: authority.issue('127.0.0.1'),
    serviceCIDRs: ['10.96.0.0/12'],
    tokens: [{ ...token, rules: nodeProxier }],
  });
  return { api, ca: authority.ca };
}

test('a DaemonSet of kubeadm works as it is, with the rights it has', async () => {
  const { api, ca } = await startApi();
  await using _ = api;
  api.objects.create({ apiVersion: 'v1', kind: 'Node', metadata: { name: nodeName } });
  api.objects.create({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'default', name: 'web' },
    spec: { type: 'ClusterIP', ports: [{ name: 'http', port: 80 }] },
  });
  const { data } = await manifest<{ data: Record<string, string> }>('configmap.yaml', 'ConfigMap');
  const daemonSet = await manifest<{
    spec: { template: { spec: { containers: [{ command: string[] }] } } };
  }>('daemonset.yaml', 'DaemonSet');
  const { command } = daemonSet.spec.template.spec.containers[0];

  // What the kubelet lays out, at the very paths of the manifests.
  await mkdir(join(dir, 'config'));
  await mkdir(join(dir, 'account'));
  await mkdir(join(dir, 'bin'));
  for (const [name, text] of Object.entries(data)) await writeFile(join(dir, 'config', name), text);
  await writeFile(join(dir, 'account', 'ca.crt'), ca);
  await writeFile(join(dir, 'account', 'token'), 'the-token');
  await bundle('cmd/podwire-proxy/main.ts', join(dir, 'bin', 'kube-proxy'), '1.2.3');
  await chmod(join(dir, 'bin', 'kube-proxy'), 0o755);
  const container = `set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/kube-proxy
mount --bind "$0/config" /var/lib/kube-proxy
mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount
mount --bind "$0/account" /var/run/secrets/kubernetes.io/serviceaccount
mount --bind "$0/bin" /usr/local/bin
exec "$@"`;
  const argv = command.map((word) => word.replace('$(NODE_NAME)', nodeName));
  const words = ['netns', 'exec', node.name, 'unshare', '-m', 'sh', '-c', container, dir, ...argv];
  const child = execa('ip', words, { reject: false, stdin: 'ignore', all: true });
  let log = '';
  child.all.on('data', (bytes: Buffer) => (log += bytes.toString()));
  try {
    const get = async (url: string): Promise<string> => {
      const script = `const a = await fetch(process.argv[1]); console.log(a.status, await a.text())`;
      const args = ['--input-type=module', '-e', script, url];
      return (await node.exec(process.execPath, args)).stdout;
    };
    const status = (): Promise<string> => get('http://127.0.0.1:10256/healthz').catch(() => log);
    await expect.poll(status, slow).toMatch(/^200 .*"healthy":true/);
    expect(await get('http://127.0.0.1:10249/proxyMode')).toBe('200 iptables');
    expect(await get('http://127.0.0.1:10249/configz')).toContain(
      '"ClusterCIDRs":["10.244.0.0/16"]',
    );
    expect((await node.exec('iptables-save', [])).stdout).toContain('default/web:http has no endp');
    // Posted with those rights and no others.
    const events = (): unknown => api.objects.list({ apiVersion: 'v1', kind: 'Event' }).items;
    await expect.poll(events, slow).toMatchObject([
      {
        involvedObject: { kind: 'Node', name: nodeName },
        reason: 'Starting',
        source: { component: 'kube-proxy', host: nodeName },
      },
    ]);
    // e2e tests of nodes look for it by this name.
    expect(await readFile(`/proc/${child.pid}/cmdline`, 'utf8')).toContain(
      '/usr/local/bin/kube-proxy',
    );
    expect(log).not.toContain('"level":50');
    child.kill('SIGTERM');
    expect((await child).exitCode).toBe(0);
    expect(log).toContain('"name":"kube-proxy"');
  } finally {
    child.kill('SIGKILL');
    await child;
  }
});
