import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { listAt, textAt, type JsonObject } from './json.ts';
import { request, WatchReader } from './testing/raw-client.ts';
import { startTestApi, until, type TestApi } from './testing/start-test-api.ts';

// The machine may be busy with other tests.
vi.setConfig({ testTimeout: 60_000 });

let server: TestApi;
let maps: string;
beforeEach(async () => {
  server = await startTestApi();
  maps = `${server.url}/api/v1/namespaces/default/configmaps`;
});
afterEach(() => server[Symbol.asyncDispose]());

function map(name: string, labels: Record<string, string> = {}, data: JsonObject = {}): JsonObject {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, labels }, data };
}

function create(name: string, labels?: Record<string, string>): string {
  return server.api.objects.create(map(name, labels)).metadata.resourceVersion;
}

function names(list: JsonObject): string[] {
  return listAt(list, 'items').map((item) => textAt(item, 'metadata', 'name'));
}

const mapName = { apiVersion: 'v1', kind: 'ConfigMap' };

describe('a list', () => {
  it('looks as from a real server: kind and version first, items without theirs', async () => {
    create('a');
    const text = await (await fetch(maps)).text();
    expect(text).toMatch(
      /^\{"kind":"ConfigMapList","apiVersion":"v1","metadata":\{"resourceVersion":"\d+"\},"items":\[\{"metadata"/,
    );
  });

  it('comes in pages of one moment, whatever changes between them', async () => {
    for (const name of ['a', 'b', 'c', 'd', 'e']) create(name);
    const first = (await request(`${maps}?limit=2`)).body;
    expect(names(first)).toEqual(['a', 'b']);
    expect(first['metadata']).toMatchObject({ remainingItemCount: 3 });
    server.api.objects.delete({ ...mapName, name: 'c' });
    create('bb');
    const rest = [];
    for (let page = first; textAt(page, 'metadata', 'continue') !== '';) {
      const token = encodeURIComponent(textAt(page, 'metadata', 'continue'));
      page = (await request(`${maps}?limit=2&continue=${token}`)).body;
      expect(textAt(page, 'metadata', 'resourceVersion')).toBe(
        textAt(first, 'metadata', 'resourceVersion'),
      );
      rest.push(names(page));
    }
    expect(rest).toEqual([['c', 'd'], ['e']]);
  });

  it('whose token expired is 410, with a token that goes on at the latest', async () => {
    for (const name of ['a', 'b', 'c', 'd']) create(name);
    const first = (await request(`${maps}?limit=2`)).body;
    server.api.objects.delete({ ...mapName, name: 'c' });
    server.api.compact();
    const token = encodeURIComponent(textAt(first, 'metadata', 'continue'));
    const gone = await request(`${maps}?limit=2&continue=${token}`);
    expect(gone).toMatchObject({ httpCode: 410, body: { reason: 'Expired', code: 410 } });
    const fresh = encodeURIComponent(textAt(gone.body, 'metadata', 'continue'));
    const rest = await request(`${maps}?limit=2&continue=${fresh}`);
    expect(names(rest.body)).toEqual(['d']);
  });

  it('knows limits, selectors and versions apart', async () => {
    const version = create('a', { app: 'web' });
    create('b', { app: 'db' });
    expect(names((await request(`${maps}?labelSelector=app%3Dweb`)).body)).toEqual(['a']);
    expect(names((await request(`${maps}?fieldSelector=metadata.name%3Db`)).body)).toEqual(['b']);
    expect(names((await request(`${maps}?limit=1&resourceVersion=0`)).body)).toEqual(['a', 'b']);
    const exact = `resourceVersion=${version}&resourceVersionMatch=Exact`;
    expect(names((await request(`${maps}?${exact}`)).body)).toEqual(['a']);
    const selected = (await request(`${maps}?limit=1&labelSelector=app`)).body;
    expect(selected['metadata']).not.toHaveProperty('remainingItemCount');
    expect(names((await request(`${server.url}/api/v1/configmaps`)).body)).toEqual(['a', 'b']);
  });

  it.each([
    ['limit=-1', 400, 'BadRequest'],
    ['continue=nonsense', 400, 'BadRequest'],
    ['resourceVersion=abc', 400, 'BadRequest'],
    ['labelSelector=%3D', 400, 'BadRequest'],
    ['fieldSelector=spec.x%3Dy', 400, 'BadRequest'],
    ['resourceVersionMatch=Exact', 422, 'Invalid'],
    ['resourceVersion=9000000000000000', 504, 'Timeout'],
    ['watch=1&resourceVersion=1&resourceVersionMatch=NotOlderThan', 422, 'Invalid'],
    ['watch=1&sendInitialEvents=true', 422, 'Invalid'],
  ])('with %s is %d %s', async (query, httpCode, reason) => {
    expect(await request(`${maps}?${query}`)).toMatchObject({
      httpCode,
      body: { reason, kind: 'Status' },
    });
  });

  it('from the future says so as client-go expects it', async () => {
    const { body, headers } = await request(`${maps}?resourceVersion=9000000000000000`);
    expect(headers.get('retry-after')).toBe('1');
    expect(body['details']).toMatchObject({ causes: [{ reason: 'ResourceVersionTooLarge' }] });
  });

  it('of thousands arrives whole, compressed when the client can', async () => {
    const data = { text: 'x'.repeat(500) };
    for (let i = 0; i < 3000; i++) server.api.objects.create(map(`m${i}`, {}, data));
    const response = await fetch(maps);
    expect(response.headers.get('content-encoding')).toBe('gzip');
    expect(names((await response.json()) as JsonObject)).toHaveLength(3000);
    const plain = await request(maps, { headers: { 'accept-encoding': 'identity' } });
    expect(plain.headers.get('content-encoding')).toBeNull();
    expect(names(plain.body)).toHaveLength(3000);
  });
});

describe('a watch', () => {
  it('from a version sends what came after it, then what comes', async () => {
    const version = create('a');
    create('b');
    await using watch = await WatchReader.open(`${maps}?watch=1&resourceVersion=${version}`);
    expect(await watch.names(1)).toEqual(['ADDED b']);
    server.api.objects.patch({ ...mapName, name: 'a' }, 'merge', { data: { x: '1' } });
    server.api.objects.delete({ ...mapName, name: 'b' });
    expect(await watch.names(2)).toEqual(['MODIFIED a', 'DELETED b']);
  });

  it('without a version sends the state first', async () => {
    create('b');
    create('a');
    await using watch = await WatchReader.open(`${maps}?watch=true`);
    expect(await watch.names(2)).toEqual(['ADDED a', 'ADDED b']);
    create('c');
    expect(await watch.names(1)).toEqual(['ADDED c']);
  });

  it('with sendInitialEvents marks the end of the state', async () => {
    const version = create('a');
    const query =
      'watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true';
    await using watch = await WatchReader.open(`${maps}?${query}`);
    expect(await watch.names(1)).toEqual(['ADDED a']);
    expect(await watch.next()).toEqual({
      type: 'BOOKMARK',
      object: {
        kind: 'ConfigMap',
        apiVersion: 'v1',
        metadata: {
          resourceVersion: version,
          annotations: { 'k8s.io/initial-events-end': 'true' },
        },
      },
    });
    create('b');
    expect(await watch.names(1)).toEqual(['ADDED b']);
  });

  it('of a selection sees objects enter and leave it by changing', async () => {
    create('in', { app: 'web' });
    create('out', { app: 'db' });
    await using watch = await WatchReader.open(`${maps}?watch=1&labelSelector=app%3Dweb`);
    expect(await watch.names(1)).toEqual(['ADDED in']);
    const relabel = (name: string, app: string): unknown =>
      server.api.objects.patch({ ...mapName, name }, 'merge', { metadata: { labels: { app } } });
    relabel('out', 'web');
    relabel('in', 'db');
    relabel('in', 'cache');
    server.api.objects.delete({ ...mapName, name: 'in' });
    server.api.objects.delete({ ...mapName, name: 'out' });
    const [entered, left, deleted] = [await watch.next(), await watch.next(), await watch.next()];
    expect([entered, left, deleted].map((event) => textAt(event, 'type'))).toEqual([
      'ADDED',
      'DELETED',
      'DELETED',
    ]);
    // The state it was selected in, at the version it left with.
    expect(left).toMatchObject({ object: { metadata: { name: 'in', labels: { app: 'web' } } } });
    expect(Number(textAt(left, 'object', 'metadata', 'resourceVersion'))).toBeGreaterThan(
      Number(textAt(entered, 'object', 'metadata', 'resourceVersion')),
    );
    expect(textAt(deleted, 'object', 'metadata', 'name')).toBe('out');
  });

  it('of one field value follows it', async () => {
    const pods = `${server.url}/api/v1/pods`;
    await using watch = await WatchReader.open(`${pods}?watch=1&fieldSelector=spec.nodeName%3Dn1`);
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'p' },
      spec: { containers: [{ name: 'c' }] },
    };
    server.api.objects.create(pod);
    const name = { apiVersion: 'v1', kind: 'Pod', name: 'p' };
    server.api.objects.patch(name, 'merge', { spec: { nodeName: 'n1' } });
    expect(await watch.names(1)).toEqual(['ADDED p']);
  });

  it('of one namespace, or one object, sees no other', async () => {
    await using watch = await WatchReader.open(`${maps}?watch=1`);
    await using single = await WatchReader.open(`${maps}/b?watch=1`);
    server.api.objects.create({
      ...map('elsewhere'),
      metadata: { name: 'elsewhere', namespace: 'kube-system' },
    });
    create('a');
    create('b');
    expect(await watch.names(2)).toEqual(['ADDED a', 'ADDED b']);
    expect(await single.names(1)).toEqual(['ADDED b']);
  });

  it('gets bookmarks with the version of other kinds, too, and one at its end', async () => {
    await server[Symbol.asyncDispose]();
    server = await startTestApi({ bookmarkIntervalMs: 20 });
    const query = 'watch=1&allowWatchBookmarks=true&timeoutSeconds=1';
    await using watch = await WatchReader.open(`${server.url}/api/v1/nodes?${query}`);
    const version = create('unrelated');
    for (;;) {
      const event = await watch.next();
      expect(event).toMatchObject({ type: 'BOOKMARK', object: { kind: 'Node' } });
      if (textAt(event, 'object', 'metadata', 'resourceVersion') === version) break;
    }
    server.api.faults.endWatches();
    let last: JsonObject | undefined;
    for (let event = await watch.next(); event !== undefined; event = await watch.next())
      last = event;
    expect(last).toMatchObject({ type: 'BOOKMARK' });
  });

  it('without allowWatchBookmarks gets none, and ends after timeoutSeconds', async () => {
    await server[Symbol.asyncDispose]();
    server = await startTestApi({ bookmarkIntervalMs: 5 });
    await using watch = await WatchReader.open(
      `${server.url}/api/v1/nodes?watch=1&timeoutSeconds=1`,
    );
    expect(await watch.next()).toBeUndefined();
    await until('the watch is gone', () => server.api.openWatchCount === 0);
  });

  it('from a compacted version is 410 in the stream, or by status if asked to', async () => {
    const version = create('a');
    create('b');
    server.api.compact();
    const url = `${maps}?watch=1&resourceVersion=${version}`;
    {
      await using watch = await WatchReader.open(url);
      expect(watch.httpCode).toBe(200);
      expect(await watch.next()).toMatchObject({
        type: 'ERROR',
        object: { kind: 'Status', code: 410, reason: 'Expired' },
      });
      expect(await watch.next()).toBeUndefined();
    }
    server.api.faults.goneAs('http');
    expect(await request(url)).toMatchObject({ httpCode: 410, body: { reason: 'Expired' } });
  });

  it('from a version of an earlier server without memory is 410, too', async () => {
    const version = create('a');
    const endedAt = Date.now();
    await server[Symbol.asyncDispose]();
    // Versions begin with the time in milliseconds, and a start takes less than one by now.
    await until('the clock has moved on', () => Date.now() > endedAt);
    server = await startTestApi();
    const url = `${server.url}/api/v1/configmaps?watch=1&resourceVersion=${version}`;
    await using watch = await WatchReader.open(url);
    expect(await watch.next()).toMatchObject({ type: 'ERROR', object: { code: 410 } });
  });

  it('from the latest version survives compaction', async () => {
    const version = create('a');
    server.api.compact();
    await using watch = await WatchReader.open(`${maps}?watch=1&resourceVersion=${version}`);
    create('b');
    expect(await watch.names(1)).toEqual(['ADDED b']);
  });

  it('loses nothing between a long state and the changes made while it is sent', async () => {
    const data = { text: 'x'.repeat(1000) };
    for (let i = 0; i < 4000; i++) server.api.objects.create(map(`m${i}`, {}, data));
    await using watch = await WatchReader.open(`${maps}?watch=1`);
    for (let i = 0; i < 4000; i += 2) server.api.objects.delete({ ...mapName, name: `m${i}` });
    const seen = await watch.names(6000);
    const left = new Set<string>();
    for (const line of seen) {
      const [type, name = ''] = line.split(' ');
      if (type === 'DELETED') left.delete(name);
      else left.add(name);
    }
    expect(left.size).toBe(2000);
  });

  it('as a table sends rows', async () => {
    const accept = 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json';
    const response = await fetch(`${maps}?watch=1`, { headers: { accept } });
    create('a');
    const reader = response.body?.getReader();
    const text = new TextDecoder().decode((await reader?.read())?.value);
    await reader?.cancel();
    expect(JSON.parse(text.split('\n')[0] ?? '')).toMatchObject({
      type: 'ADDED',
      object: { kind: 'Table', rows: [{ cells: ['a', '0', expect.any(String)] }] },
    });
  });
});

describe('faults', () => {
  it('end, expire, cut and stall open watches', async () => {
    const open = async (): Promise<WatchReader> => {
      const watch = await WatchReader.open(`${maps}?watch=1`);
      await until('it is open', () => server.api.openWatchCount === 1);
      return watch;
    };
    const ended = await open();
    server.api.faults.endWatches();
    expect(await ended.next()).toBeUndefined();
    await until('it is gone', () => server.api.openWatchCount === 0);

    const expired = await open();
    server.api.faults.expireWatches();
    expect(await expired.next()).toMatchObject({ type: 'ERROR', object: { code: 410 } });
    expect(await expired.next()).toBeUndefined();
    await until('it is gone', () => server.api.openWatchCount === 0);

    const cut = await open();
    server.api.faults.disconnectWatches();
    await expect(cut.next()).rejects.toThrow();
    await until('it is gone', () => server.api.openWatchCount === 0);

    await using stalled = await open();
    server.api.faults.stallWatches();
    create('unseen');
    server.api.faults.endWatches();
    const silence = Symbol('silence');
    const later = new Promise((resolve) => setTimeout(resolve, 50, silence));
    expect(await Promise.race([stalled.next(), later])).toBe(silence);
  });

  it('refuse, hang and cut requests', async () => {
    const { faults } = server.api;
    faults.intercept(({ path }) => (path.endsWith('/configmaps') ? { kind: 'cut' } : undefined));
    await expect(fetch(maps)).rejects.toThrow();
    expect((await fetch(`${server.url}/api/v1/nodes`)).status).toBe(200);
    faults.intercept(() => ({ kind: 'hang' }));
    await expect(fetch(maps, { signal: AbortSignal.timeout(50) })).rejects.toThrow(/timeout/);
    faults.intercept(undefined);
    expect((await fetch(maps)).status).toBe(200);
  });
});
