/** A running cluster of the demo: three nodes, their daemons, a control plane, a host outside. */
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '#pkg/clock/clock.ts';
import { createKubeClient, type KubeClient } from '#pkg/kube/client.ts';
import { loadKubeconfig } from '#pkg/kube/kubeconfig.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { startApi, startKubelet } from './control-plane.ts';
import { cniBinDir, machineKubeconfig, type Programs } from './layout.ts';
import { createNetwork } from './namespaces.ts';
import {
  configureNode,
  startHostAgent,
  startNodeDaemon,
  startProxyDaemon,
  type BackendChoice,
} from './node-programs.ts';
import { stopProgram, type Program } from './processes.ts';
import { removeRun } from './remove.ts';
import { createRunFolder, type RunFolder } from './run-folder.ts';
import { nodeNames, topologyOf, type NodeName, type Topology } from './topology.ts';

export interface ClusterOptions {
  readonly programs: Programs;
  readonly clock: Clock;
  readonly log: Logger;
  readonly backend: BackendChoice;
  /** Told of each stage when it is done. */
  readonly onStage: (what: string) => void;
  /** The process whose end makes the run a leftover. */
  readonly ownerPid: number;
}

export interface Cluster extends AsyncDisposable {
  readonly run: RunFolder;
  readonly topology: Topology;
  readonly client: KubeClient;
  /** Every long-lived program that should be running now. */
  readonly programs: () => readonly Program[];
  nodeDaemon(node: NodeName): Daemon;
  proxyDaemon(node: NodeName): Daemon;
  /** Restarts podwire-node everywhere with another backend. */
  setBackend(choice: BackendChoice): Promise<void>;
  /** Closes the connection to the API and leaves everything running. */
  leave(): Promise<void>;
}

/** A daemon that can be stopped and started again. */
export interface Daemon {
  program(): Program;
  /** Asks it to stop and waits for its end. */
  stop(): Promise<void>;
  start(): void;
}

/** Builds it all but the objects in the API. What fails on the way leaves nothing behind. */
export async function createCluster(
  options: ClusterOptions,
  signal: AbortSignal,
): Promise<Cluster> {
  const run = createRunFolder(options.ownerPid);
  try {
    return await build(options, run, signal);
  } catch (error) {
    await removeRun(run);
    throw error;
  }
}

async function build(
  options: ClusterOptions,
  run: RunFolder,
  signal: AbortSignal,
): Promise<Cluster> {
  const { programs, clock, log, onStage } = options;
  const topology = topologyOf(run.id);
  const { hosts } = topology;
  await createNetwork(topology, signal);
  onStage(`network: ${topology.namespaces.length} namespaces, three nodes in two subnets`);
  installPlugins(run, programs.dist);
  const parts = { run, programs, clock, signal };
  const api = await startApi(parts);
  onStage('API server');
  for (const node of nodeNames) configureNode(run, node, options.backend);
  const kubelet = startKubelet(parts);
  const nodeDaemons = daemons((node) =>
    startNodeDaemon(run, programs, { ...hosts[node], name: node }),
  );
  const proxyDaemons = daemons((node) => startProxyDaemon(run, programs, hosts[node]));
  const agents = await Promise.all([
    ...nodeNames.map((node) => startHostAgent(run, programs, hosts[node])),
    startHostAgent(run, programs, hosts.outside, 8080),
  ]);
  onStage('podwire-node and podwire-proxy on three nodes');
  const config = await loadKubeconfig(machineKubeconfig(run));
  const client = createKubeClient(config, { clock, log, userAgent: 'podwire-demo' });
  const all = [...Object.values(nodeDaemons), ...Object.values(proxyDaemons)];
  return {
    run,
    topology,
    client,
    programs: () => [api, kubelet, ...agents, ...all.map((daemon) => daemon.program())],
    nodeDaemon: (node) => nodeDaemons[node],
    proxyDaemon: (node) => proxyDaemons[node],
    setBackend: async (choice) => {
      await Promise.all(nodeNames.map((node) => nodeDaemons[node].stop()));
      for (const node of nodeNames) {
        configureNode(run, node, choice);
        nodeDaemons[node].start();
      }
    },
    leave: async () => {
      await client[Symbol.asyncDispose]();
    },
    [Symbol.asyncDispose]: async () => {
      await client[Symbol.asyncDispose]();
      await removeRun(run);
    },
  };
}

/** One executable under the names of its plugins, as an installation has it in /opt/cni/bin. */
function installPlugins(run: RunFolder, dist: string): void {
  mkdirSync(cniBinDir(run));
  for (const type of ['podwire', 'loopback']) {
    symlinkSync(join(dist, 'podwire-cni'), join(cniBinDir(run), type));
  }
}

function daemons(start: (node: NodeName) => Program): Record<NodeName, Daemon> {
  return {
    node1: daemon('node1', start),
    node2: daemon('node2', start),
    node3: daemon('node3', start),
  };
}

function daemon(node: NodeName, start: (node: NodeName) => Program): Daemon {
  let running = start(node);
  return {
    program: () => running,
    stop: () => stopProgram(running),
    start: () => {
      running = start(node);
    },
  };
}
