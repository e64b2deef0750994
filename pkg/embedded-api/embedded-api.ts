/**
 * A Kubernetes API server inside a process: for the demo, for tests, for clusters of one machine.
 * It is a development tool. It keeps everything in memory, has one replica, no audit, no admission
 * webhooks, no scheduler and no kubelet behind it; in production, use a real API server.
 */
import { systemClock, type Clock } from '#pkg/clock/clock.ts';
import { silentLogger, type Logger } from '#pkg/log/logger.ts';
import { createAccess, type ApiAccess } from './access.ts';
import { bootstrap, type BootstrapOptions } from './bootstrap.ts';
import { EndpointSliceController } from './controllers/endpoint-slice-controller.ts';
import { NodeCidrController, type NodeCidrOptions } from './controllers/node-cidrs.ts';
import { PodTermination } from './controllers/pod-termination.ts';
import { createCore } from './core.ts';
import type { TokenGrant } from './http/authentication.ts';
import { Listener, type ListenOn, type TlsIdentity } from './http/listener.ts';
import { answerRequest, type Fault, type FaultRequest } from './http/router.ts';
import type { OpenWatch } from './http/watch-response.ts';
import { Journal, readJournal } from './journal.ts';

export interface EmbeddedApiOptions {
  /** Where to listen: any number of places, all with the same objects. None: in-process only. */
  readonly listen?: readonly ListenOn[];
  /** PEM texts; with them HTTP/1.1 and HTTP/2 over TLS, without plain HTTP/1.1. */
  readonly tls?: TlsIdentity;
  /**
   * Who may ask; an empty list lets everyone in, so then listen on loopback only. kubectl sends its
   * token over TLS only.
   */
  readonly tokens?: readonly TokenGrant[];
  /** Ranges for cluster addresses, at most one a family; the first is the default family's. */
  readonly serviceCIDRs?: readonly string[];
  /** Endpoints of the `kubernetes` Service. */
  readonly apiServer?: NonNullable<BootstrapOptions['apiServer']>;
  /** File the objects are kept in from run to run; one server at a time. None: memory only. */
  readonly persistenceFile?: string;
  /** Fills EndpointSlices from Services and Pods, and ends Pods when their grace is over. */
  readonly runControllers?: boolean;
  /** Gives Nodes without podCIDRs subnets of these ranges. */
  readonly nodeCIDRs?: NodeCidrOptions;
  /** Changes kept for watches to resume from; what is older is answered with 410 Gone. */
  readonly compactionWindowEvents?: number;
  /** How often watches that allow it get a bookmark. */
  readonly bookmarkIntervalMs?: number;
  readonly clock?: Clock;
  readonly log?: Logger;
}

/** Ways to disturb clients, for tests. */
export interface ApiFaults {
  /** Asked before each request; returns what to do instead of answering it. Undefined ends it. */
  intercept(rule: ((request: FaultRequest) => Fault | undefined) | undefined): void;
  /** How a watch or list from a compacted revision is refused; a real server does both. */
  goneAs(form: 'event' | 'http'): void;
  /** Ends open watches as if their time were up. */
  endWatches(): void;
  /** Sends 410 Gone to open watches and ends them. */
  expireWatches(): void;
  /** Cuts the connections of open watches, without a word. */
  disconnectWatches(): void;
  /** Open watches stay open and say nothing more, as behind a dead network. */
  stallWatches(): void;
  /** Cuts every connection. */
  disconnectAll(): void;
  /** Replaces the tokens for requests from now on. */
  setTokens(tokens: readonly TokenGrant[]): void;
}

export interface EmbeddedApi extends AsyncDisposable {
  /** One for each place it listens, in their order: http://127.0.0.1:8080. */
  readonly urls: readonly string[];
  /** The objects, for code in this process. */
  readonly objects: ApiAccess;
  /** Watches open now, over the network. */
  readonly openWatchCount: number;
  readonly faults: ApiFaults;
  /** Forgets all past changes: who resumes from before gets 410 Gone. */
  compact(): void;
}

/**
 * Starts a server; disposing the handle ends it and all its connections.
 *
 * @throws {AgentError} CannotListen, InvalidPrefix, InvalidState (the persistence file)
 */
export async function startEmbeddedApi(options: EmbeddedApiOptions = {}): Promise<EmbeddedApi> {
  const clock = options.clock ?? systemClock;
  const serviceCIDRs = options.serviceCIDRs ?? [];
  const log = options.log ?? silentLogger;
  const file = options.persistenceFile;
  const core = createCore({
    serviceCIDRs,
    compactionWindowEvents: options.compactionWindowEvents ?? 100_000,
    clock,
    saved: file === undefined ? undefined : readJournal(file),
  });
  const objects = createAccess(core);
  bootstrap(objects, { serviceCIDRs, apiServer: options.apiServer });
  const watches = new Set<OpenWatch>();
  const settings = {
    core,
    watches,
    log,
    bookmarkIntervalMs: options.bookmarkIntervalMs ?? 60_000,
    goneAs: 'event' as 'event' | 'http',
    tokens: options.tokens ?? [],
    fault: undefined as ((request: FaultRequest) => Fault | undefined) | undefined,
  };
  await using opened = new AsyncDisposableStack();
  if (file !== undefined) opened.use(new Journal(file, core.storage, log));
  const context = { storage: core.storage, access: objects, clock, log };
  if (options.runControllers !== false) {
    opened.use(new EndpointSliceController(context));
    opened.use(new PodTermination(context));
  }
  if (options.nodeCIDRs !== undefined) {
    opened.use(new NodeCidrController(context, options.nodeCIDRs));
  }
  const listeners: Listener[] = [];
  for (const on of options.listen ?? []) {
    const listener = await Listener.open(on, options.tls, (request, response) => {
      void answerRequest(request, response, settings);
    });
    listeners.push(opened.use(listener));
  }
  const running = opened.move();
  return {
    urls: listeners.map((listener) => listener.url),
    objects,
    get openWatchCount() {
      return watches.size;
    },
    compact: () => core.storage.compact(core.storage.revision),
    faults: {
      intercept: (rule) => {
        settings.fault = rule;
      },
      goneAs: (form) => {
        settings.goneAs = form;
      },
      endWatches: () => watches.forEach((watch) => watch.end()),
      expireWatches: () => watches.forEach((watch) => watch.expire()),
      disconnectWatches: () => watches.forEach((watch) => watch.cut()),
      stallWatches: () => watches.forEach((watch) => watch.stall()),
      disconnectAll: () => listeners.forEach((listener) => listener.disconnectAll()),
      setTokens: (tokens) => {
        settings.tokens = tokens;
      },
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}
