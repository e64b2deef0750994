/** What a load balancer outside hears of the daemon on its Services' health check node ports. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createProxiedNode, nodeName, type ProxiedNode } from './scratch/proxied-node.ts';

let node: ProxiedNode;
beforeEach(async () => {
  node = await createProxiedNode();
});
afterEach(() => node[Symbol.asyncDispose]());

const slow = { timeout: 60_000, interval: 50 };
const port = 32_000;
const balancer = '198.51.100.7';

function putService(name: string, fields: object = {}): void {
  const number = name === 'web' ? '10' : '11';
  const metadata = { namespace: 'default', name };
  const status = { loadBalancer: { ingress: [{ ip: balancer, ipMode: 'VIP' }] } };
  node.api.objects.apply({
    apiVersion: 'v1',
    kind: 'Service',
    metadata,
    spec: {
      type: 'LoadBalancer',
      clusterIP: `10.96.0.${number}`,
      clusterIPs: [`10.96.0.${number}`, `fd00:96::${number}`],
      ipFamilies: ['IPv4', 'IPv6'],
      ipFamilyPolicy: 'RequireDualStack',
      externalTrafficPolicy: 'Local',
      healthCheckNodePort: port,
      ports: [{ name: 'http', port: 80, targetPort: 8080 }],
      ...fields,
    },
  });
  const service = { apiVersion: 'v1', kind: 'Service', namespace: 'default', name };
  node.api.objects.patch(service, 'merge', { status }, { subresource: 'status' });
}

function putPod(conditions: Readonly<Record<string, boolean>>): void {
  for (const [family, address] of [
    ['IPv4', '10.1.2.2'],
    ['IPv6', 'fd00:10:2::2'],
  ]) {
    node.api.objects.apply({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        namespace: 'default',
        name: `web-${family}`.toLowerCase(),
        labels: { 'kubernetes.io/service-name': 'web' },
      },
      addressType: family,
      ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
      endpoints: [{ addresses: [address ?? ''], conditions, nodeName }],
    });
  }
}

/** "200 1" = status and weight; an error code when nobody answers. Asked from outside. */
async function health(host: string): Promise<string> {
  const script = `fetch(process.argv[1]).then(
    (a) => process.stdout.write(a.status + ' ' + a.headers.get('x-load-balancing-endpoint-weight')),
    (e) => process.stdout.write(e.cause.code));`;
  const { outside } = node.network;
  return (await outside.exec(process.execPath, ['-e', script, `http://${host}:${port}/healthz`]))
    .stdout;
}
const both = async (): Promise<string[]> => [
  await health('203.0.113.1'),
  await health('[2001:db8::1]'),
];

describe('a load balancer', () => {
  test('S49. S152. S153. hears from a node whether to send it traffic of a Service', async () => {
    const { network } = node;
    await network.outside.ip(`route add ${balancer} via 203.0.113.1`);
    putService('web');
    putPod({ ready: true });
    const daemon = node.startDaemon();
    await expect.poll(both, slow).toEqual(['200 1', '200 1']);

    // The only endpoint here is ending: no new traffic please, but what comes is served.
    putPod({ ready: false, serving: true, terminating: true });
    await expect.poll(both, slow).toEqual(['503 0', '503 0']);
    const through = { host: balancer, port: 80 };
    expect(await network.connect(network.outside, through)).toEqual(['one 203.0.113.2']);

    putService('web', { externalTrafficPolicy: 'Cluster', healthCheckNodePort: 0 });
    await expect.poll(both, slow).toEqual(['ECONNREFUSED', 'ECONNREFUSED']);
    putPod({ ready: true });
    putService('web');
    await expect.poll(both, slow).toEqual(['200 1', '200 1']);
    expect(daemon.log()).not.toContain('health check node port');
  });

  test('a port that is taken is told of by an Event, and opened when it is free', async () => {
    const { network, api } = node;
    const taken = new AbortController();
    const script = `require('net').createServer().listen(${port}, '0.0.0.0')`;
    const holder = network.node
      .exec(process.execPath, ['-e', script], { timeoutMs: 60_000, signal: taken.signal })
      .catch(() => undefined);
    const listening = async (): Promise<string> =>
      (await network.node.exec('ss', ['-Hltn', `sport = :${port}`])).stdout;
    await expect.poll(listening, slow).toContain(String(port));
    putService('web');
    putPod({ ready: true });
    node.startDaemon();
    const events = (): unknown[] =>
      api.objects
        .list({ apiVersion: 'v1', kind: 'Event' })
        .items.filter((event) => event['reason'] === 'FailedToStartServiceHealthcheck');
    await expect.poll(events, slow).toHaveLength(1);
    const service = { apiVersion: 'v1', kind: 'Service', namespace: 'default', name: 'web' };
    const { uid } = api.objects.get(service).metadata;
    expect(events()).toMatchObject([
      {
        type: 'Warning',
        involvedObject: { kind: 'Service', name: 'web', uid },
        message: expect.stringContaining(
          `node ${nodeName} failed to start healthcheck "default/web" on port ${port}: `,
        ) as unknown,
      },
    ]);
    // In IPv6 nobody was in the way.
    await expect.poll(() => health('[2001:db8::1]')).toBe('200 1');
    taken.abort();
    await holder;
    putService('other', { healthCheckNodePort: port + 1 });
    await expect.poll(both, slow).toEqual(['200 1', '200 1']);
  });
});
