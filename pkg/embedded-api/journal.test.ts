import {
  appendFileSync,
  existsSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { startEmbeddedApi, type EmbeddedApi } from './embedded-api.ts';
import { request, WatchReader } from './testing/raw-client.ts';

// The machine may be busy with other tests.
vi.setConfig({ testTimeout: 60_000 });

let folder: string;
let file: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'podwire-journal-'));
  file = join(folder, 'objects');
});
afterEach(() => rm(folder, { recursive: true }));

function start(): Promise<EmbeddedApi> {
  return startEmbeddedApi({
    persistenceFile: file,
    serviceCIDRs: ['10.96.0.0/16'],
    listen: [{ host: '127.0.0.1', port: 0 }],
  });
}

const mapName = { apiVersion: 'v1', kind: 'ConfigMap' };

function map(name: string): { metadata: { name: string } } & typeof mapName {
  return { ...mapName, metadata: { name } };
}

it('a server goes on where another stopped, killed or not', async () => {
  const first = await start();
  first.objects.create(map('gone'));
  const kept = first.objects.create(map('kept'));
  first.objects.create({
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'widgets.example.com' },
    spec: {
      group: 'example.com',
      scope: 'Cluster',
      names: { plural: 'widgets', kind: 'Widget' },
      versions: [{ name: 'v1', served: true, storage: true }],
    },
  });
  first.objects.create({ apiVersion: 'example.com/v1', kind: 'Widget', metadata: { name: 'w' } });
  first.objects.delete({ ...mapName, name: 'gone' });
  const ports = [{ port: 80 }];
  const web = first.objects.create({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web' },
    spec: { ports },
  });
  const version = first.objects.list(mapName).resourceVersion;
  // As a kill leaves it: nothing was told that it ends.
  const state = readFileSync(file);
  await first[Symbol.asyncDispose]();
  writeFileSync(file, state);

  await using second = await start();
  expect(second.objects.list(mapName)).toEqual({ items: [kept], resourceVersion: version });
  expect(
    second.objects.get({ apiVersion: 'example.com/v1', kind: 'Widget', name: 'w' }),
  ).toBeDefined();
  const other = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'other' },
    spec: { ...(web['spec'] as object) },
  };
  expect(() => second.objects.create(other)).toThrow(/provided IP is already allocated/);
  const [url = ''] = second.urls;
  const maps = `${url}/api/v1/configmaps`;
  await using resumed = await WatchReader.open(`${maps}?watch=1&resourceVersion=${version}`);
  const next = second.objects.create(map('next'));
  expect(Number(next.metadata.resourceVersion)).toBe(Number(version) + 1);
  expect(await resumed.names(1)).toEqual(['ADDED next']);
  second.faults.goneAs('http');
  const old = await request(`${maps}?watch=1&resourceVersion=${Number(version) - 1}`);
  expect(old.httpCode).toBe(410);
});

it('a torn last line is left out, a broken one before it is refused', async () => {
  const first = await start();
  first.objects.create(map('kept'));
  const size = statSync(file).size;
  first.objects.create(map('torn'));
  await first[Symbol.asyncDispose]();
  truncateSync(file, size + 20);
  {
    await using second = await start();
    expect(second.objects.list(mapName).items.map(({ metadata }) => metadata.name)).toEqual([
      'kept',
    ]);
  }
  const whole = readFileSync(file, 'utf8');
  writeFileSync(file, whole.replace('"revision"', '"rev'));
  await expect(start()).rejects.toThrow(/Cannot read .*objects: line 1 is no line of/);
  writeFileSync(file, 'something else entirely\n');
  await expect(start()).rejects.toThrow(expect.objectContaining({ code: 'InvalidState' }));
});

it('the file is for its owner only, and does not grow without end', async () => {
  await using api = await start();
  expect(statSync(file).mode & 0o777).toBe(0o600);
  api.objects.create(map('a'));
  for (let i = 0; i < 12_000; i++) {
    api.objects.patch({ ...mapName, name: 'a' }, 'merge', { data: { i: String(i) } });
  }
  expect(readFileSync(file, 'utf8').split('\n').length).toBeLessThan(11_000);
  expect(existsSync(`${file}.new`)).toBe(false);
  expect(readFileSync(file, 'utf8')).toContain('"i":"11999"');
});

it('a file that cannot be read ends the start, not a later request', async () => {
  appendFileSync(file, '');
  await rm(file);
  await expect(
    startEmbeddedApi({ persistenceFile: join(folder, 'no', 'such', 'folder') }),
  ).rejects.toThrow(/ENOENT/);
});
