/** Puts the daemon together: which parts there are, and who tells whom. */
import { join } from 'node:path';
import { systemClock } from '#pkg/clock/clock.ts';
import type { NodeConfig } from '#pkg/config/node-config.ts';
import { serveHttp } from '#pkg/health/http-server.ts';
import { formatAddress } from '#pkg/ip/address.ts';
import { createKubeClient } from '#pkg/kube/client.ts';
import type { ClusterConfig } from '#pkg/kube/cluster-config.ts';
import { inClusterConfig } from '#pkg/kube/in-cluster.ts';
import { loadKubeconfig } from '#pkg/kube/kubeconfig.ts';
import { projectNode } from '#pkg/kube/project.ts';
import { allNodes } from '#pkg/kube/resources.ts';
import { pluginSource } from '#cmd/plugin-source.ts';
import { startJitterMs } from '#cmd/start-jitter.ts';
import { createStore } from '#pkg/kube/store.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { getLink } from '#pkg/netlink/link.ts';
import { watchKernel } from '#pkg/netlink/monitor.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { watchNftables } from '#pkg/nftables/monitor.ts';
import { conflistText } from '#pkg/pod-network/conflist.ts';
import type { PodNetworkOptions } from '#pkg/pod-network/desired.ts';
import { masqueradeTable } from '#pkg/pod-network/masquerade.ts';
import { createReconcileLoop } from '#pkg/reconcile/loop.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { startCniServer } from './cni-server.ts';
import { createHostDriver, createTableDriver } from './host-driver.ts';
import { concernsPodNetwork, createLinkNames } from './kernel-events.ts';
import { runNft } from './nft-command.ts';
import { nodeHealthRoutes } from './node-health.ts';
import { createNodeMetrics } from './node-metrics.ts';
import type { NodeOptions } from './options.ts';
import { createOwnNode } from './own-node.ts';
import { createPluginInstaller, type PluginInstaller } from './plugin-installer.ts';
import { PodNetworkRound, type NetworkFiles } from './round.ts';
import { NodeStatus } from './status.ts';
import { writeFileIfChanged } from './write-file.ts';

export interface NodeContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  readonly log: Logger;
}

export interface RunningNode extends AsyncDisposable {
  /** Runs until the signal given at start aborts. */
  run(): Promise<void>;
}

/** Bursts of changes become one round; a hand's deletion is healed within this. */
const minIntervalMs = 100;
const observeIntervalMs = 30_000;
const retry = { initialMs: 200, maxMs: 15_000, requestedMaxMs: 1_000 };

/**
 * Opens everything the daemon needs. Disposing it closes that and removes nothing from the kernel:
 * pods keep their network while no daemon runs.
 */
export async function startNode(
  options: NodeOptions,
  context: NodeContext,
  signal: AbortSignal,
): Promise<RunningNode> {
  const { config, nodeName } = options;
  const { log, version } = context;
  const clock = systemClock;
  const bind = config.healthBindAddress;
  await using opened = new AsyncDisposableStack();

  const client = opened.use(
    createKubeClient(await clusterConfig(options, context), {
      clock,
      log,
      userAgent: `podwire-node/${version} (${process.platform}/${process.arch})`,
      startJitterMs: startJitterMs(context.env),
    }),
  );
  // A Node's status changes every few minutes without saying anything new.
  const nodes = createStore<NodeRecord>({ ignoreVersions: true });
  const sys = await openSys();
  const socket = opened.use(new NetlinkSocket(sys));
  const status = new NodeStatus(clock, log);
  const metrics = createNodeMetrics();
  metrics.gauges(() => ({
    isReady: status.state.kind === 'ready',
    nodes: nodes.size,
    problems: status.problems.length,
  }));
  const round = new PodNetworkRound({
    options: podNetworkOptions(nodeName, config),
    nodes,
    host: createHostDriver(socket),
    tables: createTableDriver(runNft, config),
    ownNode: createOwnNode(client, nodeName, clock),
    files: networkFiles(config, pluginInstaller(sys, config, log)),
    status,
    metrics,
    clock,
    log,
    observeIntervalMs,
  });
  const loop = createReconcileLoop({
    round: (roundSignal) => round.run(roundSignal),
    minIntervalMs,
    maxIntervalMs: observeIntervalMs,
    retry,
    clock,
    onError: (err, retryInMs) => log.error({ err, retryInMs }, 'Round failed, will retry'),
  });

  const names = createLinkNames((index) => getLink(socket, index)?.name);
  opened.use(
    watchKernel(sys, ['link', 'address', 'route', 'neighbor', 'forwarding'], (change) => {
      if (change.kind === 'address' && change.deleted && change.address !== undefined) {
        client.dropFrom(formatAddress(change.address));
      }
      const concerns = concernsPodNetwork(change, round.watchedLinks, names);
      names.follow(change);
      if (!concerns) return;
      round.doubtHost();
      loop.request();
    }),
  );
  opened.use(
    watchNftables(sys, [masqueradeTable], () => {
      round.doubtTables();
      loop.request();
    }),
  );
  opened.use(nodes.onChange(() => loop.request()));
  client.watchResource(allNodes, projectNode, nodes, signal);

  opened.use(await tryStartCniServer(config.runDir, log));

  const running = opened.move();
  return {
    run: async () => {
      const routes = nodeHealthRoutes(status, metrics, clock);
      const onError = (err: unknown, doing: string): void => log.error({ err }, doing);
      const serving =
        bind === undefined ? undefined : serveHttp({ bind, routes, clock, onError }, signal);
      // An empty store is not an empty cluster: before the first list nothing is touched.
      await nodes.whenSynced(signal);
      log.info({ nodes: nodes.size }, 'Nodes are known');
      loop.request();
      await loop.run(signal);
      await serving;
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** Without it every call of a runtime does its work itself, which only takes longer. */
async function tryStartCniServer(
  runDir: string,
  log: Logger,
): Promise<AsyncDisposable | undefined> {
  try {
    return await startCniServer(runDir, log);
  } catch (err) {
    log.error({ err }, 'Cannot serve CNI calls; plugins do without');
    return undefined;
  }
}

function clusterConfig(options: NodeOptions, { env }: NodeContext): Promise<ClusterConfig> {
  if (options.kubeconfig !== undefined) return loadKubeconfig(options.kubeconfig);
  const host = env['KUBERNETES_SERVICE_HOST'];
  return inClusterConfig({ host, port: env['KUBERNETES_SERVICE_PORT'] });
}

function podNetworkOptions(nodeName: string, config: NodeConfig): PodNetworkOptions {
  return {
    nodeName,
    backend: config.backend,
    vni: config.vni,
    port: config.port,
    directRouting: config.directRouting,
    link: config.iface,
    mtuBytes: config.mtu,
    masquerade: config.masquerade,
    nonMasqueradeCIDRs: config.nonMasqueradeCIDRs,
    annotationPrefix: config.annotationPrefix,
  };
}

/** Undefined: somebody else installs the plugins. */
function pluginInstaller(sys: Sys, config: NodeConfig, log: Logger): PluginInstaller | undefined {
  const { cniBinDir: binDir, replaceReferencePlugins: replaceForeign } = config;
  if (binDir === undefined) return undefined;
  return createPluginInstaller(sys, { binDir, source: pluginSource(), replaceForeign, log });
}

function networkFiles(config: NodeConfig, installer: PluginInstaller | undefined): NetworkFiles {
  const nodeFile = join(config.runDir, 'node.json');
  const conflist = conflistText({ ...config, nodeFile, ipamDataDir: config.cniDataDir });
  return {
    writeNodeFile: async (text) => void (await writeFileIfChanged(nodeFile, text)),
    writeConflist: async () => {
      // First: the conflist tells the runtime that it can make pods.
      await installer?.ensure();
      if (!config.conflist) return;
      await writeFileIfChanged(join(config.cniConfDir, '10-podwire.conflist'), conflist);
    },
  };
}
