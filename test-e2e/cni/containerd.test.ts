import { readdirSync, rmSync, writeFileSync, chmodSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { buildExecutable } from '#cmd/podwire-cni/scratch-node.ts';
import { startContainerd, type Containerd } from './containerd.ts';
import type { PodSandboxConfig, PodSandboxStatus } from './cri-client.ts';
import { pauseRunsHere } from './pause-image.ts';
import { recordCalls } from './record-calls.ts';
import { ask, createOutside, nodeAddress, serveText } from './traffic.ts';
import { createRuntimeNode, reaches, writeNodeFacts, type RuntimeNode } from './runtime-node.ts';

let node: RuntimeNode;
let containerd: Containerd;

beforeAll(buildExecutable);
beforeEach(async () => {
  node = await createRuntimeNode();
  node.configure(podwireNetwork());
  await writeNodeFacts(node, ['10.244.1.0/24', 'fd00:10:244:1::/64']);
  containerd = await startContainerd(node);
});
afterEach(async () => {
  await containerd[Symbol.asyncDispose]();
  await node[Symbol.asyncDispose]();
});

interface Network {
  readonly name: string;
  readonly cniVersion: string;
  readonly plugins: readonly object[];
}

const capabilities = { portMappings: true, bandwidth: true, dns: true };

/** A network as the node daemon writes it; `plugins` come after ours. */
function podwireNetwork(...plugins: object[]): Network {
  return network({ type: 'podwire', capabilities }, ...plugins);
}

function network(...plugins: object[]): Network {
  return { cniVersion: '1.0.0', name: 'pods', plugins };
}

function sandbox(name: string, more: Partial<PodSandboxConfig> = {}): PodSandboxConfig {
  return {
    metadata: { name, uid: `uid-${name}`, namespace: 'default' },
    linux: { cgroupParent: node.cgroupParent },
    ...more,
  };
}

/** Makes it the network of new pods. containerd tells nobody when it has read a change. */
async function use(configuration: Network): Promise<void> {
  for (const file of readdirSync(node.confDir)) rmSync(join(node.confDir, file));
  await expect.poll(() => containerd.cri.networkReady()).toMatch(/cni plugin not initialized/);
  node.configure(configuration);
  await expect.poll(() => containerd.cri.networkReady()).toBe(true);
}

interface Pod extends PodSandboxStatus {
  readonly id: string;
}

async function runPod(name: string, more: Partial<PodSandboxConfig> = {}): Promise<Pod> {
  const id = await containerd.cri.runPodSandbox(sandbox(name, more));
  return { ...(await containerd.cri.podSandboxStatus(id)), id };
}

async function removePod({ id }: Pick<Pod, 'id'>): Promise<void> {
  await containerd.cri.stopPodSandbox(id);
  await containerd.cri.removePodSandbox(id);
}

/** What pods leave once the first has come and gone: the bridge, and rules for all. */
async function tracesOfNone(more: Partial<PodSandboxConfig> = {}): Promise<object> {
  await removePod(await runPod('first', more));
  return node.traces();
}

/** A plugin that fails, or whatever the script does. */
function writePlugin(type: string, script: string): void {
  const file = join(node.binDir, type);
  writeFileSync(file, `#!/bin/sh\n${script}\n`);
  chmodSync(file, 0o755);
}

describe.runIf(pauseRunsHere)("containerd's pods", () => {
  it('get addresses of both families, reach each other, and leave nothing behind', async () => {
    const before = await tracesOfNone();
    const [one, two] = [await runPod('one'), await runPod('two')];
    expect(one).toMatchObject({ ready: true, ips: ['10.244.1.3', 'fd00:10:244:1::3'] });
    expect(two).toMatchObject({ ready: true, ips: ['10.244.1.4', 'fd00:10:244:1::4'] });
    for (const address of two.ips) expect(await reaches(node, one.netns, address)).toBe(true);
    for (const address of one.ips) expect(await reaches(node, two.netns, address)).toBe(true);
    // The sandbox has the other network too that containerd makes.
    expect(await reaches(node, one.netns, '127.0.0.1')).toBe(true);
    expect(await reaches(node, one.netns, '::1')).toBe(true);
    await removePod(one);
    await removePod(two);
    expect(await node.traces()).toEqual(before);
  });

  it('are eight at once, with eight addresses', async () => {
    const before = await tracesOfNone();
    const names = Array.from({ length: 8 }, (_, i) => `pod-${i}`);
    const pods = await Promise.all(names.map((name) => runPod(name)));
    expect(new Set(pods.flatMap(({ ips }) => ips)).size).toBe(16);
    const [first, ...others] = pods;
    for (const { ips } of others) {
      expect(await reaches(node, first?.netns ?? '', ips[0] ?? '')).toBe(true);
    }
    await Promise.all(pods.map(removePod));
    expect(await node.traces()).toEqual(before);
  });

  it('keep their network while containerd starts again, and are removed after it', async () => {
    const before = await tracesOfNone();
    const [one, two] = [await runPod('one'), await runPod('two')];
    await containerd.restart();
    expect(await containerd.cri.podSandboxStatus(one.id)).toMatchObject({ ips: one.ips });
    expect(await reaches(node, one.netns, two.ips[0] ?? '')).toBe(true);
    await Promise.all([one, two].map(removePod));
    expect(await node.traces()).toEqual(before);
  });

  it('can be stopped twice', async () => {
    const before = await tracesOfNone();
    const pod = await runPod('one');
    await containerd.cri.stopPodSandbox(pod.id);
    await removePod(pod);
    expect(await node.traces()).toEqual(before);
  });
});

describe.runIf(pauseRunsHere)('what containerd passes', () => {
  it('21. is DEL at stop with the result of ADD, and DEL again without a namespace', async () => {
    const calls = recordCalls(node, 'podwire');
    const pod = await runPod('one');
    await removePod(pod);
    const summary = calls().map(({ env, config, exitCode }) => ({
      command: env['CNI_COMMAND'],
      netns: env['CNI_NETNS'],
      ifName: env['CNI_IFNAME'],
      prevResult: config?.prevResult !== undefined,
      exitCode,
    }));
    const attached = { netns: pod.netns, ifName: 'eth0', exitCode: 0 };
    expect(summary).toEqual([
      { ...attached, command: 'ADD', prevResult: false },
      { ...attached, command: 'DEL', prevResult: true },
      { ...attached, command: 'DEL', prevResult: false, netns: '' },
    ]);
  });

  it('is the pod, in CNI_ARGS, and the environment of its own', async () => {
    const calls = recordCalls(node, 'podwire');
    const pod = await runPod('one');
    const [add] = calls();
    expect(add?.env['CNI_ARGS']?.split(';').toSorted()).toEqual([
      'IgnoreUnknown=1',
      `K8S_POD_INFRA_CONTAINER_ID=${pod.id}`,
      'K8S_POD_NAME=one',
      'K8S_POD_NAMESPACE=default',
      'K8S_POD_UID=uid-one',
    ]);
    expect(add?.env).toMatchObject({ CNI_CONTAINERID: pod.id, CNI_PATH: node.binDir, PWD: '/' });
  });

  it('17. has capitals in the keys of the runtime configuration, and null for empty lists', async () => {
    const calls = recordCalls(node, 'podwire');
    const [pod] = [
      await runPod('one', {
        dnsConfig: { servers: ['10.96.0.10'], searches: ['svc.cluster.local'] },
        portMappings: [
          { protocol: 0, containerPort: 80, hostPort: 8080 },
          { protocol: 1, containerPort: 53, hostPort: 0 },
        ],
      }),
    ];
    expect(pod.ready).toBe(true);
    expect(calls()[0]?.config?.runtimeConfig).toEqual({
      dns: { Servers: ['10.96.0.10'], Searches: ['svc.cluster.local'], Options: null },
      // A port without one of the host is left out.
      portMappings: [{ HostPort: 8080, ContainerPort: 80, Protocol: 'tcp', HostIP: '' }],
    });
  });

  it('never asks for the state of the network', async () => {
    const calls = recordCalls(node, 'podwire');
    expect(await containerd.cri.networkReady()).toBe(true);
    expect(calls()).toEqual([]);
  });
});

describe.runIf(pauseRunsHere)('what a pod asks for', () => {
  const ipam = { type: 'host-local', ranges: [[{ subnet: '10.244.1.0/24' }]] };
  const routes = [{ dst: '0.0.0.0/0' }];
  const bridge = { type: 'bridge', isGateway: true, ipMasq: true, ipam: { ...ipam, routes } };
  const chain = network(
    bridge,
    { type: 'portmap', capabilities: { portMappings: true } },
    { type: 'bandwidth', capabilities: { bandwidth: true } },
    { type: 'firewall' },
    { type: 'tuning', sysctl: { 'net.ipv4.conf.IFNAME.log_martians': '1' } },
  );

  it.each([
    ['podwire', podwireNetwork()],
    ['a chain of plugins', chain],
  ])('it gets of %s: ports of the host, and limits', async (_, configuration) => {
    await using outside = await createOutside(node);
    await use(configuration);
    const wishes = {
      portMappings: [{ protocol: 0, containerPort: 80, hostPort: 8080 }],
      annotations: {
        'kubernetes.io/ingress-bandwidth': '8M',
        'kubernetes.io/egress-bandwidth': '16M',
      },
    };
    const before = await tracesOfNone(wishes);
    const pod = await runPod('one', wishes);
    await serveText(node, { netns: pod.netns, port: 80, text: 'one' });
    expect(await ask(outside, nodeAddress, 8080)).toBe('one');
    expect(await ask(node.netns, nodeAddress, 8080)).toBe('one');
    expect(await ask(node.netns, '127.0.0.1', 8080)).toBe('one');
    const { stdout } = await node.exec('tc', ['qdisc', 'show']);
    expect(stdout).toMatch(/tbf .* rate 8Mbit/);
    expect(stdout).toMatch(/tbf .* rate 16Mbit/);
    await removePod(pod);
    expect(await ask(outside, nodeAddress, 8080)).toBe('');
    expect(await node.traces()).toEqual(before);
  });

  it('148. it does not get when another pod has the port of the host', async () => {
    const portMappings = [{ protocol: 0, containerPort: 80, hostPort: 8080 }];
    const one = await runPod('one', { portMappings });
    const before = await node.traces();
    await expect(runPod('two', { portMappings })).rejects.toThrow(
      new RegExp(`Cannot map host port tcp 8080: container ${one.id} of network pods has it`),
    );
    expect(await node.traces()).toEqual(before);
    await removePod(one);
    expect((await runPod('two', { portMappings })).ready).toBe(true);
  });
});

describe.runIf(pauseRunsHere)('a pod that cannot be made', () => {
  it('20. leaves nothing when a later plugin of the chain fails, and nothing of those that never ran', async () => {
    const before = await tracesOfNone();
    writePlugin(
      'refusing',
      '[ "$CNI_COMMAND" = DEL ] || { echo "{\\"code\\":100,\\"msg\\":\\"no\\"}"; exit 1; }',
    );
    await use(podwireNetwork({ type: 'refusing' }, { type: 'loopback' }));
    await expect(runPod('one')).rejects.toThrow(/plugin type="refusing" failed \(add\): no/);
    expect(await node.traces()).toEqual(before);
  });

  it('is told why: the pool is empty, and the next pod gets what is given back', async () => {
    await writeNodeFacts(node, ['10.244.1.0/29']);
    // Network, gateway and broadcast are nobody's.
    const pods = [];
    for (let i = 0; i < 5; i++) pods.push(await runPod(`pod-${i}`));
    const before = await node.traces();
    await expect(runPod('one-more')).rejects.toThrow(/no IP addresses available in range set/);
    expect(await node.traces()).toEqual(before);
    const [first] = pods;
    if (first === undefined) throw new Error('No pod');
    await removePod(first);
    expect((await runPod('next')).ips).toEqual(first.ips);
  });

  it('is told why: the node has no addresses for pods yet', async () => {
    await node.exec('rm', ['/run/podwire/node.json']);
    const before = await node.traces();
    await expect(runPod('one')).rejects.toThrow(/\/run\/podwire\/node\.json/);
    expect(await node.traces()).toEqual(before);
  });

  it('29. leaves nothing when its ADD is killed because nobody waits for it any more', async () => {
    const before = await tracesOfNone();
    const lockFile = '/var/lib/cni/networks/pods/lock';
    // --close: the lock goes with flock(1), not with what it runs.
    const holder = await node.start('flock', ['--close', lockFile, 'sleep', '1000']);
    await expect.poll(locked).toBe(true);
    const running = containerd.cri.runPodSandbox(sandbox('one'), { timeoutMs: 3_000 });
    await expect(running).rejects.toThrow(/DEADLINE_EXCEEDED/);
    await holder.stop('KILL');
    await expect.poll(() => node.traces(), { timeout: 60_000 }).toEqual(before);

    async function locked(): Promise<boolean> {
      return node.exec('flock', ['--nonblock', lockFile, 'true']).then(
        () => false,
        () => true,
      );
    }
  });

  it('leaves nothing when containerd is too old for the result it asked for', async () => {
    const before = await tracesOfNone();
    await use({ ...podwireNetwork(), cniVersion: '1.1.0' });
    await expect(runPod('one')).rejects.toThrow(/unsupported CNI result version "1.1.0"/);
    expect(await node.traces()).toEqual(before);
  });
});

describe.runIf(pauseRunsHere)('the network configuration', () => {
  it('makes the node ready within a second of its coming', async () => {
    await use(podwireNetwork());
    expect((await runPod('one')).ready).toBe(true);
  });

  it("of bridge and host-local does what Go's plugins do with it", async () => {
    const ipam = {
      type: 'host-local',
      ranges: [[{ subnet: '10.9.0.0/24' }]],
      routes: [{ dst: '0.0.0.0/0' }],
    };
    await use(network({ type: 'bridge', bridge: 'cni0', isGateway: true, ipam }));
    const [one, two] = [await runPod('one'), await runPod('two')];
    expect(one.ips).toEqual(['10.9.0.2']);
    expect(await reaches(node, one.netns, two.ips[0] ?? '')).toBe(true);
    await Promise.all([one, two].map(removePod));
    expect(await node.traces()).toMatchObject({ leases: [], results: [], links: ['cni0', 'lo'] });
  });
});
