import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { callFrom, startStream } from './agent-client.ts';
import { runAgent } from './agent.ts';

let folder: string;
let control: string;
let port: number;
let stop: AbortController;
let agent: Promise<void>;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'podwire-agent-'));
  control = join(folder, 'a.sock');
  port = await freePort();
  stop = new AbortController();
  agent = runAgent({ name: 'echo', control, port }, stop.signal);
  await expect.poll(() => callFrom(control, request('tcp')).catch(() => undefined)).toBeDefined();
});

afterEach(async () => {
  stop.abort();
  await agent;
  rmSync(folder, { recursive: true });
});

describe('an agent', () => {
  it.each([
    ['tcp', '127.0.0.1'],
    ['udp', '127.0.0.1'],
    ['tcp', '::1'],
    ['udp', '::1'],
  ] as const)(
    'answers over %s to %s with its name and the address it sees',
    async (protocol, address) => {
      const outcome = await callFrom(control, { ...request(protocol), address });
      expect(outcome).toEqual({
        ok: true,
        server: 'echo',
        source: address,
        ms: expect.any(Number),
      });
    },
  );

  it.each(['tcp', 'udp'] as const)('reports a refused %s connection as such', async (protocol) => {
    const closed = await freePort();
    const outcome = await callFrom(control, { ...request(protocol), port: closed });
    expect(outcome).toMatchObject({ ok: false, code: 'ECONNREFUSED' });
  });

  it('outlives clients that reset their connections', async () => {
    for (let i = 0; i < 20; i++) {
      const socket = connect(port, '127.0.0.1');
      await once(socket, 'connect');
      socket.write('one\ntwo\n'.repeat(i));
      socket.resetAndDestroy();
      await once(socket, 'close');
    }
    expect(await callFrom(control, request('tcp'))).toMatchObject({ ok: true, server: 'echo' });
  });

  it('reports silence as such', async () => {
    const server = createServer(() => undefined).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const silent = (server.address() as AddressInfo).port;
    const outcome = await callFrom(control, { ...request('tcp'), port: silent, timeoutMs: 50 });
    expect(outcome).toMatchObject({ ok: false, code: 'ETIMEDOUT' });
    server.close();
  });

  it.each(['tcp', 'udp'] as const)(
    'keeps a stream of requests over %s and counts them',
    async (protocol) => {
      const { address } = request(protocol);
      const stream = await startStream(control, { protocol, address, port, intervalMs: 2 });
      const outcome = await stream.stop();
      expect(outcome.error).toBeUndefined();
      expect(outcome.sent).toBeGreaterThan(0);
      expect(outcome.answered).toBe(outcome.sent);
    },
  );

  it('tells a stream that was cut', async () => {
    const server = createServer((socket) => {
      socket.once('data', () => socket.write('first\n', () => socket.destroy()));
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const cut = {
      protocol: 'tcp',
      address: '127.0.0.1',
      port: (server.address() as AddressInfo).port,
    } as const;
    const stream = await startStream(control, { ...cut, intervalMs: 2 });
    expect((await stream.stop()).error).toBeDefined();
    server.close();
  });
});

function request(protocol: 'tcp' | 'udp'): {
  protocol: 'tcp' | 'udp';
  address: string;
  port: number;
  timeoutMs: number;
} {
  return { protocol, address: '127.0.0.1', port, timeoutMs: 2000 };
}

/** A port that was free a moment ago, for TCP; nobody else here uses the same number for UDP. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port: free } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return free;
}
