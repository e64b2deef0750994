/** Puts the proxy together: which parts there are, and who tells whom. */
import { systemClock } from '#pkg/clock/clock.ts';
import type { BindAddress } from '#pkg/health/bind-address.ts';
import { serveHttp, text, type Routes } from '#pkg/health/http-server.ts';
import { proxyHealthRoutes } from '#pkg/health/proxy-health.ts';
import { createSyncTracker } from '#pkg/health/sync-tracker.ts';
import type { Family } from '#pkg/ip/address.ts';
import { createKubeClient } from '#pkg/kube/client.ts';
import type { ClusterConfig } from '#pkg/kube/cluster-config.ts';
import { inClusterConfig } from '#pkg/kube/in-cluster.ts';
import { loadKubeconfig } from '#pkg/kube/kubeconfig.ts';
import { projectEndpointSlice, projectNode, projectService } from '#pkg/kube/project.ts';
import { startJitterMs } from '#cmd/start-jitter.ts';
import { oneNode, proxiedEndpointSlices, proxiedServices } from '#pkg/kube/resources.ts';
import { createStore } from '#pkg/kube/store.ts';
import type { EndpointSliceRecord, NodeRecord, ServiceRecord } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { createProxyMetrics, type ProxyMetrics } from '#pkg/metrics/proxy-metrics.ts';
import { createReconcileLoop } from '#pkg/reconcile/loop.ts';
import { createApiFeed } from './api-feed.ts';
import { proxyHost } from './host.ts';
import { createIptablesMode } from './iptables-mode.ts';
import type { ProxyOptions } from './options.ts';
import type { ProxyMode } from './proxy-mode.ts';
import { createRound } from './round.ts';
import { isEligible } from './round-options.ts';

export interface ProxyContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  readonly log: Logger;
}

const retryInitialMs = 1_000;

/**
 * Runs until the signal aborts, then resolves. Removes nothing from the kernel: Services work on
 * while no proxy runs.
 */
export async function runProxy(
  options: ProxyOptions,
  context: ProxyContext,
  signal: AbortSignal,
): Promise<void> {
  const { config, nodeName } = options;
  const { log, version } = context;
  const { minSyncPeriodMs, syncPeriodMs } = config.iptables;
  const clock = systemClock;

  const metrics = createProxyMetrics();
  const parts = { config, host: proxyHost, metrics, clock, log };
  // Before the first round there is nothing to look after.
  let onDrift = (): void => undefined;
  using mode = await createIptablesMode(
    {
      ...parts,
      request: () => onDrift(),
      onParked: ({ printName, protocol }, err) =>
        log.error({ err, port: printName, protocol }, 'Left out a Service port'),
    },
    signal,
  );
  await using client = createKubeClient(await clusterConfig(options, context), {
    clock,
    log,
    userAgent: `podwire-proxy/${version} (${process.platform}/${process.arch})`,
    startJitterMs: startJitterMs(context.env),
  });
  const services = createStore<ServiceRecord>();
  const slices = createStore<EndpointSliceRecord>();
  // A Node's status changes every few minutes without saying anything new.
  const nodes = createStore<NodeRecord>({ ignoreVersions: true });
  const stores = [services, slices, nodes];

  const families = [...mode.writers.keys()];
  const tracker = createSyncTracker<Family>(families, 2 * syncPeriodMs, clock);
  using feed = createApiFeed(services, slices);
  const loop = createReconcileLoop({
    round: createRound({ ...parts, nodeName, feed, nodes, mode, tracker, afterWrite: [] }),
    minIntervalMs: minSyncPeriodMs,
    maxIntervalMs: syncPeriodMs,
    retry: { initialMs: retryInitialMs, maxMs: Math.max(retryInitialMs, syncPeriodMs) },
    clock,
    onError: (err, retryInMs) => log.error({ err, retryInMs }, 'Rules not written, will retry'),
  });
  onDrift = () => loop.request();
  const request = (): void => {
    tracker.queued();
    metrics.queued(families, clock.now());
    loop.request();
  };

  const healthRoutes = proxyHealthRoutes({
    status: () => tracker.status(),
    nodeEligible: () => isEligible(nodes.get(nodeName)),
    clock,
    onAnswer: metrics.healthAnswered,
  });
  const servers = [
    serve(config.healthzBindAddress, healthRoutes),
    serve(config.metricsBindAddress, metricsRoutes(mode, metrics)),
  ];
  client.watchResource(proxiedServices, projectService, services, signal);
  client.watchResource(proxiedEndpointSlices, projectEndpointSlice, slices, signal);
  client.watchResource(oneNode(nodeName), projectNode, nodes, signal);

  // An empty store is not an empty cluster: before all have synced nothing is written.
  await Promise.all(stores.map((store) => store.whenSynced(signal)));
  using changes = new DisposableStack();
  for (const store of stores) changes.use(store.onChange(request));
  log.info({ services: services.size, slices: slices.size }, 'Services are known');
  request();
  await loop.run(signal);
  await Promise.all(servers);

  function serve(bind: BindAddress | undefined, routes: Routes): Promise<void> {
    if (bind === undefined) return Promise.resolve();
    const onError = (err: unknown, doing: string): void => log.error({ err }, doing);
    return serveHttp({ bind, routes, clock, onError }, signal);
  }
}

/**
 * With --master alone: a Pod's own credentials but that server, since a proxy cannot start through
 * the Service address that it provides itself; outside a Pod that server without credentials.
 */
async function clusterConfig(
  { config }: ProxyOptions,
  { env }: ProxyContext,
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

function metricsRoutes(mode: ProxyMode, metrics: ProxyMetrics): Routes {
  return new Map<string, Routes extends ReadonlyMap<string, infer R> ? R : never>([
    ['/metrics', async () => ({ status: 200, ...(await metrics.render()) })],
    ['/proxyMode', () => text(200, mode.name)],
    ['/healthz', () => text(200, 'ok')],
  ]);
}
