/** Puts the daemon together: which parts there are, and who tells whom. */
import { onlyOne } from '#cmd/only-one.ts';
import { systemClock } from '#pkg/clock/clock.ts';
import type { NodeConfig } from '#pkg/config/node-config.ts';
import { runCommand } from '#pkg/exec/run.ts';
import { serveHttp } from '#pkg/health/http-server.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { getLink, listLinks } from '#pkg/netlink/link.ts';
import { watchKernel } from '#pkg/netlink/monitor.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { masqueradeTable } from '#pkg/pod-network/masquerade.ts';
import { createReconcileLoop, type ReconcileLoop } from '#pkg/reconcile/loop.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { readSysctl } from '#pkg/sysctl/sysctl.ts';
import { openBackendParts } from './backend-parts.ts';
import { startCniServer } from './cni-server.ts';
import { createHostDriver, createTableDriver } from './host-driver.ts';
import { concernsPodNetwork, createLinkNames, type KnownNetwork } from './kernel-events.ts';
import { hasNft, runNft } from './nft-command.ts';
import { nodeHealthRoutes } from './node-health.ts';
import { createNetworkFiles, pluginInstaller } from './network-files.ts';
import { createNodeMetrics } from './node-metrics.ts';
import { openKubeSource } from './kube-source.ts';
import type { NodeSource } from './node-source.ts';
import type { EtcdSourceContext } from './open-etcd-source.ts';
import type { NodeOptions } from './options.ts';
import { OwnWrites } from './own-writes.ts';
import { IptablesDriver } from './packet-filter-driver.ts';
import { podNetworkOptions } from './pod-network-options.ts';
import { PodNetworkRound } from './round.ts';
import { watchSilent } from './silent-watch.ts';
import { NodeStatus } from './status.ts';
import { watchRules } from './table-watch.ts';
import { upkeepState } from './upkeep.ts';
import { WrittenFiles } from './written-files.ts';

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
  const { nodeName } = options;
  const { log } = context;
  const clock = systemClock;
  const bind = options.config.healthBindAddress;
  await using opened = new AsyncDisposableStack();

  const sys = await openSys();
  // Before anything of the other one's is touched: its port for /healthz, too.
  opened.use(await onlyOne('podwire-node', { log, sys, clock }, signal));
  const socket = opened.use(new NetlinkSocket(sys));
  const status = new NodeStatus(clock, log);
  const metrics = createNodeMetrics();
  let staleness = (): readonly string[] => [];
  const routes = nodeHealthRoutes(status, () => staleness(), metrics, clock);
  const onError = (err: unknown, doing: string): void => log.error({ err }, doing);
  // At once: a source may have to be waited for, and people ask why.
  const serving =
    bind === undefined ? undefined : serveHttp({ bind, routes, clock, onError }, signal);
  serving?.catch(() => undefined);
  const source = opened.use(await openSource(options, context, { clock, socket, status, signal }));
  const { config, nodes } = source;
  staleness = () => source.staleness();
  metrics.gauges(() => ({
    isReady: status.state.kind === 'ready',
    nodes: nodes.size,
    problems: status.problems.length,
  }));
  const masqueradeBy = await masqueradeProgram(config, log, signal);
  const lookAgain = (): void => {
    round.doubtHost();
    loop.request();
  };
  const watchedLinks = (): Iterable<string> => round.watchedLinks ?? [];
  const written = new WrittenFiles();
  const backend = opened.use(
    await openBackendParts(sys, config, { clock, log, metrics, watchedLinks, lookAgain, written }),
  );
  const names = createLinkNames(
    (index) => getLink(socket, index)?.name,
    () => listLinks(socket).map(({ index, name }) => [index, name]),
  );
  const known: KnownNetwork = {
    get watchedLinks() {
      return round.watchedLinks;
    },
    hasRouteTo: (destination) => round.hasRouteTo(destination),
    canReach: config.ifaceCanReach,
  };
  const watch = opened.use(
    watchKernel(
      sys,
      ['link', 'address', 'route', 'neighbor', 'forwarding'],
      (change) => {
        if (change.kind === 'address' && change.deleted && change.address !== undefined) {
          source.addressGone(change.address);
        }
        const concerns = concernsPodNetwork(change, known, names);
        names.follow(change);
        if (concerns && !ownWrites.isOwn(change)) lookAgain();
      },
      socket.portId,
    ),
  );
  const ownWrites = new OwnWrites(watch);
  const tableWatch = opened.use(
    watchRules(sys, { concerns: isMasquerade, programs: ['nft'] }, () => {
      round.doubtTables();
      loop.request();
    }),
  );
  const packetFilter = opened.use(
    new IptablesDriver({ run: runCommand, sys, log, onChange: () => loop.request() }),
  );
  const plugins = pluginInstaller(sys, config, log);
  const upkeep = opened.use(
    watchSilent({
      read: () =>
        upkeepState({ settings: round.settings, read: readSysctl, files: written, plugins }),
      onChange: lookAgain,
      onError: (err) => log.warn({ err }, 'Cannot look at settings'),
    }),
  );
  const changes = opened.use(nodes.subscribe(() => loop.request()));
  const round: PodNetworkRound = new PodNetworkRound({
    options: { ...podNetworkOptions(nodeName, config, backend.secrets), masqueradeBy },
    nodes: { snapshot: () => nodes.snapshot(), drain: () => changes.drain() },
    host: createHostDriver(socket, backend.drivers, (steps, write) => {
      const outcomes = ownWrites.around(steps, write);
      const done = steps.filter((_, i) => outcomes[i] === undefined);
      backend.wrote(done);
      for (const { object } of done) {
        if (object.kind === 'sysctl') upkeep.wrote(object.path, object.value);
      }
      return outcomes;
    }),
    forwarder: backend.forwarder,
    routing: backend.routing,
    tables: createTableDriver(
      runNft,
      { masquerade: config.masquerade && masqueradeBy === 'nftables' },
      (write) => tableWatch.exempt(write),
    ),
    packetFilter,
    ownNode: source.ownNode,
    files: createNetworkFiles(config, { written, plugins }),
    status,
    metrics,
    clock,
    log,
    observeIntervalMs,
  });
  const loop: ReconcileLoop = createReconcileLoop({
    round: (roundSignal) => round.run(roundSignal),
    minIntervalMs,
    maxIntervalMs: observeIntervalMs,
    retry,
    clock,
    onError: (err, retryInMs) => log.error({ err, retryInMs }, 'Round failed, will retry'),
  });

  opened.use(await tryStartCniServer(config.runDir, log));

  const running = opened.move();
  return {
    run: async () => {
      const sourceRuns = source.run(signal);
      // An empty store is not an empty cluster: before the first list nothing is touched.
      await nodes.whenSynced(signal);
      log.info({ nodes: nodes.size }, 'Nodes are known');
      loop.request();
      await loop.run(signal);
      await Promise.all([serving, sourceRuns]);
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** nft, unless the machine lacks it. */
async function masqueradeProgram(
  { masquerade }: NodeConfig,
  log: Logger,
  signal: AbortSignal,
): Promise<'nftables' | 'iptables'> {
  if (!masquerade || (await hasNft(signal))) return 'nftables';
  log.warn({}, 'There is no program nft: pod traffic is masqueraded by iptables');
  return 'iptables';
}

function isMasquerade({ table }: { readonly table: string }): boolean {
  return table === masqueradeTable.name;
}

async function openSource(
  options: NodeOptions,
  context: NodeContext,
  parts: EtcdSourceContext,
): Promise<NodeSource> {
  if (options.config.etcd === undefined) return openKubeSource(options, context, parts.clock);
  // Loaded where it is used: gRPC is half of the program.
  const { openEtcdSource } = await import('./open-etcd-source.ts');
  return openEtcdSource(options, options.config.etcd, { ...parts, log: context.log });
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
