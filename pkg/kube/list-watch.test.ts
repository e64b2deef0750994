import { afterEach, describe, expect, test } from 'vitest';
import { downSinceMs } from './list-watch-stats.ts';
import { proxiedServices } from './resources.ts';
import {
  projectThing,
  type Rig,
  type RigOptions,
  startRig,
  thing,
} from './testing/list-watch-rig.ts';
import type { Exchange } from './testing/scripted-server.ts';
import { until } from './testing/until.ts';

let rig: Rig | undefined;
afterEach(async () => {
  await rig?.[Symbol.asyncDispose]();
  rig = undefined;
});

async function start(options: RigOptions = {}): Promise<Rig> {
  rig = await startRig(options);
  return rig;
}

/** A rig that has listed a=1 b=1 at version 10 and watches. */
async function startWatching(
  options: RigOptions = {},
): Promise<{ readonly rig: Rig; readonly watch: Exchange }> {
  const started = await start(options);
  await started.refuseWatchList();
  await started.list('10', 'a=1', 'b=1');
  const watch = await started.watch();
  return { rig: started, watch };
}

const status = (code: number, more: object = {}): object => ({ kind: 'Status', code, ...more });

const tooLarge = status(504, {
  reason: 'Timeout',
  message: 'Too large resource version',
  details: { causes: [{ reason: 'ResourceVersionTooLarge' }], retryAfterSeconds: 1 },
});

function bookmark(resourceVersion: string, end = false): object {
  const annotations = end ? { 'k8s.io/initial-events-end': 'true' } : {};
  return { kind: 'Node', metadata: { resourceVersion, annotations } };
}

describe('the first sync', () => {
  test('streams the list as a watch, and says so only when it is complete', async () => {
    const { server, store, content } = await start();
    const exchange = await server.next();
    expect(exchange.query).toEqual({
      watch: 'true',
      sendInitialEvents: 'true',
      resourceVersionMatch: 'NotOlderThan',
      allowWatchBookmarks: 'true',
      timeoutSeconds: '300',
    });
    exchange.open();
    exchange.event('ADDED', thing('a=1', '4'));
    exchange.event('ADDED', thing('b=1', '5'));
    exchange.event('ADDED', thing('c=1', '6'));
    exchange.event('DELETED', thing('c=1', '7'));
    exchange.event('BOOKMARK', bookmark('8'));
    await until('it has read them', () => rig?.listWatch.stats.bookmarks === 1);
    expect([store.synced, content()]).toEqual([false, 'a=1 b=1']);
    exchange.event('BOOKMARK', bookmark('9', true));
    exchange.event('MODIFIED', thing('a=2', '10'));
    await until('the live event', () => content() === 'a=2 b=1');
    expect(store.synced).toBe(true);
    exchange.end();
    expect((await server.next()).query).toMatchObject({ resourceVersion: '10', watch: 'true' });
    expect(rig?.listWatch.stats).toMatchObject({ lists: 0, watches: 2, events: 5, bookmarks: 2 });
  });

  test.each([400, 403, 422, 500])(
    'falls back to LIST at once on %i, and remembers it for 10 minutes',
    async (code) => {
      const { server, clock, list, watch, content, passDelay, delays } = await start();
      (await server.next()).json(code, status(code));
      expect((await list('10', 'a=1')).query).toEqual({ resourceVersion: '0' });
      let watching = await watch();
      expect(content()).toBe('a=1');
      expect(delays).toEqual([]);
      for (let failure = 1; failure <= 5; failure++) {
        await clock.advance(110_000);
        watching.event('ERROR', status(410));
        await passDelay(failure);
        expect((await list('10', 'a=1')).query).toMatchObject({ resourceVersion: '10' });
        watching = await watch();
      }
      await clock.advance(110_000);
      watching.event('ERROR', status(410));
      await passDelay(6);
      expect((await server.next()).query).toMatchObject({ sendInitialEvents: 'true' });
    },
  );

  test('falls back to LIST when the stream itself says 500, as with an old etcd', async () => {
    const { server, list, content, watch } = await start();
    const exchange = await server.next();
    exchange.open();
    exchange.event('ADDED', thing('half=1', '4'));
    exchange.event('ERROR', status(500, { message: 'RequestWatchProgress is disabled' }));
    await list('10', 'a=1');
    await watch();
    expect(content()).toBe('a=1');
  });

  test('falls back to LIST when the server takes it for a plain watch', async () => {
    const { server, clock, list } = await start();
    (await server.next()).open();
    await until('it is open', () => clock.sleeping > 0);
    await advanceUntilWaiting(150_000);
    expect((await list('10')).query).toEqual({ resourceVersion: '0' });
  });

  test('lists in bytes: of an answer cut in the middle nothing stays', async () => {
    const { server, refuseWatchList, passDelay, list, store, watch } = await start();
    await refuseWatchList();
    const exchange = await server.next();
    exchange.open();
    exchange.raw('{"metadata":{"resourceVersion":"9"},"items":[{"metadata":{"name":"a"}},');
    exchange.end();
    await passDelay(1);
    expect([store.synced, store.size]).toEqual([false, 1]);
    await list('10', 'b=1');
    await watch();
    expect([store.synced, store.size]).toEqual([true, 1]);
  });

  test('asks with the selectors of the resource', async () => {
    const { server } = await start({ resource: proxiedServices });
    const exchange = await server.next();
    expect(exchange.path).toBe('/api/v1/services');
    expect(exchange.query).toMatchObject({
      labelSelector: '!service.kubernetes.io/service-proxy-name',
      fieldSelector: 'spec.clusterIP!=None',
    });
  });

  test('of a fleet is spread at random over the jitter', async () => {
    const { server, clock } = await start({ startJitterMs: 5_000, random: () => 0.5 });
    await until('it waits', () => clock.sleeping === 1);
    await clock.advance(2_499);
    expect(server.waiting).toBe(0);
    await clock.advance(1);
    await server.next();
  });
});

describe('a list', () => {
  test('that the server is too far behind for is tried three times, then as a quorum read in pages', async () => {
    const { rig: r, watch } = await startWatching();
    watch.event('ERROR', status(410));
    for (let attempt = 1; attempt <= 4; attempt++) {
      await r.passDelay(attempt);
      if (attempt === 4) break;
      const exchange = await r.server.next();
      expect(exchange.query).toEqual({
        resourceVersion: '10',
        resourceVersionMatch: 'NotOlderThan',
      });
      exchange.json(504, tooLarge, { 'retry-after': '1' });
    }
    expect(r.delays).toEqual([800, 1_600, 3_200, 6_400]);
    const first = await r.server.next();
    expect(first.query).toEqual({ limit: '500' });
    first.json(200, {
      metadata: { resourceVersion: '7', continue: 'page2' },
      items: [thing('x=1', '7')],
    });
    const second = await r.server.next();
    expect(second.query).toEqual({ limit: '500', continue: 'page2' });
    second.json(200, { metadata: { resourceVersion: '7' }, items: [thing('y=1', '7')] });
    expect((await r.watch()).query).toMatchObject({ resourceVersion: '7' });
    expect(r.content()).toBe('x=1 y=1');
  });

  test('whose next page has expired is taken whole', async () => {
    const { rig: r, watch } = await startWatching();
    watch.event('ERROR', status(410));
    await r.passDelay(1);
    (await r.server.next()).json(410, status(410, { reason: 'Expired' }));
    await r.passDelay(2);
    (await r.server.next()).json(200, {
      metadata: { resourceVersion: '7', continue: 'page2' },
      items: [thing('stale=1', '7')],
    });
    (await r.server.next()).json(410, status(410, { reason: 'Expired' }));
    expect((await r.list('20', 'fresh=1')).query).toEqual({});
    await r.watch();
    expect(r.content()).toBe('fresh=1');
  });

  test('without a version is a failure, and so is one that stays silent', async () => {
    const { server, clock, refuseWatchList, passDelay } = await start();
    await refuseWatchList();
    (await server.next()).json(200, { metadata: {}, items: [] });
    await passDelay(1);
    (await server.next()).open();
    await until('it is watched', () => clock.sleeping > 0);
    await advanceUntilWaiting(170_000);
    expect(rig?.listWatch.stats.errors).toEqual({ MalformedList: 1, Idle: 1 });
  });

  test('leaves out what cannot be read, and takes the rest', async () => {
    const { refuseWatchList, list, watch, content, listWatch } = await start({
      project: (raw, intern) => {
        const record = projectThing(raw, intern);
        if (record?.value === 'bad') throw new Error('odd object');
        return record;
      },
    });
    await refuseWatchList();
    await list('10', 'a=1', 'b=bad', 'c=1');
    const watching = await watch();
    expect(content()).toBe('a=1 c=1');
    watching.event('MODIFIED', thing('c=bad', '11'));
    watching.event('MODIFIED', thing('a=2', '12'));
    await until('the rest goes on', () => content() === 'a=2');
    expect(listWatch.stats.rejected).toBe(2);
  });
});

describe('a watch', () => {
  test('applies events, and goes on without delay where it was when the server ends it', async () => {
    const { rig: r, watch } = await startWatching();
    expect(watch.query).toEqual({
      watch: 'true',
      allowWatchBookmarks: 'true',
      timeoutSeconds: '300',
      resourceVersion: '10',
    });
    watch.event('MODIFIED', thing('a=2', '11'));
    watch.event('ADDED', thing('c=1', '12'));
    watch.event('DELETED', thing('b=1', '13'));
    watch.end();
    expect((await r.watch()).query).toMatchObject({ resourceVersion: '13' });
    expect(r.content()).toBe('a=2 c=1');
    expect(r.delays).toEqual([]);
  });

  test('asks the server for an end after 5 to 10 minutes', async () => {
    const { watch } = await startWatching({ random: () => 0.999 });
    expect(watch.query['timeoutSeconds']).toBe('599');
  });

  test('moves on by bookmarks, so that a quiet resource does not expire', async () => {
    const { rig: r, watch } = await startWatching();
    watch.event('BOOKMARK', bookmark('500'));
    await until('the bookmark', () => r.listWatch.stats.bookmarks === 1);
    await r.clock.advance(2_000);
    watch.end();
    const again = await r.watch();
    expect(again.query).toMatchObject({ resourceVersion: '500' });
    expect(r.listWatch.stats.lists).toBe(1);
    expect(r.content()).toBe('a=1 b=1');
  });

  test('that stays quiet with bookmarks is left alone: one request in 280 s', async () => {
    const { rig: r, watch } = await startWatching();
    for (let minute = 1; minute <= 4; minute++) {
      await r.clock.advance(70_000);
      watch.event('BOOKMARK', bookmark(String(10 + minute)));
      await until('the bookmark', () => r.listWatch.stats.bookmarks === minute);
    }
    expect(watch.closed).toBe(false);
    expect(r.server.waiting).toBe(0);
    expect(r.listWatch.stats).toMatchObject({ lists: 1, watches: 2 });
  });

  test('whose version is gone is listed anew from there, and tells deleted and recreated', async () => {
    const { rig: r, watch } = await startWatching();
    using changes = r.store.subscribe(() => undefined);
    watch.event('ERROR', status(410, { reason: 'Expired' }));
    await r.passDelay(1);
    const listing = await r.list('30', 'b/other=1', 'c=1');
    expect(listing.query).toEqual({ resourceVersion: '10', resourceVersionMatch: 'NotOlderThan' });
    await r.watch();
    expect(r.content()).toBe('b=1 c=1');
    const told = changes.drain().map(({ key, old, new: now, recreated }) => {
      return `${key}: ${old?.uid} -> ${now?.uid}${recreated ? ' recreated' : ''}`;
    });
    expect(new Set(told)).toEqual(
      new Set(['a: uid-a -> undefined', 'b: uid-b -> other recreated', 'c: undefined -> uid-c']),
    );
  });

  test('refused with HTTP 410 is listed anew too', async () => {
    const { rig: r, watch } = await startWatching();
    watch.event('MODIFIED', thing('a=2', '11'));
    watch.end();
    (await r.server.next()).json(410, status(410, { reason: 'Gone' }));
    await r.passDelay(1);
    expect((await r.list('30', 'a=3')).query).toMatchObject({ resourceVersion: '11' });
    await r.watch();
    expect(r.content()).toBe('a=3');
  });

  test.each([500, 503, 504, 401, 403, 404])(
    'refused with %i is tried again from where it was, not listed',
    async (code) => {
      const { rig: r, watch } = await startWatching();
      watch.event('MODIFIED', thing('a=2', '11'));
      watch.end();
      const refusals = code === 401 ? 2 : 1;
      for (let i = 0; i < refusals; i++) (await r.server.next()).json(code, status(code));
      await r.passDelay(1);
      expect((await r.watch()).query).toMatchObject({ resourceVersion: '11' });
      expect(r.listWatch.stats).toMatchObject({ lists: 1, errors: { [code]: 1 } });
    },
  );

  test.each([
    ['an ERROR event 500', JSON.stringify({ type: 'ERROR', object: status(500) }), '500'],
    ['an ERROR event 504', JSON.stringify({ type: 'ERROR', object: tooLarge }), '504'],
    ['a line that is not JSON', '{"type":"ADDED",', 'UnreadableEvent'],
    ['a line that is no event', '"x"', 'UnreadableEvent'],
    ['an unknown type', '{"type":"MOVED","object":{}}', 'UnreadableEvent'],
    ['an object without a name', '{"type":"ADDED","object":{"metadata":{}}}', 'UnreadableEvent'],
    ['a bookmark without a version', '{"type":"BOOKMARK","object":null}', 'UnreadableEvent'],
  ])('ends with %s, and goes on after the last good event', async (_, line, errorClass) => {
    const { rig: r, watch } = await startWatching();
    watch.event('MODIFIED', thing('a=2', '11'));
    watch.raw(`${line}\n${JSON.stringify({ type: 'MODIFIED', object: thing('a=3', '12') })}\n`);
    await r.passDelay(1);
    await until('the old stream is closed', () => watch.closed);
    expect(r.content()).toBe('a=2 b=1');
    expect((await r.watch()).query).toMatchObject({ resourceVersion: '11' });
    expect(r.listWatch.stats.errors).toEqual({ [errorClass]: 1 });
  });

  test('cut inside a line is a failure, though the server ended it normally', async () => {
    const { rig: r, watch } = await startWatching();
    watch.event('MODIFIED', thing('a=2', '11'));
    watch.raw('{"type":"MODI');
    watch.end();
    await r.passDelay(1);
    expect((await r.watch()).query).toMatchObject({ resourceVersion: '11' });
    expect(r.listWatch.stats.errors).toEqual({ CutLine: 1 });
  });

  test('ended by a server that found us slow is a normal end', async () => {
    const { rig: r, watch } = await startWatching();
    for (let i = 11; i < 60; i++) watch.event('MODIFIED', thing(`a=${i}`, String(i)));
    watch.end();
    expect((await r.watch()).query).toMatchObject({ resourceVersion: '59' });
    expect(r.delays).toEqual([]);
  });

  test('that ends at once without an event is a failure, else it would be a storm', async () => {
    const { rig: r, watch } = await startWatching();
    watch.end();
    await r.passDelay(1);
    (await r.watch()).end();
    await r.passDelay(2);
    (await r.watch()).end();
    await until('the third failure', () => r.delays.length === 3);
    expect(r.delays).toEqual([800, 1_600, 3_200]);
    expect(r.listWatch.stats.errors).toEqual({ EndedAtOnce: 3 });
  });

  test('from which nothing comes for 150 s is opened anew from where it was', async () => {
    const { rig: r, watch } = await startWatching();
    watch.event('MODIFIED', thing('a=2', '11'));
    await until('the event', () => r.content() === 'a=2 b=1');
    await r.clock.advance(149_999);
    expect(r.delays).toEqual([]);
    await r.clock.advance(1);
    await r.passDelay(1);
    await until('the old stream is closed', () => watch.closed);
    expect((await r.watch()).query).toMatchObject({ resourceVersion: '11' });
    expect(r.listWatch.stats).toMatchObject({ lists: 1, errors: { Idle: 1 } });
  });

  test('silent from its beginning twice in a row is listed: the version may be from the future', async () => {
    const { rig: r } = await startWatching();
    await r.clock.advance(150_000);
    await r.passDelay(1);
    const second = await r.watch();
    expect(second.query).toMatchObject({ resourceVersion: '10' });
    await until('it is watched', () => r.clock.sleeping > 0);
    await advanceUntilWaiting(160_000);
    const listing = await r.server.next();
    expect(listing.query).toMatchObject({ resourceVersion: '10' });
    for (let attempt = 3; attempt <= 5; attempt++) {
      if (attempt === 3) listing.json(504, tooLarge);
      else (await r.server.next()).json(504, tooLarge);
      await r.passDelay(attempt);
    }
    expect((await r.list('3', 'z=1')).query).toEqual({ limit: '500' });
    await r.watch();
    expect(r.content()).toBe('z=1');
  });

  test('that outlives the time it asked for is ended 30 s later', async () => {
    const { rig: r, watch } = await startWatching();
    for (let at = 1; at <= 3; at++) {
      await r.clock.advance(100_000);
      watch.event('BOOKMARK', bookmark(String(10 + at)));
      await until('the bookmark', () => r.listWatch.stats.bookmarks === at);
    }
    await r.clock.advance(29_999);
    expect(watch.closed).toBe(false);
    await r.clock.advance(1);
    await r.passDelay(1);
    expect((await r.watch()).query).toMatchObject({ resourceVersion: '13' });
    expect(r.listWatch.stats.errors).toEqual({ Overdue: 1 });
  });

  test('opened with a version the server cannot read leads to a list', async () => {
    const { rig: r, watch } = await startWatching();
    watch.event('MODIFIED', thing('a=2', '11'));
    watch.end();
    (await r.server.next()).json(400, status(400, { message: 'invalid resource version' }));
    await r.passDelay(1);
    (await r.server.next()).json(410, status(410));
    await r.passDelay(2);
    expect((await r.list('1')).query).toEqual({ limit: '500' });
  });
});

describe('the delay after failures', () => {
  test('doubles from 0.8 s to 30 s, times 1 to 2 at random', async () => {
    const { rig: r, watch } = await startWatching({ random: () => 0.5 });
    await r.server[Symbol.asyncDispose]();
    await until('the watch broke', () => watch.closed);
    for (let failure = 1; failure <= 8; failure++) await r.passDelay(failure);
    expect(r.delays.slice(0, 8)).toEqual([
      1_200, 2_400, 4_800, 9_600, 19_200, 38_400, 45_000, 45_000,
    ]);
    expect(r.content()).toBe('a=1 b=1');
  });

  test.each([429, 503])('of a %i is at least what the server asks, up to 60 s', async (code) => {
    const { rig: r, watch } = await startWatching({ random: () => 0.5 });
    watch.event('MODIFIED', thing('a=2', '11'));
    watch.end();
    (await r.server.next()).json(code, status(code), { 'retry-after': '7' });
    await r.passDelay(1);
    (await r.server.next()).json(code, status(code, { details: { retryAfterSeconds: 900 } }));
    await until('the second failure', () => r.delays.length === 2);
    expect(r.delays).toEqual([10_500, 90_000]);
  });

  test.each([
    ['an event', (watch: Exchange): void => watch.event('MODIFIED', thing('a=2', '11'))],
    ['a bookmark', (watch: Exchange): void => watch.event('BOOKMARK', bookmark('11'))],
  ])('starts anew after %s', async (_, prove) => {
    const { rig: r, watch } = await startWatching();
    watch.cut();
    await r.passDelay(1);
    (await r.watch()).cut();
    await r.passDelay(2);
    const healthy = await r.watch();
    const before = r.listWatch.stats.events + r.listWatch.stats.bookmarks;
    prove(healthy);
    await until('it arrived', () => {
      return r.listWatch.stats.events + r.listWatch.stats.bookmarks > before;
    });
    healthy.cut();
    await until('the third failure', () => r.delays.length === 3);
    expect(r.delays).toEqual([800, 1_600, 800]);
  });

  test('starts anew after a stream that lived 10 s, not after one that lived 9', async () => {
    const { rig: r, watch } = await startWatching();
    watch.cut();
    await r.passDelay(1);
    for (const [livedMs, failure] of [
      [9_000, 2],
      [10_000, 3],
    ] as const) {
      const exchange = await r.watch();
      await until(
        'it is accepted',
        () => r.clock.sleeping > 0 && r.listWatch.stats.watches > failure,
      );
      await settle();
      await r.clock.advance(livedMs);
      exchange.cut();
      await r.passDelay(failure);
    }
    expect(r.delays).toEqual([800, 1_600, 800]);
  });
});

describe('being down', () => {
  test('is told since the first failure, until an event or 2 s of an open watch prove life', async () => {
    const { rig: r, watch } = await startWatching();
    const down = (): number | undefined => downSinceMs(r.listWatch.stats, r.clock.now());
    expect(down()).toBeUndefined();
    await r.clock.advance(5_000);
    const brokenAtMs = r.clock.now();
    watch.cut();
    await r.passDelay(1);
    (await r.watch()).cut();
    await r.passDelay(2);
    expect(down()).toBe(brokenAtMs);
    expect(r.listWatch.stats.lastError).not.toBe('');
    const again = await r.watch();
    await until('it is accepted', () => r.listWatch.stats.openedAtMs > 0);
    expect(down()).toBe(brokenAtMs);
    await r.clock.advance(2_000);
    expect(down()).toBeUndefined();
    again.cut();
    await r.passDelay(3);
    expect(down()).toBeGreaterThan(brokenAtMs);
    (await r.watch()).event('MODIFIED', thing('a=2', '11'));
    await until('it arrived', () => r.content() === 'a=2 b=1');
    expect(down()).toBeUndefined();
  });
});

describe('stopping', () => {
  test('at once leaves nothing behind: no request, no object', async () => {
    const { stop, listWatch, server, store } = await start();
    stop.abort();
    await listWatch.done;
    await settle();
    expect(server.waiting).toBe(0);
    expect([store.size, store.synced]).toEqual([0, false]);
  });

  test('in a delay, in a list and in a watch resolves and is no failure', async () => {
    const delayed = await start();
    await delayed.refuseWatchList();
    (await delayed.server.next()).json(500, status(500));
    await until('it failed', () => delayed.delays.length === 1);
    delayed.stop.abort();
    await delayed.listWatch.done;
    await delayed[Symbol.asyncDispose]();

    const listing = await start();
    await listing.refuseWatchList();
    const exchange = await listing.server.next();
    exchange.open();
    exchange.raw('{"metadata":{"resourceVersion":"1"},"items":[');
    listing.stop.abort();
    await listing.listWatch.done;
    await until('the server sees it', () => exchange.closed);
    expect([listing.store.synced, listing.delays]).toEqual([false, []]);
    await listing[Symbol.asyncDispose]();

    const { rig: watching, watch } = await startWatching();
    watching.stop.abort();
    await watching.listWatch.done;
    watch.event('MODIFIED', thing('a=2', '11'));
    await until('the server sees it', () => watch.closed);
    expect([watching.content(), watching.delays]).toEqual(['a=1 b=1', []]);
    expect(watching.listWatch.stats.errors).toEqual({});
    expect(watching.clock.sleeping).toBe(0);
  });

  test('in the middle of a chunk does not apply the rest of it', async () => {
    const { rig: r, watch } = await startWatching({
      project: (raw, intern) => {
        const record = projectThing(raw, intern);
        if (record?.value === 'stop') rig?.stop.abort();
        return record;
      },
    });
    const lines = [thing('a=stop', '11'), thing('b=late', '12')];
    watch.raw(lines.map((object) => `${JSON.stringify({ type: 'MODIFIED', object })}\n`).join(''));
    await r.listWatch.done;
    expect(r.store.get('b')?.value).toBe('1');
  });
});

test('a consumer that throws does not disturb the stream', async () => {
  const { rig: r, watch } = await startWatching();
  using _consumer = r.store.onChange(() => {
    throw new Error('broken consumer');
  });
  watch.event('MODIFIED', thing('a=2', '11'));
  watch.event('MODIFIED', thing('a=3', '12'));
  await until('both events', () => r.content() === 'a=3 b=1');
  expect(r.delays).toEqual([]);
});

/** Moves the clock on in steps, until the server has a request or the time is over. */
async function advanceUntilWaiting(maxMs: number): Promise<void> {
  for (let passedMs = 0; passedMs < maxMs; passedMs += 1_000) {
    await rig?.clock.advance(1_000);
    if ((rig?.server.waiting ?? 0) > 0) return;
  }
  await until('a request', () => (rig?.server.waiting ?? 0) > 0);
}

/** Lets sockets deliver what is on its way: two round trips of timers and I/O. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
}
