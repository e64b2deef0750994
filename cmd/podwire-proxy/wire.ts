/** Puts the proxy together: which parts there are, and who tells whom. */
import { systemClock } from '#pkg/clock/clock.ts';
import { configChange } from '#pkg/config/proxy-config-change.ts';
import { syncPeriods } from '#pkg/config/proxy-config.ts';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { proxyHealthRoutes } from '#pkg/health/proxy-health.ts';
import { createSyncTracker } from '#pkg/health/sync-tracker.ts';
import type { Family } from '#pkg/ip/address.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';
import { onceWritten } from './once-written.ts';
import { removeLeftovers } from './cleanup.ts';
import { trackChanges } from './change-tracking.ts';
import { loadConntrack } from './conntrack-module.ts';
import { createEventRecorder } from '#pkg/kube/events.ts';
import { createKubeClient } from '#pkg/kube/client.ts';
import type { ClusterConfig } from '#pkg/kube/cluster-config.ts';
import { inClusterConfig } from '#pkg/kube/in-cluster.ts';
import { loadKubeconfig } from '#pkg/kube/kubeconfig.ts';
import { projectEndpointSlice, projectNode } from '#pkg/kube/project.ts';
import { startJitterMs } from '#cmd/start-jitter.ts';
import { oneNode, proxiedEndpointSlices, proxiedServices } from '#pkg/kube/resources.ts';
import { staleness } from '#pkg/kube/staleness.ts';
import { createStore } from '#pkg/kube/store.ts';
import {
  objectKey,
  type EndpointSliceRecord,
  type NodeRecord,
  type ServiceRecord,
} from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { createProxyMetrics } from '#pkg/metrics/proxy-metrics.ts';
import type { Problem } from '#pkg/proxy/proxied-port.ts';
import { createReconcileLoop } from '#pkg/reconcile/loop.ts';
import { createAftermath } from './aftermath.ts';
import { createApiFeed } from './api-feed.ts';
import { aboutComponent, serviceProjection } from './feature-effects.ts';
import { watchHostAddresses } from './host-addresses.ts';
import { applyHostSettings } from './host-settings.ts';
import { proxyHost } from './host.ts';
import { createMode } from './mode.ts';
import { liveView, watchFile } from './live-config.ts';
import type { ProxyOptions } from './options.ts';
import { createProblemLog } from './problem-log.ts';
import { createProxyEvents } from './proxy-events.ts';
import { adjustHost, requireLive, reread } from './reconfigure.ts';
import { createOtherHosts, hasExternalAddress } from './other-hosts.ts';
import { createRound } from './round.ts';
import { isEligible } from './round-options.ts';
import { runTogether } from './run-together.ts';
import { watchServiceRanges } from './service-ranges.ts';
import { createServers } from './servers.ts';
import { createServiceStatus } from './service-status.ts';
import { debugRoutes, statusRoutes } from './status-routes.ts';

export interface ProxyContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  /** The name the program was called by. */
  readonly program: string;
  readonly log: Logger;
  /** Takes a new verbosity. */
  readonly setVerbosity: (level: number) => void;
  /** Reads the options anew, from the same command line. */
  readonly reread: () => Promise<ProxyOptions>;
}

const retryInitialMs = 1_000;

/**
 * Runs until the signal aborts, then resolves. Removes nothing from the kernel: Services work on
 * while no proxy runs. Rejects when it cannot go on as it is: `ConfigChanged`, `ListenFailed`.
 */
export async function runProxy(
  options: ProxyOptions,
  context: ProxyContext,
  signal: AbortSignal,
): Promise<void> {
  const { nodeName } = options;
  const { log, program, version } = context;
  const clock = systemClock;
  const startedMs = clock.now();
  let current = options;
  const config = liveView(() => current.config);
  await loadConntrack(log);
  applyHostSettings(config, log);

  const about = aboutComponent(version, config.featureGates);
  const metrics = createProxyMetrics(about);
  const parts = { config, host: proxyHost, metrics, clock, log };
  // Before the first round there is nothing to look after.
  let onDrift = (): void => undefined;
  let onProblem: (problem: Problem) => void = () => undefined;
  let serviceCIDRs = (): readonly Prefix[] => [];
  let otherHosts = (): ReadonlySet<string> | undefined => undefined;
  const chosen = await createMode(
    {
      ...parts,
      serviceCIDRs: () => serviceCIDRs(),
      otherHosts: () => otherHosts(),
      request: () => onDrift(),
      onParked: (port, err) => {
        const { portName, printName, protocol } = port;
        log.error({ err, port: printName, protocol }, 'Left out a Service port');
        const problem = `the rules of port ${JSON.stringify(portName)} are refused: ${messageOf(err)}`;
        onProblem({ kind: 'Service', object: objectKey(port), problem });
      },
    },
    options.strictMode,
    signal,
  );
  using mode = chosen.mode;
  const cluster = await clusterConfig(options, context);
  await using client = createKubeClient(cluster, {
    clock,
    log,
    userAgent: `${program}/${version} (${process.platform}/${process.arch})`,
    startJitterMs: startJitterMs(context.env),
    onAnswer: metrics.component.apiAnswered,
  });
  const services = createStore<ServiceRecord>();
  const slices = createStore<EndpointSliceRecord>();
  // A Node's status changes every few minutes without saying anything new.
  const nodes = createStore<NodeRecord>({ ignoreVersions: true });
  const stores = [services, slices, nodes];

  const recorder = createEventRecorder({ client, clock, component: program, nodeName });
  const events = createProxyEvents({ recorder, nodeName, services, slices, log }, signal);
  onProblem = (problem) => events.ofProblem(problem);
  // Only the nftables mode knows what to do with them.
  const ranges = config.mode === 'nftables' ? watchServiceRanges(client, parts, signal) : undefined;
  serviceCIDRs = () => ranges?.current() ?? [];
  // Only the ipvs mode makes addresses of Services the host's own.
  const others =
    mode.name === 'ipvs'
      ? createOtherHosts({ client, clock, log, nodeName, server: cluster.server }, signal)
      : undefined;
  if (others !== undefined) otherHosts = () => others.current();
  if (chosen.fallback !== undefined) {
    events.ofNode({ type: 'Warning', reason: 'IPVSUnusable', message: chosen.fallback });
  }
  const families = [...mode.writers.keys()];
  const timeoutMs = (): number => 2 * syncPeriods(config).syncPeriodMs;
  using tracker = trackChanges({
    services,
    slices,
    tracker: createSyncTracker<Family>(families, timeoutMs, clock),
    metrics,
    clock,
  });
  using feed = createApiFeed(services, slices);
  const aftermath = createAftermath({ ...parts, mode, nodeName, nodes, events, tracker });
  const cleaning = { clock, log, excludeCIDRs: config.ipvs.excludeCIDRs };
  const serviceStatus = createServiceStatus({ mode, node: nodeName, version, tracker });
  const afterWrite = [
    serviceStatus.afterWrite,
    ...aftermath.hooks,
    onceWritten(families, () => void removeLeftovers(mode.name, cleaning, signal)),
  ];
  const problems = createProblemLog(log, (problem) => events.ofProblem(problem));
  const round = { ...parts, nodeName, feed, nodes, mode, tracker, afterWrite, problems };
  const loop = createReconcileLoop({
    round: createRound(round),
    get minIntervalMs() {
      return syncPeriods(config).minSyncPeriodMs;
    },
    get maxIntervalMs() {
      return syncPeriods(config).syncPeriodMs;
    },
    retry: {
      initialMs: retryInitialMs,
      get maxMs() {
        return Math.max(retryInitialMs, syncPeriods(config).syncPeriodMs);
      },
    },
    clock,
    onError: (err, retryInMs) => log.error({ err, retryInMs }, 'Rules not written, will retry'),
  });
  onDrift = () => loop.request();
  const request = (): void => {
    tracker.queued();
    metrics.queued(families, clock.now());
    loop.request();
  };

  const project = serviceProjection(config.featureGates);
  const watches = {
    services: client.watchResource(proxiedServices, project, services, signal),
    endpointslices: client.watchResource(
      proxiedEndpointSlices,
      projectEndpointSlice,
      slices,
      signal,
    ),
    nodes: client.watchResource(oneNode(nodeName), projectNode, nodes, signal),
  };
  const status = {
    mode: mode.name,
    file: () => current.file,
    metrics,
    services: serviceStatus,
    setVerbosity: context.setVerbosity,
  };
  const servers = createServers({
    config,
    healthRoutes: proxyHealthRoutes({
      status: () => tracker.status(),
      nodeEligible: () => isEligible(nodes.get(nodeName)),
      staleness: () => staleness(watches, { clock, toleratedMs: timeoutMs() }),
      clock,
      onAnswer: metrics.healthAnswered,
    }),
    statusRoutes: statusRoutes(status, {
      program,
      version,
      clock,
      startedMs,
      flags: options.flags,
      nodeVersion: about.nodeVersion,
      featureGates: config.featureGates,
    }),
    debugRoutes: debugRoutes(status),
    events,
    clock,
    log,
  });

  async function follow(path: string, until: AbortSignal): Promise<void> {
    const onChange = async (): Promise<void> => {
      const next = await reread(current, context);
      if (next === undefined) return;
      const change = configChange(current.file, next.file);
      if (change.changed.length === 0) return;
      requireLive(change, path);
      current = next;
      log.info({ changed: change.changed }, 'Configuration changed');
      adjustHost(config, change, log);
      if (change.changed.includes('logging.verbosity')) context.setVerbosity(config.verbosity);
      servers.adjust();
      for (const writer of mode.writers.values()) writer.doubt();
      if (stores.every((store) => store.synced)) request();
    };
    await watchFile(path, { clock, onChange }, until);
  }

  async function serveServices(until: AbortSignal): Promise<void> {
    // An empty store is not an empty cluster: before all have synced nothing is written.
    await Promise.all(stores.map((store) => store.whenSynced(until)));
    await ranges?.whenKnown(until);
    // What the last proxy took need not be given back for a moment.
    if (hasExternalAddress(services.snapshot().values())) await others?.whenKnown(until);
    events.ofNode({ type: 'Normal', reason: 'Starting', message: '' });
    using changes = new DisposableStack();
    for (const store of stores) changes.use(store.onChange(request));
    for (const more of [ranges, others])
      if (more !== undefined) changes.use(more.onChange(request));
    changes.use(await watchHostAddresses(proxyHost, { onChange: request, client, log }));
    log.info({ services: services.size, slices: slices.size }, 'Services are known');
    request();
    await runTogether([(s) => loop.run(s), (s) => aftermath.run(s)], until);
  }

  const { configPath } = options;
  const following = configPath === undefined ? [] : [(s: AbortSignal) => follow(configPath, s)];
  await runTogether([(s) => servers.run(s), serveServices, ...following], signal);
}

/**
 * With --master alone: a Pod's own credentials but that server, since a proxy cannot start through
 * the Service address that it provides itself; outside a Pod that server without credentials.
 */
export async function clusterConfig(
  { config }: ProxyOptions,
  { env }: Pick<ProxyContext, 'env'>,
): Promise<ClusterConfig> {
  const { kubeconfig, master } = config;
  if (kubeconfig !== undefined) {
    return await loadKubeconfig(kubeconfig, master === undefined ? {} : { server: master });
  }
  const host = env['KUBERNETES_SERVICE_HOST'];
  if (master === undefined || host !== undefined) {
    const found = await inClusterConfig({ host, port: env['KUBERNETES_SERVICE_PORT'] });
    return { ...found, server: master ?? found.server };
  }
  return {
    server: master,
    serverName: undefined,
    insecure: false,
    ca: undefined,
    user: {},
    namespace: 'default',
  };
}
