/** kubeadm's DaemonSet and ConfigMap, to the letter, with this program under kube-proxy's name. */
import { chmod, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { PolicyRule } from '#pkg/embedded-api/http/authentication.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import {
  ask,
  manifest,
  startApiFor,
  startContainer,
  type DaemonSet,
} from '#cmd/scratch/deployment.ts';
import { bundle } from '#hack/bundle.ts';
import { nodeName } from './scratch/proxied-node.ts';

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

test('a DaemonSet of kubeadm works as it is, with the rights it has', async () => {
  const { api, ca } = await startApiFor(node, { name: 'kube-proxy', rules: nodeProxier });
  await using _ = api;
  api.objects.create({ apiVersion: 'v1', kind: 'Node', metadata: { name: nodeName } });
  api.objects.create({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'default', name: 'web' },
    spec: { type: 'ClusterIP', ports: [{ name: 'http', port: 80 }] },
  });
  const { data } = await manifest<{ data: Record<string, string> }>(
    'kube-proxy/configmap.yaml',
    'ConfigMap',
  );
  const daemonSet = await manifest<DaemonSet>('kube-proxy/daemonset.yaml', 'DaemonSet');
  const bin = join(dir, 'bin');
  await mkdir(bin);
  await bundle('cmd/podwire-proxy/main.ts', join(bin, 'kube-proxy'), '1.2.3');
  await chmod(join(bin, 'kube-proxy'), 0o755);
  const pod = daemonSet.spec.template.spec;
  const { child, log } = await startContainer(node, pod, { dir, bin, ca, data, nodeName });
  try {
    const get = (url: string): Promise<string> => ask(node, url);
    const status = (): Promise<string> => get('http://127.0.0.1:10256/healthz').catch(() => log());
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
    expect(log()).not.toContain('"level":50');
    child.kill('SIGTERM');
    expect((await child).exitCode).toBe(0);
    expect(log()).toContain('"name":"kube-proxy"');
  } finally {
    child.kill('SIGKILL');
    await child;
  }
});
