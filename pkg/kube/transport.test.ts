import { mkdtemp, rename, rm, utimes, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { systemClock } from '#pkg/clock/clock.ts';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { afterEach, describe, expect, test } from 'vitest';
import { ApiError } from './api-error.ts';
import type { ClusterConfig } from './cluster-config.ts';
import { createAuthority } from './testing/certificates.ts';
import { startFaultProxy } from './testing/fault-proxy.ts';
import { startScriptedServer, type ScriptedServer } from './testing/scripted-server.ts';
import { until } from './testing/until.ts';
import { createTransport, type Transport } from './transport.ts';

const authority = createAuthority();
if (typeof authority === 'string') process.stderr.write(`TLS tests are skipped: ${authority}\n`);
const identity = typeof authority === 'string' ? undefined : authority.issue('127.0.0.1');

const protocols = [
  { name: 'plain HTTP/1.1', identity: undefined, alpn: 'h1' },
  ...(identity === undefined
    ? []
    : [
        { name: 'HTTP/1.1 over TLS', identity, alpn: 'h1' } as const,
        { name: 'HTTP/2', identity, alpn: 'h2' } as const,
      ]),
] as const;

const cleanups: AsyncDisposable[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup[Symbol.asyncDispose]();
});

function config(server: string, more: Partial<ClusterConfig> = {}): ClusterConfig {
  const ca = typeof authority === 'string' ? '' : authority.ca;
  return {
    server,
    serverName: undefined,
    insecure: false,
    ca: { kind: 'text', text: ca },
    user: {},
    namespace: 'default',
    ...more,
  };
}

function open(server: string, more: Partial<ClusterConfig> = {}, clock = systemClock): Transport {
  const transport = createTransport(config(server, more), { clock, userAgent: 'podwire-test/1' });
  cleanups.push(transport);
  return transport;
}

async function start(
  protocol: (typeof protocols)[number] | undefined = protocols.at(-1),
): Promise<ScriptedServer> {
  const server = await startScriptedServer(protocol?.identity, protocol?.alpn);
  cleanups.push(server);
  return server;
}

const never = new AbortController().signal;

/** The outcome of a promise that is expected to reject, watched from the start. */
function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => new Error('it did not fail'),
    (error: unknown) => error,
  );
}

describe.each(protocols)('over $name', (protocol) => {
  test('a body arrives as it is sent, and the end is the end', async () => {
    const server = await start(protocol);
    const transport = open(server.url, { user: { token: 'secret' } });
    let text = '';
    let opened = 0;
    const done = transport.stream(
      '/watch?a=b%20c',
      { signal: never, onOpen: () => (opened += 1) },
      (chunk) => (text += chunk.toString()),
    );
    const exchange = await server.next();
    expect(exchange).toMatchObject({ method: 'GET', path: '/watch', query: { a: 'b c' } });
    expect(exchange.headers).toMatchObject({
      accept: 'application/json',
      authorization: 'Bearer secret',
      'user-agent': 'podwire-test/1',
    });
    exchange.open();
    await until('opened', () => opened === 1);
    exchange.raw('one\n');
    await until('first chunk', () => text === 'one\n');
    exchange.raw('two\n');
    exchange.end();
    await done;
    expect(text).toBe('one\ntwo\n');
  });

  test('a write carries its body and gets the stored object', async () => {
    const server = await start(protocol);
    const transport = open(`${server.url}/prefix`);
    const body = JSON.stringify({ metadata: { annotations: { a: 'ü'.repeat(10_000) } } });
    const done = transport.request('/api/v1/nodes/n', {
      signal: never,
      method: 'PATCH',
      headers: { 'content-type': 'application/merge-patch+json' },
      body,
    });
    const exchange = await server.next();
    expect(exchange).toMatchObject({ method: 'PATCH', path: '/prefix/api/v1/nodes/n' });
    expect(exchange.headers['content-type']).toBe('application/merge-patch+json');
    expect(await exchange.body()).toBe(body);
    exchange.json(200, { stored: true });
    expect(await done).toEqual({ stored: true });
  });

  test('a refusal is an ApiError with reason, causes and Retry-After', async () => {
    const server = await start(protocol);
    const error = failure(open(server.url).request('/x', { signal: never }));
    (await server.next()).json(
      429,
      {
        kind: 'Status',
        code: 429,
        reason: 'TooManyRequests',
        message: 'slow down',
        details: { causes: [{ reason: 'Busy', message: 'm', field: 'f' }], retryAfterSeconds: 9 },
      },
      { 'retry-after': '7' },
    );
    const refusal = await error;
    expect(refusal).toBeInstanceOf(ApiError);
    expect(refusal).toMatchObject({
      code: 'TooManyRequests',
      status: 429,
      retryAfterMs: 7_000,
      causes: [{ reason: 'Busy', message: 'm', field: 'f' }],
      message: 'Cannot GET /x: the server answered 429 TooManyRequests: slow down',
    });
  });

  test('a refusal of something in between is an ApiError too', async () => {
    const server = await start(protocol);
    const error = failure(open(server.url).request('/x', { signal: never }));
    (await server.next()).json(502, '<html>bad gateway');
    expect(await error).toMatchObject({ code: 'Http502', status: 502, retryAfterMs: undefined });
  });

  test('a compressed body is handed on decompressed; a cut one is an error', async () => {
    const server = await start(protocol);
    const transport = open(server.url);
    const text = 'x'.repeat(300_000);
    const bytes = gzipSync(text);
    const read = async (sent: Buffer): Promise<{ size: number; error: unknown }> => {
      let size = 0;
      const done = transport.stream('/list', { signal: never }, (chunk) => {
        size += chunk.length;
      });
      const error = done.then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
      const exchange = await server.next();
      exchange.open({ 'content-encoding': 'gzip' });
      exchange.raw(sent.subarray(0, 20));
      exchange.raw(sent.subarray(20));
      exchange.end();
      return { error: await error, size };
    };
    expect(await read(bytes)).toEqual({ size: text.length, error: undefined });
    const cut = await read(bytes.subarray(0, -10));
    expect(isErrno(cut.error, 'Z_BUF_ERROR')).toBe(true);
  });

  test('a cut connection is an error, and the next request gets a new one', async () => {
    const server = await start(protocol);
    const transport = open(server.url);
    const error = failure(transport.stream('/watch', { signal: never }, () => undefined));
    const exchange = await server.next();
    exchange.open();
    exchange.raw('half');
    exchange.cut();
    expect(isErrno(await error, 'ConnectionLost')).toBe(true);
    const again = transport.request('/x', { signal: never });
    (await server.next()).json(200, { ok: true });
    expect(await again).toEqual({ ok: true });
  });

  test('an address that the host has lost ends what was connected from it, and nothing else', async () => {
    const server = await start(protocol);
    const transport = open(server.url);
    const watch = failure(transport.stream('/watch', { signal: never }, () => undefined));
    (await server.next()).open();
    transport.dropFrom('127.0.0.2');
    const other = transport.request('/other', { signal: never });
    (await server.next()).json(200, {});
    expect(await other).toEqual({});
    transport.dropFrom('127.0.0.1');
    expect(await watch).toMatchObject({ code: 'ConnectionLost' });
    const after = transport.request('/after', { signal: never });
    (await server.next()).json(200, {});
    expect(await after).toEqual({});
  });

  test('an abort ends it with its reason, and the server sees the client go', async () => {
    const server = await start(protocol);
    const transport = open(server.url);
    const stop = new AbortController();
    let chunks = 0;
    const error = failure(transport.stream('/watch', { signal: stop.signal }, () => (chunks += 1)));
    const exchange = await server.next();
    exchange.open();
    exchange.raw('one');
    await until('a chunk', () => chunks === 1);
    exchange.raw('two');
    stop.abort(new Error('stopped'));
    expect(await error).toEqual(new Error('stopped'));
    await until('the server sees it', () => exchange.closed);
    expect(chunks).toBe(1);
    expect(await failure(transport.request('/x', { signal: stop.signal }))).toEqual(
      new Error('stopped'),
    );
    expect(server.waiting).toBe(0);
  });

  test('what the reader throws ends it', async () => {
    const server = await start(protocol);
    const broken = new Error('cannot parse');
    let chunks = 0;
    const error = failure(
      open(server.url).stream('/watch', { signal: never }, () => {
        chunks += 1;
        throw broken;
      }),
    );
    const exchange = await server.next();
    exchange.open();
    exchange.raw('one');
    expect(await error).toBe(broken);
    await until('the server sees it', () => exchange.closed);
    expect(chunks).toBe(1);
  });

  test('200 requests in a row need one connection, and one that offers the protocol', async () => {
    const server = await start(protocol);
    const transport = open(server.url);
    for (let i = 0; i < 200; i++) {
      const done = transport.request(`/${i}`, { signal: never });
      (await server.next()).json(200, { i });
      expect(await done).toEqual({ i });
    }
    // HTTP/1.1 over TLS spends one connection on asking for the protocol.
    const asking = protocol.identity !== undefined && protocol.alpn === 'h1' ? 1 : 0;
    expect(server.connections).toBe(1 + asking);
  });

  test('closing the transport ends what is open', async () => {
    const server = await start(protocol);
    const transport = open(server.url);
    const error = failure(transport.stream('/watch', { signal: never }, () => undefined));
    const exchange = await server.next();
    exchange.open();
    await transport[Symbol.asyncDispose]();
    expect(await error).toHaveProperty('code', 'Closed');
    await until('the server sees it', () => exchange.closed);
    expect(await failure(transport.request('/x', { signal: never }))).toHaveProperty(
      'code',
      'Closed',
    );
  });

  test('a reset, a FIN and a refused connection are errors at once', async () => {
    const server = await start(protocol);
    await using proxy = await startFaultProxy(server.port);
    const transport = open(server.url.replace(String(server.port), String(proxy.port)));
    for (const fault of [(): void => proxy.rst(), (): void => proxy.fin()]) {
      const error = failure(transport.stream('/watch', { signal: never }, () => undefined));
      const exchange = await server.next();
      exchange.open();
      exchange.raw('some');
      await until('it is open', () => proxy.connections > 0);
      fault();
      expect(await error).toBeInstanceOf(Error);
    }
    await proxy.refuse(true);
    const refused = await failure(transport.request('/x', { signal: never }));
    expect(isErrno(refused, 'ECONNREFUSED')).toBe(true);
    await proxy.refuse(false);
    const back = transport.request('/x', { signal: never });
    (await server.next()).json(200, {});
    expect(await back).toEqual({});
  });
});

test('a request that is aborted before it starts fails alone, even with no server there', async () => {
  const server = await start();
  const transport = open(server.url);
  await server[Symbol.asyncDispose]();
  const stop = AbortSignal.abort(new Error('stopped'));
  // A second rejection, of the connection nobody waits for, would end the process.
  expect(await failure(transport.request('/x', { signal: stop }))).toEqual(new Error('stopped'));
});

test('an abort ends a request that waits for its credentials', async () => {
  const exec = {
    apiVersion: 'client.authentication.k8s.io/v1',
    command: 'sleep',
    args: ['5'],
    env: {},
    installHint: '',
    provideClusterInfo: false,
  } as const;
  const transport = open('http://127.0.0.1:1', { user: { exec } });
  const stop = new AbortController();
  const startedMs = performance.now();
  const stopped = failure(transport.request('/x', { signal: stop.signal }));
  stop.abort('enough');
  expect(await stopped).toBe('enough');
  expect(performance.now() - startedMs).toBeLessThan(4_000);
});

describe('a 401', () => {
  test('makes the token be read again and the request be sent once more', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'podwire-token-'));
    try {
      const tokenFile = join(dir, 'token');
      // The same size and time: nothing but the refusal tells that the file has changed.
      const write = async (token: string): Promise<void> => {
        await writeFile(tokenFile, token);
        await utimes(tokenFile, 1_000, 1_000);
      };
      await write('old');
      const server = await start();
      const transport = open(server.url, { user: { tokenFile } });
      const first = transport.request('/1', { signal: never });
      (await server.next()).json(200, {});
      await first;

      const second = transport.request('/2', { signal: never });
      const refused = await server.next();
      await write('new');
      refused.json(401, { kind: 'Status', code: 401, reason: 'Unauthorized' });
      const again = await server.next();
      expect(again.headers['authorization']).toBe('Bearer new');
      again.json(200, { ok: true });
      expect(await second).toEqual({ ok: true });

      const third = failure(transport.request('/3', { signal: never }));
      for (let i = 0; i < 2; i++) (await server.next()).json(401, { reason: 'Unauthorized' });
      expect(await third).toHaveProperty('code', 'Unauthorized');
      expect(server.waiting).toBe(0);
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});

describe.skipIf(identity === undefined)('TLS', () => {
  test('refuses a server of another authority, or with another name', async () => {
    const server = await start();
    const other = createAuthority();
    if (typeof other === 'string' || typeof authority === 'string') throw new Error('no openssl');
    const stranger = open(server.url, { ca: { kind: 'text', text: other.ca } });
    const untrusted = await failure(stranger.request('/x', { signal: never }));
    expect(isErrno(untrusted, 'ConnectFailed')).toBe(true);
    expect(String((untrusted as Error).cause)).toMatch(/certificate/);

    const named = await startScriptedServer(authority.issue('kubernetes'));
    cleanups.push(named);
    const wrongName = await failure(open(named.url).request('/x', { signal: never }));
    expect(isErrno(wrongName, 'ERR_TLS_CERT_ALTNAME_INVALID')).toBe(true);

    for (const more of [{ serverName: 'kubernetes' }, { insecure: true, ca: undefined }]) {
      const done = open(named.url, more).request('/x', { signal: never });
      (await named.next()).json(200, { ok: true });
      expect(await done).toEqual({ ok: true });
    }
  });

  test('uses a new connection after its authority file changed, and lets the old one finish', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'podwire-ca-'));
    try {
      if (typeof authority === 'string') throw new Error('no openssl');
      const path = join(dir, 'ca.crt');
      await writeFile(path, authority.ca);
      const server = await start();
      const transport = open(server.url, { ca: { kind: 'file', path } });
      let text = '';
      const watch = transport.stream('/watch', { signal: never }, (chunk) => {
        text += chunk.toString();
      });
      const watching = await server.next();
      watching.open();
      watching.raw('before ');
      await until('it is open', () => text !== '');
      await writeFile(join(dir, 'new'), `${authority.ca}\n${authority.ca}`);
      await rename(join(dir, 'new'), path);
      const done = transport.request('/x', { signal: never });
      (await server.next()).json(200, {});
      await done;
      expect(server.connections).toBe(2);
      watching.raw('after');
      watching.end();
      await watch;
      expect(text).toBe('before after');
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  test('gives up on a server that does not finish the handshake in 10 s', async () => {
    const silent = net.createServer((socket) => socket.on('error', () => undefined));
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const clock = new FakeClock();
    const { port } = silent.address() as net.AddressInfo;
    const error = failure(
      open(`https://127.0.0.1:${port}`, {}, clock).request('/x', { signal: never }),
    );
    await until('it waits', () => clock.sleeping === 1);
    await clock.advance(9_999);
    expect(clock.sleeping).toBe(1);
    await clock.advance(1);
    expect(isErrno(await error, 'Timeout')).toBe(true);
    silent.close();
  });
});

describe.skipIf(identity === undefined)('an HTTP/2 session', () => {
  test('is shared by all requests, at the same time', async () => {
    const server = await start();
    const transport = open(server.url);
    const watches = Array.from({ length: 8 }, (_, i) =>
      transport.stream(`/watch/${i}`, { signal: never }, () => undefined),
    );
    for (let i = 0; i < watches.length; i++) {
      const exchange = await server.next();
      exchange.open();
      exchange.end();
    }
    await Promise.all(watches);
    expect(server.connections).toBe(1);
  });

  test('that the server wants to end finishes its streams and takes no new ones', async () => {
    const server = await start();
    const transport = open(server.url);
    let text = '';
    const watch = transport.stream('/watch', { signal: never }, (chunk) => {
      text += chunk.toString();
    });
    const watching = await server.next();
    watching.open();
    watching.raw('before ');
    await until('it is open', () => text !== '');
    server.goaway();
    await until('the next request uses a new connection', () => {
      void transport.request('/x', { signal: never }).catch(() => undefined);
      return server.connections === 2;
    });
    watching.raw('after');
    watching.end();
    await watch;
    expect(text).toBe('before after');
  });

  test('whose peer vanished is noticed after 45 s by PING; a quiet one lives on', async () => {
    const server = await start();
    await using proxy = await startFaultProxy(server.port);
    const clock = new FakeClock();
    const transport = open(`https://127.0.0.1:${proxy.port}`, {}, clock);
    let settled = false;
    const error = failure(transport.stream('/watch', { signal: never }, () => undefined)).finally(
      () => (settled = true),
    );
    (await server.next()).open();
    for (let ping = 1; ping <= 5; ping++) {
      await until('it sleeps until the next PING', () => clock.sleeping === 1);
      await clock.advance(30_000);
      await until('the PING is out', () => server.pings === ping);
      // An answer that comes after the PING's on the same connection.
      const order = transport.request('/order', { signal: never });
      (await server.next()).json(200, {});
      await order;
    }
    expect(settled).toBe(false);
    expect(proxy.connections).toBe(1);

    proxy.blackHole();
    await clock.advance(30_000);
    await clock.advance(14_999);
    expect(settled).toBe(false);
    await clock.advance(1);
    expect(isErrno(await error, 'ConnectionLost')).toBe(true);
  });

  test('whose peer vanished is noticed also after the clock was set back', async () => {
    const server = await start();
    await using proxy = await startFaultProxy(server.port);
    const clock = new FakeClock(7_200_000);
    const transport = open(`https://127.0.0.1:${proxy.port}`, {}, clock);
    const error = failure(transport.stream('/watch', { signal: never }, () => undefined));
    (await server.next()).open();
    await until('it sleeps until the next PING', () => clock.sleeping === 1);
    clock.set(0);
    proxy.blackHole();
    for (const ms of [30_000, 30_000, 15_000]) await clock.advance(ms);
    expect(isErrno(await error, 'ConnectionLost')).toBe(true);
  });
});
