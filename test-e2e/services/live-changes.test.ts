/** Changes of live Services through the API server, and what packets find then. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createProxiedNode, type ProxiedNode } from '#cmd/podwire-proxy/scratch/proxied-node.ts';
import { eventually, programs } from '#test/test-cluster.ts';

let node: ProxiedNode;

beforeAll(async () => {
  node = await createProxiedNode(join(programs.dist, 'podwire-proxy'));
  node.startDaemon();
  putService('ready', { clusterIP: '10.96.0.9' });
  putSlice('ready', ['10.1.2.2']);
  await eventually('rules', () => rulesHave('default/ready'));
});
afterAll(() => node?.[Symbol.asyncDispose]());

const slow = { timeout: 60_000, interval: 30 };
const ports = [{ name: 'http', port: 80, protocol: 'TCP' }];
const serviceRef = (
  name: string,
): { apiVersion: string; kind: string; namespace: string; name: string } => ({
  apiVersion: 'v1',
  kind: 'Service',
  namespace: 'default',
  name,
});

function putService(name: string, spec: Record<string, string | number | string[]>): void {
  const metadata = { namespace: 'default', name };
  node.api.objects.create({
    apiVersion: 'v1',
    kind: 'Service',
    metadata,
    spec: { ports, ...spec },
  });
}

type Endpoint = string | { readonly address: string; readonly zone: string };

function putSlice(name: string, endpoints: readonly Endpoint[], addressType = 'IPv4'): void {
  node.api.objects.apply({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      namespace: 'default',
      name: `${name}-${addressType.toLowerCase()}`,
      labels: { 'kubernetes.io/service-name': name },
    },
    addressType,
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints: endpoints.map((e) =>
      typeof e === 'string'
        ? { addresses: [e] }
        : { addresses: [e.address], hints: { forZones: [{ name: e.zone }] } },
    ),
  });
}

function patchService(
  name: string,
  patch: Parameters<ProxiedNode['api']['objects']['patch']>[2],
): void {
  node.api.objects.patch(serviceRef(name), 'merge', patch);
}

/** Until new connections of the client pod are answered so, and in no other way. */
async function answersBecome(expected: string[], host: string, port = 80): Promise<void> {
  const { client } = node.network;
  const answers = async (): Promise<string[]> => [
    ...new Set(await node.network.connect(client, { host, port, count: 12, timeoutMs: 2_000 })),
  ];
  await expect.poll(async () => (await answers()).toSorted(), slow).toEqual(expected);
}

const rulesHave = (text: string): Promise<boolean> =>
  node.save('ip').then((saved) => saved.includes(text));

it('S146. an ExternalName becomes a cluster address, a node port, and an ExternalName again', async () => {
  const name = 'morph';
  node.api.objects.create({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'default', name },
    spec: { type: 'ExternalName', externalName: 'example.com' },
  });
  putSlice(name, ['10.1.2.2']);
  const address = { clusterIP: '10.96.0.21', clusterIPs: ['10.96.0.21'], externalName: null };
  patchService(name, { spec: { type: 'ClusterIP', ...address, ports } });
  await answersBecome(['one 10.1.1.2'], '10.96.0.21');
  patchService(name, { spec: { type: 'NodePort', ports: [{ ...ports[0], nodePort: 30121 }] } });
  await answersBecome(['one 10.1.2.1'], '203.0.113.1', 30121);
  patchService(name, {
    spec: {
      type: 'ExternalName',
      externalName: 'example.com',
      clusterIP: null,
      clusterIPs: null,
      ipFamilies: null,
      ipFamilyPolicy: null,
      ports: null,
      externalTrafficPolicy: null,
      internalTrafficPolicy: null,
    },
  });
  await expect.poll(() => rulesHave('default/morph'), slow).toBe(false);
});

it('S104. S150. labels take a Service away from this proxy, and its slices, and give them back', async () => {
  putService('labelled', { clusterIP: '10.96.0.22' });
  putSlice('labelled', ['10.1.3.2']);
  await answersBecome(['two 10.1.1.2'], '10.96.0.22');
  const label = 'service.kubernetes.io/service-proxy-name';
  patchService('labelled', { metadata: { labels: { [label]: 'another' } } });
  await expect.poll(() => rulesHave('default/labelled'), slow).toBe(false);
  patchService('labelled', { metadata: { labels: { [label]: null } } });
  await answersBecome(['two 10.1.1.2'], '10.96.0.22');

  const slice = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    namespace: 'default',
    name: 'labelled-ipv4',
  };
  const headless = 'service.kubernetes.io/headless';
  node.api.objects.patch(slice, 'merge', { metadata: { labels: { [headless]: '' } } });
  await answersBecome(['ECONNREFUSED'], '10.96.0.22');
  node.api.objects.patch(slice, 'merge', { metadata: { labels: { [headless]: null } } });
  await answersBecome(['two 10.1.1.2'], '10.96.0.22');
});

it('S152. external Local to Cluster closes the health check node port, back opens the same', async () => {
  putService('checked', {
    type: 'LoadBalancer',
    clusterIP: '10.96.0.23',
    externalTrafficPolicy: 'Local',
    healthCheckNodePort: 31023,
  });
  const rule = 'default/checked:http health check node port';
  await expect.poll(() => rulesHave(rule), slow).toBe(true);
  const spec = { externalTrafficPolicy: 'Cluster', healthCheckNodePort: null };
  patchService('checked', { spec });
  await expect.poll(() => rulesHave(rule), slow).toBe(false);
  patchService('checked', { spec: { externalTrafficPolicy: 'Local', healthCheckNodePort: 31023 } });
  await expect.poll(() => rulesHave(`${rule}" -m tcp --dport 31023 -j ACCEPT`), slow).toBe(true);
});

it('S163. a Service of IPv4 gets IPv6 too', async () => {
  putService('growing', { clusterIP: '10.96.0.24' });
  putSlice('growing', ['10.1.2.2']);
  putSlice('growing', ['fd00:10:3::2'], 'IPv6');
  await answersBecome(['one 10.1.1.2'], '10.96.0.24');
  const clusterIPs = ['10.96.0.24', 'fd00:96::24'];
  const both = { ipFamilyPolicy: 'RequireDualStack', ipFamilies: ['IPv4', 'IPv6'], clusterIPs };
  patchService('growing', { spec: both });
  await answersBecome(['two fd00:10:1::2'], 'fd00:96::24');
  await answersBecome(['one 10.1.1.2'], '10.96.0.24');
});

it('S89. S164. the nearest endpoints are used, others when they are gone, by the zone the node is in', async () => {
  const near = { address: '10.1.2.2', zone: 'z1' };
  const far = { address: '10.1.3.2', zone: 'z2' };
  putService('hinted', { clusterIP: '10.96.0.25' });
  putSlice('hinted', [near, far]);
  await answersBecome(['one 10.1.1.2'], '10.96.0.25');
  const ref = { apiVersion: 'v1', kind: 'Node', name: 'node-one' };
  const move = (zone: string): unknown =>
    node.api.objects.patch(ref, 'merge', {
      metadata: { labels: { 'topology.kubernetes.io/zone': zone } },
    });
  move('z2');
  await answersBecome(['two 10.1.1.2'], '10.96.0.25');
  move('z1');
  await answersBecome(['one 10.1.1.2'], '10.96.0.25');
  putSlice('hinted', [far]);
  await answersBecome(['two 10.1.1.2'], '10.96.0.25');
});

it('S167. endpoints are exchanged for others and back, and no connection fails', async () => {
  const host = '10.96.0.27';
  putService('coloured', { clusterIP: host });
  putSlice('coloured', ['10.1.2.2']);
  await answersBecome(['one 10.1.1.2'], host);
  const { client, node: own } = node.network;
  const users = [client, own].map((netns) => node.network.agent(netns));
  for (const user of users)
    await user.startConnecting('coloured', { host, port: 80, intervalMs: 5 });
  for (const [address, name] of [
    ['10.1.3.2', 'two'],
    ['10.1.2.2', 'one'],
    ['10.1.3.2', 'two'],
  ] as const) {
    putSlice('coloured', [address]);
    await answersBecome([`${name} 10.1.1.2`], host);
  }
  for (const user of users) {
    const { answers, failures } = await user.stopConnecting('coloured');
    expect(failures).toEqual([]);
    expect(Object.keys(answers).map((answer) => answer.split(' ')[0])).toEqual(
      expect.arrayContaining(['one', 'two']),
    );
  }
});

it('S142. a Service that was deleted comes back under its name, with other endpoints', async () => {
  putService('again', { clusterIP: '10.96.0.26' });
  putSlice('again', ['10.1.2.2']);
  await answersBecome(['one 10.1.1.2'], '10.96.0.26');
  node.api.objects.delete(serviceRef('again'));
  await expect.poll(() => rulesHave('default/again'), slow).toBe(false);
  putSlice('again', ['10.1.3.2']);
  putService('again', { clusterIP: '10.96.0.26' });
  await answersBecome(['two 10.1.1.2'], '10.96.0.26');
});

it('S141. a Service works on without an API server, and changes when there is one again', async () => {
  const { api, network } = node;
  const user = network.agent(network.client);
  await user.startConnecting('meanwhile', { host: '10.96.0.9', port: 80 });
  let refused = 0;
  api.faults.intercept(() => {
    refused += 1;
    return { kind: 'cut' };
  });
  api.faults.disconnectAll();
  await expect.poll(() => refused, slow).toBeGreaterThan(2);
  putSlice('ready', ['10.1.3.2']);
  expect(await network.connect(network.client, { host: '10.96.0.9', port: 80 })).toEqual([
    'one 10.1.1.2',
  ]);
  api.faults.intercept(undefined);
  await answersBecome(['two 10.1.1.2'], '10.96.0.9');
  const { answers, failures } = await user.stopConnecting('meanwhile');
  expect(failures).toEqual([]);
  expect(answers).toHaveProperty(['one 10.1.1.2']);
});
