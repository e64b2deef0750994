/** The cluster's nodes from the Kubernetes API. */
import { startJitterMs } from '#cmd/start-jitter.ts';
import type { Clock } from '#pkg/clock/clock.ts';
import { formatAddress } from '#pkg/ip/address.ts';
import { createKubeClient, type ListWatch } from '#pkg/kube/client.ts';
import type { ClusterConfig } from '#pkg/kube/cluster-config.ts';
import { inClusterConfig } from '#pkg/kube/in-cluster.ts';
import { loadKubeconfig } from '#pkg/kube/kubeconfig.ts';
import { projectNode } from '#pkg/kube/project.ts';
import { allNodes } from '#pkg/kube/resources.ts';
import { staleness } from '#pkg/kube/staleness.ts';
import { createStore } from '#pkg/kube/store.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import { toleratedMs, type NodeSource } from './node-source.ts';
import type { NodeOptions } from './options.ts';
import { createOwnNode } from './own-node.ts';
import type { NodeContext } from './wire.ts';

/**
 * Nothing is asked yet.
 *
 * @throws {AgentError} when the API server cannot be told from what was given
 */
export async function openKubeSource(
  options: NodeOptions,
  context: NodeContext,
  clock: Clock,
): Promise<NodeSource> {
  const { env, log, version } = context;
  const client = createKubeClient(await clusterConfig(options, context), {
    clock,
    log,
    userAgent: `podwire-node/${version} (${process.platform}/${process.arch})`,
    startJitterMs: startJitterMs(env),
  });
  // A Node's status changes every few minutes without saying anything new.
  const nodes = createStore<NodeRecord>({ ignoreVersions: true });
  let watches: Readonly<Record<string, ListWatch>> = {};
  return {
    nodes,
    ownNode: createOwnNode(client, options.nodeName, clock),
    config: options.config,
    addressGone: (address) => client.dropFrom(formatAddress(address)),
    staleness: () => staleness(watches, { clock, toleratedMs }),
    run: async (signal) => {
      watches = { nodes: client.watchResource(allNodes, projectNode, nodes, signal) };
    },
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  };
}

function clusterConfig(options: NodeOptions, { env }: NodeContext): Promise<ClusterConfig> {
  if (options.kubeconfig !== undefined) return loadKubeconfig(options.kubeconfig);
  const host = env['KUBERNETES_SERVICE_HOST'];
  return inClusterConfig({ host, port: env['KUBERNETES_SERVICE_PORT'] });
}
