/** A client with a still clock against a scripted server: what tests of list+watch start from. */
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { createKubeClient, type KubeClient, type ListWatch } from '#pkg/kube/client.ts';
import { type Project, projectMeta } from '#pkg/kube/project.ts';
import { allNodes, type ResourceSpec } from '#pkg/kube/resources.ts';
import { createStore, type WritableStore } from '#pkg/kube/store.ts';
import type { ObjectMeta } from '#pkg/kube/types.ts';
import type { Logger } from '#pkg/log/logger.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { type Exchange, type ScriptedServer, startScriptedServer } from './scripted-server.ts';
import { until } from './until.ts';

export interface Thing extends ObjectMeta {
  readonly value: string;
}

export interface Rig extends AsyncDisposable {
  readonly server: ScriptedServer;
  readonly client: KubeClient;
  readonly clock: FakeClock;
  readonly store: WritableStore<Thing>;
  readonly listWatch: ListWatch;
  readonly stop: AbortController;
  /** The delays of all failures so far, in milliseconds. */
  readonly delays: readonly number[];
  /** name=value of everything in the store, in order. */
  readonly content: () => string;
  /** Answers the next request as a server that does not stream lists. */
  readonly refuseWatchList: () => Promise<void>;
  /** Answers a list with this version and these name=value. */
  readonly list: (resourceVersion: string, ...things: readonly string[]) => Promise<Exchange>;
  /** Accepts the next watch. */
  readonly watch: () => Promise<Exchange>;
  /** Waits for the failure number `count` (from 1) and lets its delay pass. */
  readonly passDelay: (count: number) => Promise<void>;
}

export interface RigOptions {
  readonly resource?: ResourceSpec;
  readonly project?: Project<Thing>;
  readonly random?: () => number;
  readonly startJitterMs?: number;
}

/** The list+watch runs from the start; its jitter is nothing unless the options say otherwise. */
export async function startRig(options: RigOptions = {}): Promise<Rig> {
  const server = await startScriptedServer();
  const clock = new FakeClock(1_000_000_000_000);
  const delays: number[] = [];
  const log: Logger = {
    ...silentLogger,
    warn: (fields) => {
      if ('retryInMs' in fields) delays.push(Number(fields.retryInMs));
    },
  };
  const client = createKubeClient(
    {
      server: server.url,
      serverName: undefined,
      insecure: false,
      ca: undefined,
      user: {},
      namespace: 'default',
    },
    {
      clock,
      log,
      userAgent: 'podwire-test/1',
      random: options.random ?? ((): number => 0),
      startJitterMs: options.startJitterMs ?? 0,
    },
  );
  const store = createStore<Thing>();
  const stop = new AbortController();
  const listWatch = client.watchResource(
    options.resource ?? allNodes,
    options.project ?? projectThing,
    store,
    stop.signal,
  );
  return {
    server,
    client,
    clock,
    store,
    listWatch,
    stop,
    delays,
    content: () =>
      [...store.snapshot().values()]
        .map(({ name, value }) => `${name}=${value}`)
        .toSorted()
        .join(' '),
    refuseWatchList: async () => {
      (await server.next()).json(422, { kind: 'Status', code: 422, reason: 'Invalid' });
    },
    list: async (resourceVersion, ...things) => {
      const exchange = await server.next();
      exchange.json(200, {
        kind: 'List',
        metadata: { resourceVersion },
        items: things.map((text) => thing(text, resourceVersion)),
      });
      return exchange;
    },
    watch: async () => {
      const exchange = await server.next();
      exchange.open();
      return exchange;
    },
    passDelay: async (count) => {
      await until(`failure ${count}`, () => delays.length >= count);
      await clock.advance(delays.at(-1) ?? 0);
    },
    [Symbol.asyncDispose]: async () => {
      await client[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

/** The raw object of "name=value", or of "name/uid=value". */
export function thing(text: string, resourceVersion: string): object {
  const [path = '', value = ''] = text.split('=');
  const [name = '', uid = `uid-${name}`] = path.split('/');
  return { metadata: { name, uid, resourceVersion }, value };
}

export const projectThing: Project<Thing> = (raw, intern) => {
  const meta = projectMeta(raw, intern);
  if (meta === undefined) return undefined;
  return { ...meta, value: (raw as { readonly value?: string }).value ?? '' };
};
