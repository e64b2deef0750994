import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { startEmbeddedApi, type EmbeddedApi } from '#pkg/embedded-api/embedded-api.ts';
import { listAt, textAt, textsAt, type JsonObject } from '#pkg/embedded-api/json.ts';
import { until } from '#pkg/embedded-api/testing/start-test-api.ts';

// The machine may be busy with other tests.
vi.setConfig({ testTimeout: 60_000 });

let api: EmbeddedApi;
let clock: FakeClock;
beforeEach(async () => {
  clock = new FakeClock(Date.UTC(2026, 0, 1));
  api = await startEmbeddedApi({
    clock,
    serviceCIDRs: ['10.96.0.0/16'],
    nodeCIDRs: { clusterCIDRs: ['10.244.0.0/22', 'fd00:10:244::/48'] },
  });
});
afterEach(() => api[Symbol.asyncDispose]());

const podName = { apiVersion: 'v1', kind: 'Pod', name: 'web-1' };

function addPod(name: string, ip: string, more: JsonObject = {}): void {
  api.objects.create({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels: { app: 'web' }, ...more },
    spec: { nodeName: 'n1', containers: [{ name: 'c' }] },
  });
  setStatus(name, ip, 'True');
}

function setStatus(name: string, ip: string, ready: string): void {
  const status = { podIPs: [{ ip }], conditions: [{ type: 'Ready', status: ready }] };
  api.objects.patch({ ...podName, name }, 'merge', { status }, { subresource: 'status' });
}

function addService(name = 'web'): void {
  const spec = { selector: { app: 'web' }, ports: [{ port: 80 }] };
  api.objects.create({ apiVersion: 'v1', kind: 'Service', metadata: { name }, spec });
}

/** Endpoints of a Service: address and what it is ready for. */
function endpoints(service = 'web'): string[] {
  const { items } = api.objects.list({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    labelSelector: `kubernetes.io/service-name=${service}`,
  });
  return items.flatMap((slice) =>
    listAt(slice, 'endpoints').map((endpoint) => {
      const is = (condition: string): string =>
        textAt(endpoint, 'conditions', condition) === 'true' ? ` ${condition}` : '';
      return `${textsAt(endpoint, 'addresses').join()}${is('ready')}${is('serving')}${is('terminating')}`;
    }),
  );
}

function endpointsAre(...expected: readonly string[]): Promise<void> {
  return until(
    `endpoints are ${expected.join(', ')}`,
    () => endpoints().join() === expected.join(),
  );
}

describe('EndpointSlices', () => {
  it('follow Pods as they come, change, end and go', async () => {
    addService();
    await until('there is an empty slice', () => sliceCount() === 1);
    addPod('web-1', '10.0.0.1');
    addPod('web-2', '10.0.0.2');
    await endpointsAre('10.0.0.1 ready serving', '10.0.0.2 ready serving');
    setStatus('web-2', '10.0.0.2', 'False');
    await endpointsAre('10.0.0.1 ready serving', '10.0.0.2');
    api.objects.patch({ ...podName, name: 'web-2' }, 'merge', {
      metadata: { labels: { app: 'other' } },
    });
    await endpointsAre('10.0.0.1 ready serving');
    api.objects.delete(podName, { gracePeriodSeconds: 30 });
    await endpointsAre('10.0.0.1 serving terminating');
    await clock.advance(29_000);
    expect(api.objects.find(podName)).toBeDefined();
    await clock.advance(1000);
    expect(api.objects.find(podName)).toBeUndefined();
    await endpointsAre();
  });

  it('go with their Service and leave those of others alone', async () => {
    addPod('web-1', '10.0.0.1');
    addService();
    await endpointsAre('10.0.0.1 ready serving');
    api.objects.create({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: 'by-hand', labels: { 'kubernetes.io/service-name': 'web' } },
      addressType: 'IPv4',
      endpoints: [{ addresses: ['10.9.9.9'] }],
    });
    api.objects.delete({ apiVersion: 'v1', kind: 'Service', name: 'web' });
    await until('ours is gone', () => sliceCount() === 1);
    expect(endpoints()).toEqual(['10.9.9.9']);
  });

  it('come back when someone removes or changes them', async () => {
    addPod('web-1', '10.0.0.1');
    addService();
    await endpointsAre('10.0.0.1 ready serving');
    const sliceKind = { apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice' };
    const name = (): string => api.objects.list(sliceKind).items[0]?.metadata.name ?? '';
    api.objects.patch({ ...sliceKind, name: name() }, 'merge', { endpoints: [] });
    expect(endpoints()).toEqual([]);
    await endpointsAre('10.0.0.1 ready serving');
    api.objects.delete({ ...sliceKind, name: name() });
    expect(endpoints()).toEqual([]);
    await endpointsAre('10.0.0.1 ready serving');
  });

  it('end with their Namespace', async () => {
    const metadata = { name: 'team' };
    api.objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata });
    const spec = { selector: { app: 'web' }, ports: [{ port: 80 }] };
    api.objects.create({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web', namespace: 'team' },
      spec,
    });
    await until('there is a slice', () => sliceCount() === 1);
    api.objects.delete({ apiVersion: 'v1', kind: 'Namespace', name: 'team' });
    expect(api.objects.find({ apiVersion: 'v1', kind: 'Namespace', name: 'team' })).toBeUndefined();
    expect(sliceCount()).toBe(0);
  });

  it('of a hundred new Pods are written once', async () => {
    addService();
    await until('there is an empty slice', () => sliceCount() === 1);
    const slice = { apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice' };
    let writes = 0;
    const stop = api.objects.watch(slice, (event) => (writes += event.type === 'MODIFIED' ? 1 : 0));
    for (let i = 0; i < 100; i++) addPod(`web-${i}`, `10.0.1.${i}`);
    await until('all are there', () => endpoints().length === 100);
    stop();
    expect(writes).toBe(1);
  });
});

function sliceCount(): number {
  return api.objects.list({ apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice' }).items
    .length;
}

describe('podCIDRs', () => {
  function addNode(name: string, podCIDRs?: readonly string[]): void {
    const spec = podCIDRs === undefined ? {} : { podCIDRs: [...podCIDRs] };
    api.objects.create({ apiVersion: 'v1', kind: 'Node', metadata: { name }, spec });
  }

  function podCIDRs(name: string): readonly string[] {
    return textsAt(api.objects.get({ apiVersion: 'v1', kind: 'Node', name }), 'spec', 'podCIDRs');
  }

  it('are the lowest free ones, oldest Node first, of each family', async () => {
    addNode('by-hand', ['10.244.0.0/23']);
    addNode('z');
    addNode('a');
    await until('both have theirs', () => podCIDRs('a').length === 2);
    expect(podCIDRs('z')).toEqual(['10.244.2.0/24', 'fd00:10:244::/64']);
    expect(podCIDRs('a')).toEqual(['10.244.3.0/24', 'fd00:10:244:1::/64']);
    expect(
      textAt(api.objects.get({ apiVersion: 'v1', kind: 'Node', name: 'a' }), 'spec', 'podCIDR'),
    ).toBe('10.244.3.0/24');
  });

  it('run out, and are given again when a Node goes', async () => {
    for (const name of ['a', 'b', 'c', 'd', 'e']) addNode(name);
    await until('four have theirs', () => podCIDRs('d').length === 2);
    expect(podCIDRs('e')).toEqual([]);
    api.objects.delete({ apiVersion: 'v1', kind: 'Node', name: 'b' });
    await until('the fifth has them', () => podCIDRs('e').length === 2);
    expect(podCIDRs('e')).toEqual(['10.244.1.0/24', 'fd00:10:244:1::/64']);
  });
});

it('a Pod asked to end sooner ends sooner, and its successor is left alone', async () => {
  addPod('web-1', '10.0.0.1');
  api.objects.delete(podName, { gracePeriodSeconds: 30 });
  api.objects.delete(podName, { gracePeriodSeconds: 5 });
  api.objects.delete(podName, { gracePeriodSeconds: 20 });
  await clock.advance(5000);
  expect(api.objects.find(podName)).toBeUndefined();
  addPod('web-1', '10.0.0.1');
  await clock.advance(60_000);
  expect(api.objects.find(podName)).toBeDefined();
});
