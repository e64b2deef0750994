import { connect, createServer, type Server } from 'node:net';
import { request } from 'node:http';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Family } from '#pkg/ip/address.ts';
import type { EndpointSliceRecord, ServiceRecord } from '#pkg/kube/types.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { ServiceModel } from '#pkg/proxy/service-model.ts';
import {
  asChanges,
  local,
  nodeName,
  service,
  slice,
  type Cluster,
} from '#pkg/proxy/testdata/records.ts';
import { createHealthCheckServers } from './health-check-servers.ts';

/** A model, and the servers that follow it. */
class Bench {
  readonly models = new Map<Family, ServiceModel>();
  addresses: Record<Family, 'all' | string[]> = { ip: ['127.0.0.1'], ip6: ['::1'] };
  isProxyHealthy = true;
  readonly reports: string[] = [];
  readonly warnings: string[] = [];
  readonly servers = createHealthCheckServers({
    nodePortAddresses: (family) => this.addresses[family],
    isProxyHealthy: () => this.isProxyHealthy,
    report: ({ name, namespace }, message) =>
      void this.reports.push(`${namespace}/${name}: ${message}`),
    nodeName,
    log: { ...silentLogger, warn: (_, message) => void this.warnings.push(message) },
  });

  /** The API says this, both families are written, and all is open that is to be. */
  async sync(cluster: Cluster, gone: readonly string[] = []): Promise<void> {
    this.tell(cluster, gone);
    await this.servers.settled();
  }

  tell(cluster: Cluster, gone: readonly string[] = []): void {
    const news = asChanges(cluster);
    for (const family of ['ip', 'ip6'] as const) {
      const model =
        this.models.get(family) ?? new ServiceModel(family, { name: nodeName, zone: undefined });
      this.models.set(family, model);
      const deleted = gone.map((key) => ({ key, new: undefined }));
      const changes = model.update({ ...news, services: [...deleted, ...news.services] });
      this.servers.afterWrite(family, changes, { kind: 'partial', written: 1 });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.servers[Symbol.asyncDispose]();
  }
}

let bench: Bench;
let ports: [number, number];
beforeEach(async () => {
  bench = new Bench();
  ports = [await freePort(), await freePort()];
});
afterEach(() => bench[Symbol.asyncDispose]());

const balanced = (name: string, port: number, fields: Partial<ServiceRecord> = {}): ServiceRecord =>
  service(`ns/${name}`, {
    clusterIPs: ['172.30.0.1', 'fd00:30::1'],
    type: 'LoadBalancer',
    externalTrafficPolicy: 'Local',
    healthCheckNodePort: port,
    ...fields,
  });
const pods = (...addresses: string[]): EndpointSliceRecord[] => [
  slice(
    'ns/a',
    addresses.map((address) => local(address)),
  ),
];
const idle: Cluster = { services: [] };

describe('health check node ports', () => {
  it('S49. answer on any path with the count of endpoints here', async () => {
    await bench.sync({ services: [balanced('a', ports[0])], slices: pods() });
    expect(await ask(ports[0])).toMatchObject({ status: 503, weight: '0' });
    await bench.sync({ services: [], slices: pods('10.1.0.1', '10.1.0.2') });
    const answer = await ask(ports[0], { path: '/any/path?at=all' });
    expect(answer).toMatchObject({ status: 200, weight: '2', type: 'application/json' });
    expect(JSON.parse(answer.body)).toEqual({
      service: { namespace: 'ns', name: 'a' },
      localEndpoints: 2,
      serviceProxyHealthy: true,
    });
  });

  it('S50. say 503 while the proxy is not well, with the right count', async () => {
    await bench.sync({ services: [balanced('a', ports[0])], slices: pods('10.1.0.1') });
    bench.isProxyHealthy = false;
    const answer = await ask(ports[0]);
    expect(answer).toMatchObject({ status: 503, weight: '1' });
    expect(answer.body).toContain('"serviceProxyHealthy": false');
  });

  it('S51. close with their Service, also to who is connected', async () => {
    await bench.sync({ services: [balanced('a', ports[0])], slices: pods('10.1.0.1') });
    const slow = connect({ host: '127.0.0.1', port: ports[0] });
    await once(slow, 'connect');
    slow.write('GET / HTTP/1.1\r\n');
    slow.on('error', () => undefined);
    const ended = new Promise((resolve) => slow.once('close', resolve));
    await ask(ports[0]);
    await bench.sync(idle, ['ns/a']);
    await ended;
    await expect(ask(ports[0])).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });

  it('S51. a Service that is gone before its port is open leaves nothing open', async () => {
    bench.tell({ services: [balanced('a', ports[0])] });
    bench.tell(idle, ['ns/a']);
    await bench.servers.settled();
    await expect(ask(ports[0])).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });

  it('S152. close when externalTrafficPolicy becomes Cluster, and open again', async () => {
    const local = balanced('a', ports[0]);
    await bench.sync({ services: [local], slices: pods('10.1.0.1') });
    await bench.sync({ services: [{ ...local, externalTrafficPolicy: 'Cluster' }] });
    await expect(ask(ports[0])).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    await bench.sync({ services: [local] });
    expect(await ask(ports[0])).toMatchObject({ status: 200 });
  });

  it('move when the number changes', async () => {
    await bench.sync({ services: [balanced('a', ports[0])], slices: pods('10.1.0.1') });
    await bench.sync({ services: [balanced('a', ports[1])] });
    await expect(ask(ports[0])).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    expect(await ask(ports[1])).toMatchObject({ status: 200 });
  });

  it('pass from one Service to another in one step', async () => {
    await bench.sync({ services: [balanced('a', ports[0])], slices: pods('10.1.0.1') });
    const other = balanced('b', ports[0], { clusterIPs: ['172.30.0.2'] });
    await bench.sync({ services: [other] }, ['ns/a']);
    const { body, status } = await ask(ports[0]);
    expect({ status, name: (JSON.parse(body) as { service: object }).service }).toEqual({
      status: 503,
      name: { namespace: 'ns', name: 'b' },
    });
    // Two that swap their numbers.
    await bench.sync({ services: [balanced('a', ports[1])] });
    await bench.sync({
      services: [balanced('a', ports[0]), { ...other, healthCheckNodePort: ports[1] }],
    });
    expect((await ask(ports[0])).body).toContain('"name": "a"');
    expect((await ask(ports[1])).body).toContain('"name": "b"');
    expect(bench.reports).toEqual([]);
  });

  it('of a dual-stack Service open in both families without fighting, each with its count', async () => {
    bench.addresses = { ip: 'all', ip6: 'all' };
    const both = [...pods('10.1.0.1', '10.1.0.2'), ...pods('fd00::1')];
    await bench.sync({ services: [balanced('a', ports[0])], slices: both });
    expect(await ask(ports[0])).toMatchObject({ weight: '2' });
    expect(await ask(ports[0], { host: '::1' })).toMatchObject({ weight: '1' });
    expect(bench.reports).toEqual([]);
  });

  it('S53. listen where node ports answer, and follow when that changes', async () => {
    bench.addresses = { ip: ['127.0.0.2', '127.0.0.3'], ip6: [] };
    await bench.sync({ services: [balanced('a', ports[0])], slices: pods('10.1.0.1') });
    const hosts = ['127.0.0.1', '127.0.0.2', '127.0.0.3', '127.0.0.4', '::1'];
    const open = async (): Promise<string[]> => {
      const answers = await Promise.all(
        hosts.map((host) =>
          ask(ports[0], { host }).then(
            () => [host],
            () => [],
          ),
        ),
      );
      return answers.flat();
    };
    expect(await open()).toEqual(['127.0.0.2', '127.0.0.3']);
    bench.addresses = { ip: ['127.0.0.3', '127.0.0.4'], ip6: [] };
    await bench.sync(idle);
    expect(await open()).toEqual(['127.0.0.3', '127.0.0.4']);
  });

  it('that cannot be opened are told of, and tried again with the next sync', async () => {
    const holder = await hold(ports[0]);
    bench.addresses.ip6 = [];
    await bench.sync({ services: [balanced('a', ports[0])], slices: pods('10.1.0.1') });
    await bench.sync(idle);
    const text = `ns/a: node this-node failed to start healthcheck "ns/a" on port ${ports[0]}: listen EADDRINUSE: address already in use 127.0.0.1:${ports[0]}`;
    expect(bench.reports).toEqual([text, text]);
    expect(bench.warnings).toHaveLength(1);
    await new Promise((resolve) => holder.close(resolve));
    await bench.sync(idle);
    expect(await ask(ports[0])).toMatchObject({ status: 200 });
    expect(bench.reports).toHaveLength(2);
  });

  it('one that cannot be opened does not keep others shut', async () => {
    bench.addresses = { ip: ['192.0.2.1', '127.0.0.1'], ip6: [] };
    await bench.sync({ services: [balanced('a', ports[0])], slices: pods('10.1.0.1') });
    expect(await ask(ports[0])).toMatchObject({ status: 200 });
    expect(bench.reports).toHaveLength(1);
  });

  it('close when the proxy ends', async () => {
    await bench.sync({ services: [balanced('a', ports[0])] });
    await bench[Symbol.asyncDispose]();
    await expect(ask(ports[0])).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });
});

interface Answer {
  readonly status: number | undefined;
  readonly weight: unknown;
  readonly type: string | undefined;
  readonly body: string;
}

/** Over a connection that would stay open, as load balancers hold it. */
async function ask(port: number, { host = '127.0.0.1', path = '/' } = {}): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    request({ host, port, path, headers: { Connection: 'keep-alive' } }, (response) => {
      let body = '';
      response.on('data', (data: Buffer) => (body += data.toString()));
      response.once('end', () =>
        resolve({
          status: response.statusCode,
          weight: response.headers['x-load-balancing-endpoint-weight'],
          type: response.headers['content-type'],
          body,
        }),
      );
    })
      .once('error', reject)
      .end();
  });
}

async function hold(port: number): Promise<Server> {
  const server = createServer().listen(port, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

async function freePort(): Promise<number> {
  const server = await hold(0);
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('expected a TCP port');
  return address.port;
}
