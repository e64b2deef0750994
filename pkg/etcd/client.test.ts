import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  loadPackageDefinition,
  Server,
  ServerCredentials,
  status,
  type ServerDuplexStream,
  type ServiceClientConstructor,
} from '@grpc/grpc-js';
import { fromJSON } from '@grpc/proto-loader';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createEtcdClient } from './client.ts';
import { etcdServices } from './service-definition.ts';

const { etcdserverpb } = loadPackageDefinition(
  fromJSON(etcdServices, { longs: String, defaults: true, oneofs: true, enums: String }),
) as unknown as { etcdserverpb: Record<'Watch', ServiceClientConstructor> };

const never = new AbortController().signal;

let dir: string;
let server: Server;
let watched: (stream: ServerDuplexStream<unknown, unknown>) => void;
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'podwire-etcd-'));
  server = new Server();
  server.addService(etcdserverpb.Watch.service, {
    Watch: (stream: ServerDuplexStream<unknown, unknown>) => watched(stream),
  });
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`unix:${dir}/etcd`, ServerCredentials.createInsecure(), (error) =>
      error === null ? resolve() : reject(error),
    );
  });
});
afterEach(() => {
  server.forceShutdown();
  rmSync(dir, { recursive: true });
});

test('a member that has lost its leader ends the watch, since it is asked to', async () => {
  // As etcd does (server/etcdserver/api/v3rpc, interceptor.go): without that word it says nothing.
  watched = (stream) => {
    if (stream.metadata.get('hasleader')[0] !== 'true') return;
    stream.emit('error', { code: status.UNAVAILABLE, details: 'etcdserver: no leader' });
  };
  using client = await createEtcdClient({ endpoints: [`unix://${dir}/etcd`] });
  const watching = Array.fromAsync(client.watch('/a/', '1', never));
  await expect(watching).rejects.toMatchObject({ code: 'EtcdUnavailable' });
});

test('a watch that begins when its signal has aborted ends at once', async () => {
  watched = () => undefined;
  using client = await createEtcdClient({ endpoints: [`unix://${dir}/etcd`] });
  const told = AbortSignal.abort(new Error('enough'));
  await expect(Array.fromAsync(client.watch('/a/', '1', told))).rejects.toThrow('enough');
});
