/**
 * Scheduler and kubelet of the demo's nodes in one: gives pods a node, starts and stops them, and
 * reports their status through the API. Every pod runs the same answering program, whatever image
 * it names. It knows only what it started itself: it cannot be restarted under running pods.
 */
import { watch } from 'node:fs';
import type { Clock } from '#pkg/clock/clock.ts';
import type { KubeClient } from '#pkg/kube/client.ts';
import { allNodes, nodeType, objectPath } from '#pkg/kube/resources.ts';
import { projectNode } from '#pkg/kube/project.ts';
import { createStore, type Store } from '#pkg/kube/store.ts';
import type { Transport } from '#pkg/kube/transport.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { createReconcileLoop } from '#pkg/reconcile/loop.ts';
import { readNetwork } from './cni-runtime.ts';
import { podType, projectPod, type PodRecord } from './pod-record.ts';
import { startSandbox, type PodSandbox, type SandboxHost } from './pod-sandbox.ts';
import { apiTime, runningStatus } from './pod-status.ts';
import { schedule } from './schedule.ts';

export interface KubeletOptions {
  readonly client: KubeClient;
  /** For the one request the client does not make: ending a pod's deletion. */
  readonly transport: Transport;
  readonly clock: Clock;
  readonly log: Logger;
  /** By node name. */
  readonly hosts: ReadonlyMap<string, SandboxHost>;
}

/** Runs until the signal aborts. Pods keep running. */
export async function runKubelet(options: KubeletOptions, signal: AbortSignal): Promise<void> {
  const { client, clock, log } = options;
  const pods = createStore<PodRecord>();
  const nodes = createStore<NodeRecord>();
  const watches = [
    client.watchResource({ type: podType }, projectPod, pods, signal),
    client.watchResource(allNodes, projectNode, nodes, signal),
  ];
  await Promise.all([pods.whenSynced(signal), nodes.whenSynced(signal)]);
  const kubelet = new Kubelet(options, pods, nodes);
  const loop = createReconcileLoop({
    round: (roundSignal) => kubelet.round(roundSignal),
    minIntervalMs: 20,
    maxIntervalMs: 5_000,
    retry: { initialMs: 100, maxMs: 2_000 },
    clock,
    onError: (err, retryInMs) => log.warn({ err, retryInMs }, 'Round failed'),
  });
  const request = (): void => loop.request();
  using _pods = pods.onChange(request);
  using _nodes = nodes.onChange(request);
  const folders = [...options.hosts.values()].map((host) => watch(host.cni.confDir, request));
  request();
  await loop.run(signal);
  for (const folder of folders) folder.close();
  await Promise.all(watches.map((running) => running.done));
}

class Kubelet {
  readonly #options: KubeletOptions;
  readonly #pods: Store<PodRecord>;
  readonly #nodes: Store<NodeRecord>;
  /** By pod uid: a pod made again under its name is another pod. */
  readonly #sandboxes = new Map<string, PodSandbox>();
  readonly #reported = new Set<string>();
  readonly #readyNodes = new Set<string>();

  constructor(options: KubeletOptions, pods: Store<PodRecord>, nodes: Store<NodeRecord>) {
    this.#options = options;
    this.#pods = pods;
    this.#nodes = nodes;
  }

  /** Everything that is to do now, side by side as on separate nodes. */
  async round(signal: AbortSignal): Promise<void> {
    const pods = this.#pods.snapshot();
    const nodes = [...this.#nodes.snapshot().values()].filter((n) =>
      this.#options.hosts.has(n.name),
    );
    const wanted = new Set([...pods.values()].filter(shouldRun).map((pod) => pod.uid));
    const tasks = [
      ...nodes.map((node) => this.#reportNode(node, signal)),
      ...[...schedule(pods, nodes)].map(([key, node]) => this.#bind(pods.get(key), node, signal)),
      ...[...pods.values()].filter(shouldRun).map((pod) => this.#start(pod, signal)),
      ...[...this.#sandboxes.keys()]
        .filter((uid) => !wanted.has(uid))
        .map((uid) => this.#stop(uid)),
    ];
    const results = await Promise.allSettled(tasks);
    const going = [...pods.values()].filter((pod) => pod.deleting && this.#isOurs(pod));
    results.push(...(await Promise.allSettled(going.map((pod) => this.#finalize(pod, signal)))));
    const failures = results.flatMap((r): unknown[] => (r.status === 'rejected' ? [r.reason] : []));
    if (failures.length > 0) throw new AggregateError(failures, 'Cannot finish the round');
  }

  async #bind(pod: PodRecord | undefined, nodeName: string, signal: AbortSignal): Promise<void> {
    if (pod === undefined) return;
    await this.#options.client.patch(
      refOf(pod),
      { kind: 'merge', body: { spec: { nodeName } } },
      signal,
    );
  }

  async #start(pod: PodRecord, signal: AbortSignal): Promise<void> {
    const host = this.#options.hosts.get(pod.nodeName);
    if (host === undefined || this.#reported.has(pod.uid)) return;
    // Not an error: its node's agent is still starting. The folder's watch tells when it is done.
    if (readNetwork(host.cni.confDir) === undefined) return;
    const sandbox = this.#sandboxes.get(pod.uid) ?? (await startSandbox(host, pod));
    this.#sandboxes.set(pod.uid, sandbox);
    const hostIPs = this.#nodes.get(pod.nodeName)?.internalIPs ?? [];
    const startedAt = apiTime(this.#options.clock.now());
    const status = runningStatus(pod, { ...sandbox, hostIPs, startedAt });
    const ref = { ...refOf(pod), subresource: 'status' } as const;
    await this.#options.client.patch(ref, { kind: 'merge', body: { status } }, signal);
    this.#reported.add(pod.uid);
  }

  async #stop(uid: string): Promise<void> {
    await this.#sandboxes.get(uid)?.stop();
    this.#sandboxes.delete(uid);
    this.#reported.delete(uid);
  }

  /** A pod that is being deleted is gone when its node says that nothing of it is left. */
  async #finalize(pod: PodRecord, signal: AbortSignal): Promise<void> {
    if (this.#sandboxes.has(pod.uid)) return;
    const body = JSON.stringify({
      apiVersion: 'v1',
      kind: 'DeleteOptions',
      gracePeriodSeconds: 0,
      preconditions: { uid: pod.uid },
    });
    const headers = { 'content-type': 'application/json' };
    await this.#options.transport.request(objectPath(refOf(pod)), {
      method: 'DELETE',
      headers,
      body,
      signal,
    });
  }

  /** A node is ready when pods can get a network on it. */
  async #reportNode(node: NodeRecord, signal: AbortSignal): Promise<void> {
    const host = this.#options.hosts.get(node.name);
    if (host === undefined || this.#readyNodes.has(node.uid)) return;
    if (readNetwork(host.cni.confDir) === undefined) return;
    const at = apiTime(this.#options.clock.now());
    const ready = {
      type: 'Ready',
      status: 'True',
      reason: 'KubeletReady',
      message: 'the pod network is configured',
    };
    const conditions = [{ ...ready, lastHeartbeatTime: at, lastTransitionTime: at }];
    const ref = { type: nodeType, name: node.name, subresource: 'status' } as const;
    await this.#options.client.patch(
      ref,
      { kind: 'strategic', body: { status: { conditions } } },
      signal,
    );
    this.#readyNodes.add(node.uid);
  }

  #isOurs(pod: PodRecord): boolean {
    return this.#options.hosts.has(pod.nodeName);
  }
}

function shouldRun(pod: PodRecord): boolean {
  return (
    !pod.deleting && pod.nodeName !== '' && pod.phase !== 'Succeeded' && pod.phase !== 'Failed'
  );
}

function refOf(pod: PodRecord): { type: typeof podType; namespace: string; name: string } {
  return { type: podType, namespace: pod.namespace, name: pod.name };
}
