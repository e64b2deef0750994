/** The demo's kubelet as a process: for all three nodes, as each other's programs are. */
import { systemClock } from '#pkg/clock/clock.ts';
import { createKubeClient } from '#pkg/kube/client.ts';
import { loadKubeconfig } from '#pkg/kube/kubeconfig.ts';
import { createTransport } from '#pkg/kube/transport.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { runKubelet } from './kubelet.ts';
import { bundle, cniBinDir, machineKubeconfig, nodeLayout, type Programs } from './layout.ts';
import type { SandboxHost } from './pod-sandbox.ts';
import type { RunFolder } from './run-folder.ts';
import { nodeNames, topologyOf, type NodeName } from './topology.ts';

export interface KubeletProcessOptions {
  readonly run: RunFolder;
  readonly programs: Programs;
  readonly log: Logger;
}

/** Runs until the signal aborts; pods keep running. */
export async function runKubeletProcess(
  { run, programs, log }: KubeletProcessOptions,
  signal: AbortSignal,
): Promise<void> {
  const { hosts } = topologyOf(run.id);
  const host = (node: NodeName): SandboxHost => ({
    run,
    cni: {
      runId: run.id,
      namespace: hosts[node].namespace,
      confDir: nodeLayout(run, node).cniConfDir,
      binDir: cniBinDir(run),
    },
    agent: bundle(programs, 'podwire', 'demo-agent'),
  });
  const config = await loadKubeconfig(machineKubeconfig(run));
  const options = { clock: systemClock, userAgent: 'podwire-demo-kubelet' };
  await using client = createKubeClient(config, { ...options, log });
  await using transport = createTransport(config, options);
  const hostByNode = new Map(nodeNames.map((node) => [node as string, host(node)]));
  await runKubelet({ client, transport, clock: systemClock, log, hosts: hostByNode }, signal);
}
