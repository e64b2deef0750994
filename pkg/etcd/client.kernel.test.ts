import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { isErrno, messageOf } from '#pkg/errors/agent-error.ts';
import { createAuthority } from '#pkg/kube/testing/certificates.ts';
import { createEtcdClient, type EtcdClient } from './client.ts';
import type { EtcdEvent } from './records.ts';
import { startScratchEtcd, type ScratchEtcd } from './scratch-etcd.ts';

const never = new AbortController().signal;

let etcd: ScratchEtcd;
let client: EtcdClient;
beforeAll(async () => {
  etcd = await startScratchEtcd();
  client = await createEtcdClient({ endpoints: [`unix://${etcd.socket}`] });
});
afterAll(async () => {
  client?.[Symbol.dispose]();
  await etcd?.[Symbol.asyncDispose]();
});

test('a key is made once, and read, listed and deleted', async () => {
  const absent = [{ key: '/a/1', createRevision: '0' }];
  const put = { op: 'put', key: '/a/1', value: 'one ÿ' } as const;
  const revision = await client.transact(absent, [put], never);
  expect(revision).toMatch(/^\d+$/);
  expect(await client.transact(absent, [put], never)).toBeUndefined();
  await etcd.ctl('put', '/b', 'not of it');
  expect(await client.get('/a/1', never)).toEqual({
    key: '/a/1',
    value: 'one ÿ',
    createRevision: revision,
    modRevision: revision,
    lease: undefined,
  });
  const { entries } = await client.list('/a/', never);
  expect(entries.map(({ key }) => key)).toEqual(['/a/1']);
  const mine = [{ key: '/a/1', createRevision: revision ?? '' }];
  await client.transact(mine, [{ op: 'delete', key: '/a/1' }], never);
  expect(await client.get('/a/1', never)).toBeUndefined();
});

test('a key ends with its lease, which can be renewed', async () => {
  const lease = await client.grantLease(600, never);
  await client.transact([], [{ op: 'put', key: '/l', value: '', lease }], never);
  expect((await client.get('/l', never))?.lease).toBe(lease);
  expect(await client.renewLease(lease, never)).toBe(600);
  await client.revokeLease(lease, never);
  expect(await client.get('/l', never)).toBeUndefined();
  expect(await client.renewLease(lease, never)).toBe(0);
});

describe('a watch', () => {
  async function collect(after: string, count: number): Promise<readonly EtcdEvent[]> {
    const seen: EtcdEvent[] = [];
    for await (const { events } of client.watch('/w/', after, never)) {
      seen.push(...events);
      if (seen.length >= count) break;
    }
    return seen;
  }

  test('tells what happened after a revision, and what happens', async () => {
    const { revision } = await client.list('/w/', never);
    await etcd.ctl('put', '/w/1', 'a');
    const watching = collect(revision, 3);
    await etcd.ctl('put', '/w/1', 'b');
    await etcd.ctl('put', '/x', '');
    await etcd.ctl('del', '/w/1');
    const kinds = (await watching).map((event) =>
      event.kind === 'put' ? event.entry.value : `no ${event.key}`,
    );
    expect(kinds).toEqual(['a', 'b', 'no /w/1']);
  });

  test('128. says that its past was compacted', async () => {
    for (const value of ['1', '2', '3']) await etcd.ctl('put', '/w/c', value);
    const { revision } = await client.list('/w/', never);
    await etcd.ctl('compact', revision);
    const error = await collect('1', 1).catch((e: unknown) => e);
    expect(isErrno(error, 'EtcdCompacted')).toBe(true);
    expect(messageOf(error)).toContain(`before revision ${revision} is compacted`);
  });

  test('ends with its signal', async () => {
    const stop = new AbortController();
    const ended = Array.fromAsync(client.watch('/w/', '0', stop.signal)).catch((e: unknown) => e);
    stop.abort(new Error('enough'));
    expect(await ended).toHaveProperty('message', 'enough');
  });
});

test('goes on at another endpoint, and says when there is none', async () => {
  const endpoints = ['unix:///nowhere/etcd', `unix://${etcd.socket}`];
  using both = await createEtcdClient({ endpoints });
  expect((await both.list('/', never)).revision).toMatch(/^\d+$/);
  using none = await createEtcdClient({ endpoints: ['unix:///nowhere/etcd'] });
  const error = await none.list('/a/', never).catch((e: unknown) => e);
  expect(isErrno(error, 'EtcdUnavailable')).toBe(true);
  expect(messageOf(error)).toContain(
    'Cannot list /a/ in etcd: no answer from unix:///nowhere/etcd',
  );
});

test('names itself by a certificate, and by name and password', async () => {
  const authority = createAuthority();
  if (typeof authority === 'string') throw new Error(authority);
  const tls = { ca: authority.ca, ...authority.issue('localhost') };
  await using secure = await startScratchEtcd({ tls });
  const { dir, socket } = secure;
  const files = {
    endpoints: [`https://unix:${socket}`],
    caFile: join(dir, 'ca.crt'),
    certFile: join(dir, 'tls.crt'),
    keyFile: join(dir, 'tls.key'),
  };
  using known = await createEtcdClient(files);
  expect((await known.list('/', never)).entries).toEqual([]);
  using unknown = await createEtcdClient({ endpoints: files.endpoints, caFile: files.caFile });
  await expect(unknown.list('/', never)).rejects.toHaveProperty('code', 'EtcdUnavailable');

  await secure.ctl('user', 'add', 'root:secret');
  await secure.ctl('user', 'grant-role', 'root', 'root');
  await secure.ctl('auth', 'enable');
  using named = await createEtcdClient({ ...files, username: 'root', password: 'secret' });
  expect((await named.list('/', never)).entries).toEqual([]);
  using wrong = await createEtcdClient({ ...files, username: 'root', password: 'wrong' });
  const error = await wrong.list('/', never).catch((e: unknown) => e);
  expect(messageOf(error)).toContain('authentication failed');
});
