import { createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { systemClock } from '#pkg/clock/clock.ts';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import type { Family } from '#pkg/ip/address.ts';
import { formatBindAddress, parseBindAddress } from './bind-address.ts';
import { serveHttp, text, type Answer } from './http-server.ts';
import { proxyHealthRoutes } from './proxy-health.ts';
import { createSyncTracker } from './sync-tracker.ts';

describe('parseBindAddress()', () => {
  it.each([
    ['0.0.0.0:10256', '0.0.0.0:10256'],
    ['127.0.0.1', '127.0.0.1:99'],
    ['[::1]:80', '[::1]:80'],
    ['[::]', '[::]:99'],
    ['::1', '[::1]:99'],
  ])('reads %s as %s', (given, expected) => {
    const bind = parseBindAddress('healthzBindAddress', given, 99);
    expect(bind === undefined ? undefined : formatBindAddress(bind)).toBe(expected);
  });

  it('port 0 is no server', () => {
    expect(parseBindAddress('healthzBindAddress', '0.0.0.0:0', 99)).toBeUndefined();
  });

  it.each(['', 'localhost:80', '127.0.0.1:70000', ':80', '127.0.0.1:http', '[127.0.0.1'])(
    'refuses %j, naming the field',
    (given) => {
      expect(() => parseBindAddress('healthzBindAddress', given, 99)).toThrow(/healthzBindAddress/);
    },
  );
});

describe('a sync tracker is', () => {
  const families: readonly Family[] = ['ip', 'ip6'];
  const healthyParts = (tracker: ReturnType<typeof createSyncTracker<Family>>): string =>
    [...tracker.status()]
      .filter(([, part]) => part.healthy)
      .map(([part]) => part)
      .join(' ');

  it('unhealthy until every part was written once', () => {
    const tracker = createSyncTracker(families, 60_000, new FakeClock(1));
    expect(healthyParts(tracker)).toBe('');
    tracker.roundStarted();
    tracker.written('ip');
    expect(healthyParts(tracker)).toBe('ip');
    tracker.written('ip6');
    expect(healthyParts(tracker)).toBe('ip ip6');
  });

  it('healthy for ever while nothing is asked for, unhealthy when a request waits too long', async () => {
    const clock = new FakeClock(1);
    const tracker = createSyncTracker(families, 60_000, clock);
    families.forEach((family) => tracker.written(family));
    await clock.advance(3_600_000);
    expect(healthyParts(tracker)).toBe('ip ip6');
    tracker.queued();
    await clock.advance(60_000);
    tracker.queued();
    expect(healthyParts(tracker)).toBe('ip ip6');
    await clock.advance(1);
    expect(healthyParts(tracker)).toBe('');
  });

  it('unhealthy in the part that cannot be written, counted from the first request', async () => {
    const clock = new FakeClock(1);
    const tracker = createSyncTracker(families, 60_000, clock);
    families.forEach((family) => tracker.written(family));
    tracker.queued();
    for (let round = 0; round < 3; round++) {
      await clock.advance(20_000);
      tracker.roundStarted();
      tracker.written('ip');
      tracker.failed('ip6');
    }
    expect(healthyParts(tracker)).toBe('ip ip6');
    await clock.advance(1);
    expect(healthyParts(tracker)).toBe('ip');
    tracker.roundStarted();
    tracker.written('ip6');
    expect(healthyParts(tracker)).toBe('ip ip6');
  });

  it('not fooled by a round that never ends', async () => {
    const clock = new FakeClock(1);
    const tracker = createSyncTracker(families, 60_000, clock);
    families.forEach((family) => tracker.written(family));
    tracker.queued();
    tracker.roundStarted();
    await clock.advance(60_001);
    expect(healthyParts(tracker)).toBe('');
  });
});

const asked = { query: new URLSearchParams(), body: '' };

describe('/healthz and /livez', () => {
  const ask = (path: string, parts: [Family, boolean][], nodeEligible = true): unknown => {
    const answers: string[] = [];
    const routes = proxyHealthRoutes({
      status: () =>
        new Map(
          parts.map(([part, healthy]) => [part, { alive: healthy, healthy, lastUpdatedMs: 1_000 }]),
        ),
      nodeEligible: () => nodeEligible,
      clock: new FakeClock(90_000),
      onAnswer: (endpoint, status) => answers.push(`${endpoint} ${status}`),
    });
    const answer = routes.get(path)?.(asked);
    if (answer === undefined || 'then' in answer) throw new Error('expected an answer');
    return { answers, body: JSON.parse(answer.body) as unknown };
  };
  const now = '1970-01-01T00:01:30.000Z';
  const then = '1970-01-01T00:00:01.000Z';

  it('say 200 while all is written', () => {
    expect(
      ask('/healthz', [
        ['ip', true],
        ['ip6', true],
      ]),
    ).toEqual({
      answers: ['healthz 200'],
      body: {
        lastUpdated: now,
        currentTime: now,
        nodeEligible: true,
        healthy: true,
        status: {
          IPv4: { lastUpdated: now, healthy: true },
          IPv6: { lastUpdated: now, healthy: true },
        },
      },
    });
  });

  it('say 503 and since when, when a family is stuck', () => {
    expect(
      ask('/livez', [
        ['ip', true],
        ['ip6', false],
      ]),
    ).toEqual({
      answers: ['livez 503'],
      body: {
        lastUpdated: then,
        currentTime: now,
        healthy: false,
        reasons: ['IPv6: changes wait to be written, the last write was 89 s ago'],
        status: {
          IPv4: { lastUpdated: now, healthy: true },
          IPv6: { lastUpdated: then, healthy: false },
        },
      },
    });
  });

  it('a proxy that waits for the API server is alive, but not healthy', async () => {
    const clock = new FakeClock(1);
    const tracker = createSyncTracker<Family>(['ip'], 60_000, clock);
    const status = (path: string): unknown => {
      const answer = proxyHealthRoutes({
        status: () => tracker.status(),
        nodeEligible: () => true,
        clock,
        onAnswer: () => undefined,
      }).get(path)?.(asked);
      return answer !== undefined && 'status' in answer ? answer.status : answer;
    };
    await clock.advance(3_600_000);
    expect([status('/livez'), status('/healthz')]).toEqual([200, 503]);
    // What has to be written and is not makes it neither.
    tracker.queued();
    await clock.advance(60_001);
    expect([status('/livez'), status('/healthz')]).toEqual([503, 503]);
  });

  it('a proxy that hears of no changes is unhealthy and says why, but alive', () => {
    const answer = (path: string): unknown => {
      const stale = proxyHealthRoutes({
        status: () => new Map([['ip', { alive: true, healthy: true, lastUpdatedMs: 1_000 }]]),
        nodeEligible: () => true,
        staleness: () => ['the watch of services is down'],
        clock: new FakeClock(90_000),
        onAnswer: () => undefined,
      });
      const given = stale.get(path)?.(asked);
      return given !== undefined && 'status' in given
        ? [given.status, (JSON.parse(given.body) as { reasons?: unknown }).reasons]
        : given;
    };
    expect(answer('/healthz')).toEqual([503, ['the watch of services is down']]);
    expect(answer('/livez')).toEqual([200, undefined]);
  });

  it('a node that shall get no traffic is unhealthy, but alive', () => {
    expect(ask('/healthz', [['ip', true]], false)).toMatchObject({
      answers: ['healthz 503'],
      body: { reasons: ['the node shall get no new traffic'] },
    });
    expect(ask('/livez', [['ip', true]], false)).toMatchObject({ answers: ['livez 200'] });
  });
});

describe('serveHttp()', () => {
  const routes = new Map([
    ['/fine', () => text(200, 'ok')],
    [
      '/broken',
      () => {
        throw new Error('broken');
      },
    ],
  ]);

  it('answers its paths, refuses others, survives an answer that fails, ends when told', async () => {
    const bind = { host: '127.0.0.1', port: await freePort() };
    const errors: string[] = [];
    const stop = new AbortController();
    const onError = (_: unknown, doing: string): void => void errors.push(doing);
    const done = serveHttp({ bind, routes, clock: systemClock, onError }, stop.signal);
    const get = (path: string, method = 'GET'): Promise<Response> =>
      eventually(() => fetch(`http://${formatBindAddress(bind)}${path}`, { method }));
    expect(await (await get('/fine?verbose')).text()).toBe('ok');
    expect((await get('/other')).status).toBe(404);
    expect((await get('/fine', 'POST')).status).toBe(405);
    expect((await get('/broken')).status).toBe(500);
    expect((await get('/fine', 'HEAD')).status).toBe(200);
    expect(errors).toEqual(['Cannot answer /broken']);
    stop.abort();
    await done;
    await expect(fetch(`http://${formatBindAddress(bind)}/fine`)).rejects.toThrow();
  });

  it('takes what is PUT where there is something to set, and hands on the query', async () => {
    const bind = { host: '127.0.0.1', port: await freePort() };
    const stop = new AbortController();
    const echo = ({ body, query }: { body: string; query: URLSearchParams }): Answer =>
      text(200, `${body} ${query.get('q') ?? ''}`);
    const done = serveHttp(
      {
        bind,
        routes: new Map([['/get', echo]]),
        putRoutes: new Map([['/put', echo]]),
        clock: systemClock,
        onError: () => undefined,
      },
      stop.signal,
    );
    const send = (path: string, init: RequestInit): Promise<Response> =>
      eventually(() => fetch(`http://${formatBindAddress(bind)}${path}`, init));
    const put = await send('/put?q=x', { method: 'PUT', body: '4' });
    expect([put.status, await put.text()]).toEqual([200, '4 x']);
    expect(await (await send('/get?q=y', {})).text()).toBe(' y');
    const wrong = await send('/put', {});
    expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'PUT']);
    expect((await send('/put', { method: 'PUT', body: 'x'.repeat(5_000) })).status).toBe(500);
    stop.abort();
    await done;
  });

  it('a port that is taken is an error, where that is asked for', async () => {
    const bind = { host: '127.0.0.1', port: await freePort() };
    const holder = createServer().listen(bind.port, bind.host);
    await new Promise((resolve) => holder.once('listening', resolve));
    const onError = (): void => undefined;
    const serving = serveHttp(
      { bind, routes, clock: systemClock, onError, hardFail: true },
      new AbortController().signal,
    );
    await expect(serving).rejects.toMatchObject({
      code: 'ListenFailed',
      message: `Cannot listen on 127.0.0.1:${bind.port}`,
    });
    await new Promise((resolve) => holder.close(resolve));
  });

  it('waits for a port that is taken', async () => {
    const bind = { host: '127.0.0.1', port: await freePort() };
    const holder = createServer().listen(bind.port, bind.host);
    await new Promise((resolve) => holder.once('listening', resolve));
    const clock = new FakeClock();
    const errors: unknown[] = [];
    const stop = new AbortController();
    const onError = (error: unknown): void => void errors.push(error);
    const done = serveHttp({ bind, routes, clock, onError }, stop.signal);
    await eventually(() => expect(clock.sleeping).toBe(1));
    expect(errors).toMatchObject([{ code: 'EADDRINUSE' }]);
    await new Promise((resolve) => holder.close(resolve));
    await clock.advance(5_000);
    const answer = await eventually(() => fetch(`http://${formatBindAddress(bind)}/fine`));
    expect(answer.status).toBe(200);
    stop.abort();
    await done;
  });
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('expected a TCP port');
  return address.port;
}

async function eventually<T>(attempt: () => T | Promise<T>): Promise<T> {
  const deadline = systemClock.now() + 60_000;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (systemClock.now() > deadline) throw error;
      await systemClock.sleep(10);
    }
  }
}
