/** The client against the API server we ship for development: both must speak the same protocol. */
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { type EmbeddedApi, startEmbeddedApi } from '#pkg/embedded-api/embedded-api.ts';
import type { JsonObject } from '#pkg/embedded-api/json.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { type Logger, silentLogger } from '#pkg/log/logger.ts';
import { afterEach, describe, expect, test } from 'vitest';
import { createKubeClient, type KubeClient, type ListWatch } from './client.ts';
import type { ClusterConfig } from './cluster-config.ts';
import { createEventRecorder } from './events.ts';
import { projectEndpointSlice, projectNode, projectService } from './project.ts';
import {
  allNodes,
  eventType,
  nodeType,
  oneNode,
  proxiedEndpointSlices,
  proxiedServices,
  serviceType,
} from './resources.ts';
import { createStore, type WritableStore } from './store.ts';
import { createAuthority } from './testing/certificates.ts';
import { type FaultProxy, startFaultProxy } from './testing/fault-proxy.ts';
import { until } from './testing/until.ts';
import type { NodeRecord } from './types.ts';

const authority = createAuthority();
const tls = typeof authority === 'string' ? undefined : authority.issue('127.0.0.1');
const signal = AbortSignal.timeout(60_000);

let opened = new AsyncDisposableStack();
afterEach(async () => {
  await opened.disposeAsync();
  opened = new AsyncDisposableStack();
});

interface Setup {
  readonly api: EmbeddedApi;
  readonly client: KubeClient;
  readonly clock: FakeClock;
  readonly proxy: FaultProxy;
  readonly delays: readonly number[];
}

/** The embedded server, and a client with a still clock that reaches it through a breakable proxy. */
async function setUp(
  protocol: 'h1' | 'h2' = 'h1',
  more: Partial<ClusterConfig> = {},
): Promise<Setup> {
  const secure = protocol === 'h2' && typeof authority !== 'string' && tls !== undefined;
  const api = opened.use(
    await startEmbeddedApi({
      listen: [{ host: '127.0.0.1', port: 0 }],
      serviceCIDRs: ['10.96.0.0/16'],
      runControllers: false,
      ...(secure ? { tls } : {}),
    }),
  );
  const proxy = opened.use(await startFaultProxy(Number(new URL(api.urls[0] ?? '').port)));
  const clock = new FakeClock(Date.parse('2026-01-01T00:00:00Z'));
  const delays: number[] = [];
  const log: Logger = {
    ...silentLogger,
    warn: (fields) => {
      if ('retryInMs' in fields) delays.push(Number(fields.retryInMs));
    },
  };
  const config: ClusterConfig = {
    server: `${secure ? 'https' : 'http'}://127.0.0.1:${proxy.port}`,
    serverName: undefined,
    insecure: false,
    ca: secure ? { kind: 'text', text: authority.ca } : undefined,
    user: {},
    namespace: 'default',
    ...more,
  };
  const options = { clock, log, userAgent: 'podwire-test/1', random: (): number => 0 };
  const client = opened.use(createKubeClient(config, options));
  return { api, client, clock, proxy, delays };
}

function watchNodes(client: KubeClient): {
  readonly store: WritableStore<NodeRecord>;
  readonly listWatch: ListWatch;
} {
  const store = createStore<NodeRecord>();
  return { store, listWatch: client.watchResource(allNodes, projectNode, store, signal) };
}

const node = (name: string): JsonObject => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name },
  spec: { podCIDR: '10.244.1.0/24', podCIDRs: ['10.244.1.0/24'] },
});
const nodeName = { apiVersion: 'v1', kind: 'Node' };

describe('objects', () => {
  test('are read, created, patched in three ways, and deleted', async () => {
    const { client } = await setUp();
    await client.create({ type: nodeType }, node('a'), signal);
    const ref = { type: nodeType, name: 'a' };
    const annotations = { 'podwire.dev/backend-type': 'vxlan' };
    await client.patch(ref, { kind: 'merge', body: { metadata: { annotations } } }, signal);
    const condition = { type: 'NetworkUnavailable', status: 'False', reason: 'Ready' };
    await client.patch(
      { ...ref, subresource: 'status' },
      { kind: 'strategic', body: { status: { conditions: [condition] } } },
      signal,
    );
    const labels = { applied: 'yes' };
    const apply = { ...node('a'), metadata: { name: 'a', labels } };
    await client.patch(ref, { kind: 'apply', body: apply, fieldManager: 'podwire' }, signal);
    expect(await client.get(ref, signal)).toMatchObject({
      metadata: { name: 'a', annotations, labels },
      status: { conditions: [condition] },
    });
    await client.delete(ref, signal);
    const missing = await client.get(ref, signal).catch((error: unknown) => error);
    expect(isErrno(missing, 'NotFound')).toBe(true);
  });
});

describe('a store', () => {
  test('follows Nodes: one WatchList, then live', async () => {
    const { api, client } = await setUp();
    api.objects.create(node('a'));
    const { store, listWatch } = watchNodes(client);
    await store.whenSynced(signal);
    expect(store.get('a')?.podCIDRs).toEqual(['10.244.1.0/24']);
    api.objects.create(node('b'));
    api.objects.delete({ ...nodeName, name: 'a' });
    await until('both changes', () => store.size === 1 && store.get('b') !== undefined);
    expect(listWatch.stats).toMatchObject({ lists: 0, watches: 1, errors: {} });
  });

  test('holds what kube-proxy would see of Services and EndpointSlices, as labels come and go', async () => {
    const { api, client } = await setUp();
    const inDefault = (name: string, more: object = {}): { name: string } => {
      return { name, namespace: 'default', ...more } as { name: string };
    };
    const service = (name: string, spec: object): Parameters<typeof api.objects.create>[0] => {
      const ports = [{ port: 80 }];
      return {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: inDefault(name),
        spec: { ports, ...spec },
      };
    };
    api.objects.create(service('plain', {}));
    api.objects.create(service('headless', { clusterIP: 'None' }));
    const slice = (name: string, labels: JsonObject): JsonObject => ({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name, namespace: 'default', labels },
      addressType: 'IPv4',
      endpoints: [{ addresses: ['10.244.1.5'] }],
      ports: [{ name: '', port: 8080 }],
    });
    api.objects.create(slice('plain-1', { 'kubernetes.io/service-name': 'plain' }));
    api.objects.create(slice('headless-1', { 'service.kubernetes.io/headless': '' }));
    const services = createStore<NonNullable<ReturnType<typeof projectService>>>();
    const slices = createStore<NonNullable<ReturnType<typeof projectEndpointSlice>>>();
    client.watchResource(proxiedServices, projectService, services, signal);
    client.watchResource(proxiedEndpointSlices, projectEndpointSlice, slices, signal);
    await Promise.all([services.whenSynced(signal), slices.whenSynced(signal)]);
    const names = (): string[] => [...services.snapshot().keys(), ...slices.snapshot().keys()];
    expect(names()).toContain('default/plain');
    expect(names()).toContain('default/plain-1');
    expect(names().filter((name) => name.includes('headless'))).toEqual([]);
    expect(services.get('default/plain')?.clusterIPs).toHaveLength(1);

    const ref = { type: serviceType, namespace: 'default', name: 'plain' };
    const label = 'service.kubernetes.io/service-proxy-name';
    const setLabel = (value: string | null): Promise<unknown> => {
      const body = { metadata: { labels: { [label]: value } } };
      return client.patch(ref, { kind: 'merge', body }, signal);
    };
    await setLabel('other');
    await until('it leaves', () => services.get('default/plain') === undefined);
    await setLabel(null);
    await until('it is back', () => services.get('default/plain') !== undefined);
  });

  test('holds one Node when it asks for one', async () => {
    const { api, client } = await setUp();
    for (const name of ['a', 'b']) api.objects.create(node(name));
    const store = createStore<NodeRecord>();
    client.watchResource(oneNode('b'), projectNode, store, signal);
    await store.whenSynced(signal);
    api.objects.create(node('c'));
    api.objects.patch({ ...nodeName, name: 'b' }, 'merge', { metadata: { labels: { x: 'y' } } });
    await until('the change', () => store.get('b')?.labels['x'] === 'y');
    expect([...store.snapshot().keys()]).toEqual(['b']);
  });

  test.each(['event', 'http'] as const)(
    'survives compaction (410 as %s): a recreated Node is told as such',
    async (form) => {
      const { api, client, clock, delays } = await setUp();
      for (const name of ['a', 'b']) api.objects.create(node(name));
      const { store, listWatch } = watchNodes(client);
      await store.whenSynced(signal);
      using changes = store.subscribe(() => undefined);
      api.faults.goneAs(form);
      api.faults.disconnectWatches();
      await until('the first failure', () => delays.length === 1);
      api.objects.delete({ ...nodeName, name: 'a' });
      api.objects.delete({ ...nodeName, name: 'b' });
      api.objects.create(node('b'));
      api.compact();
      await clock.advance(delays[0] ?? 0);
      await until('410', () => delays.length === 2);
      await clock.advance(delays[1] ?? 0);
      await until('the new state', () => store.size === 1);
      expect(changes.drain().toSorted((a, b) => a.key.localeCompare(b.key))).toMatchObject([
        { key: 'a', new: undefined },
        { key: 'b', recreated: true },
      ]);
      expect(listWatch.stats.errors).toMatchObject({ '410': 1 });
    },
  );

  test('recovers by itself from a token that is refused for a while', async () => {
    const { api, client, clock, delays } = await setUp('h1', { user: { token: 'good' } });
    api.faults.setTokens([{ token: 'other', user: 'x' }]);
    const { store } = watchNodes(client);
    for (let failure = 1; failure <= 4; failure++) {
      await until('a refusal', () => delays.length === failure);
      if (failure === 4) api.faults.setTokens([{ token: 'good', user: 'x' }]);
      await clock.advance(delays.at(-1) ?? 0);
    }
    await store.whenSynced(signal);
  });
});

describe.each(tls === undefined ? (['h1'] as const) : (['h1', 'h2'] as const))(
  'over %s',
  (protocol) => {
    test.each(['fin', 'rst', 'cut', 'end'] as const)(
      'a watch survives %s: nothing is lost, nothing is listed again',
      async (fault) => {
        const { api, client, clock, proxy, delays } = await setUp(protocol);
        const { store, listWatch } = watchNodes(client);
        await store.whenSynced(signal);
        for (let round = 1; round <= 3; round++) {
          await until('the watch is open', () => api.openWatchCount === 1);
          if (fault === 'cut') api.faults.disconnectWatches();
          else if (fault === 'end') api.faults.endWatches();
          else proxy[fault]();
          api.objects.create(node(`n${round}`));
          await until('the failure, or a normal end', () => {
            return delays.length >= round || listWatch.stats.watches > round;
          });
          await clock.advance(delays.at(-1) ?? 0);
          await until('the change', () => store.size === round);
        }
        expect(listWatch.stats.lists).toBe(0);
        expect(Math.max(0, ...delays)).toBeLessThanOrEqual(800);
      },
    );

    test('a server that refuses connections for a while is found again', async () => {
      const { api, client, clock, proxy, delays } = await setUp(protocol);
      const { store, listWatch } = watchNodes(client);
      await store.whenSynced(signal);
      await proxy.refuse(true);
      proxy.rst();
      api.objects.create(node('meanwhile'));
      for (let failure = 1; failure <= 4; failure++) {
        await until('a failure', () => delays.length === failure);
        if (failure === 4) await proxy.refuse(false);
        await clock.advance(delays.at(-1) ?? 0);
      }
      await until('the change', () => store.size === 1);
      expect(delays).toEqual([800, 1_600, 3_200, 6_400]);
      expect(listWatch.stats.errors).toHaveProperty('ECONNREFUSED', 3);
    });

    test('a peer that vanished is noticed, and the watch goes on where it was', async () => {
      const { api, client, clock, proxy, delays } = await setUp(protocol);
      const { store, listWatch } = watchNodes(client);
      await store.whenSynced(signal);
      proxy.blackHole();
      api.objects.create(node('meanwhile'));
      // HTTP/2 asks by PING after 30 s; HTTP/1.1 has only the missing bookmarks to go by.
      const noticedMs = protocol === 'h2' ? 45_000 : 150_000;
      for (let passedMs = 0; passedMs < noticedMs; passedMs += 1_000) {
        expect(delays).toEqual([]);
        await clock.advance(1_000);
      }
      await until('it is noticed', () => delays.length === 1);
      await clock.advance(delays[0] ?? 0);
      await until('the change', () => store.size === 1);
      expect(listWatch.stats.lists).toBe(0);
    });

    test('four resources are watched over one connection, or one each', async () => {
      const { client, proxy } = await setUp(protocol);
      const stores = [1, 2, 3, 4].map(() => watchNodes(client).store);
      await Promise.all(stores.map((store) => store.whenSynced(signal)));
      expect(proxy.connections).toBe(protocol === 'h2' ? 1 : 4);
    });
  },
);

test('an Event is posted once and then counted, and its target has a budget', async () => {
  const { api, client, clock } = await setUp();
  const recorder = createEventRecorder({ client, clock, component: 'podwire-node', nodeName: 'a' });
  const target = { type: nodeType, namespace: '', name: 'a', uid: 'u' };
  const report = { target, type: 'Warning', reason: 'NoPodCIDR', message: 'none yet' } as const;
  const posted = (): readonly unknown[] => {
    return api.objects.list({ apiVersion: 'v1', kind: 'Event', namespace: 'default' }).items;
  };
  for (let i = 0; i < 3; i++) {
    await clock.advance(1_000);
    expect(await recorder.record(report, signal)).toBe(true);
  }
  expect(posted()).toMatchObject([
    {
      involvedObject: { kind: 'Node', name: 'a', uid: 'a', apiVersion: 'v1' },
      type: 'Warning',
      reason: 'NoPodCIDR',
      message: 'none yet',
      count: 3,
      firstTimestamp: '2026-01-01T00:00:01Z',
      lastTimestamp: '2026-01-01T00:00:03Z',
      source: { component: 'podwire-node', host: 'a' },
    },
  ]);

  // Servers drop Events after an hour: it is posted anew.
  const [event] = posted() as [{ metadata: { name: string } }];
  const ref = { type: eventType, namespace: 'default', name: event.metadata.name };
  await client.delete(ref, signal);
  expect(await recorder.record(report, signal)).toBe(true);
  expect(posted()).toMatchObject([{ count: 1 }]);

  let written = 4;
  while (await recorder.record({ ...report, message: `other ${written}` }, signal)) written += 1;
  expect(written).toBe(25);
  // Setting the machine's clock neither fills nor empties it.
  clock.set(Date.parse('2025-01-01T00:00:00Z'));
  await clock.advance(5 * 60_000);
  expect(await recorder.record(report, signal)).toBe(true);
  expect(await recorder.record(report, signal)).toBe(false);
});
