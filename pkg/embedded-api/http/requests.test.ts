import { connect } from 'node:http2';
import { request as httpsRequest } from 'node:https';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { textAt, type JsonObject } from '#pkg/embedded-api/json.ts';
import { request } from '#pkg/embedded-api/testing/raw-client.ts';
import { selfSigned } from '#pkg/embedded-api/testing/self-signed.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { startTestApi, until, type TestApi } from '#pkg/embedded-api/testing/start-test-api.ts';

// The machine may be busy with other tests.
vi.setConfig({ testTimeout: 60_000 });

const AF_INET = 2;
const SOCK_STREAM = 1;

let server: TestApi;
let maps: string;
beforeEach(async () => {
  server = await startTestApi({ serviceCIDRs: ['10.96.0.0/16'] });
  maps = `${server.url}/api/v1/namespaces/default/configmaps`;
});
afterEach(() => server[Symbol.asyncDispose]());

function map(name: string, data: JsonObject = {}): JsonObject {
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data };
}

describe('writes', () => {
  it('give a new object its identity and a place', async () => {
    const made = await request(maps, { body: map('a') });
    expect(made.httpCode).toBe(201);
    expect(made.body['metadata']).toEqual({
      name: 'a',
      namespace: 'default',
      uid: expect.stringMatching(/^[0-9a-f-]{36}$/),
      resourceVersion: expect.stringMatching(/^\d+$/),
      generation: 1,
      creationTimestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
    });
    expect((await request(`${maps}/a`)).body).toEqual(made.body);
  });

  it('make names from generateName', async () => {
    const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { generateName: 'web-' } };
    const [a, b] = [await request(maps, { body }), await request(maps, { body })];
    expect(textAt(a.body, 'metadata', 'name')).toMatch(/^web-[b-z2-9]{5}$/);
    expect(textAt(a.body, 'metadata', 'name')).not.toBe(textAt(b.body, 'metadata', 'name'));
  });

  it('take YAML, and null for what is not given', async () => {
    const body = 'kind: ConfigMap\nmetadata: {name: y, creationTimestamp: null}\ndata: {a: "1"}\n';
    const made = await request(maps, { body, contentType: 'application/yaml' });
    expect(made).toMatchObject({ httpCode: 201, body: { apiVersion: 'v1', data: { a: '1' } } });
  });

  it.each<[string, JsonObject | string, string, RegExp]>([
    ['a second of one name', map('a'), '409 AlreadyExists', /^configmaps "a" already exists$/],
    [
      'another kind',
      { ...map('b'), kind: 'Secret' },
      '400 BadRequest',
      /does not match the expected/,
    ],
    [
      'another namespace',
      { ...map('b'), metadata: { name: 'b', namespace: 'kube-system' } },
      '400 BadRequest',
      /namespace of the provided object/,
    ],
    [
      'a chosen version',
      { ...map('b'), metadata: { name: 'b', resourceVersion: '5' } },
      '400 BadRequest',
      /resourceVersion should not be set/,
    ],
    ['what is no JSON', '{', '400 BadRequest', /no JSON/],
    ['a list', '[]', '400 BadRequest', /no object/],
  ])('refuse %s', async (_name, body, refusal, message) => {
    const [code, reason] = refusal.split(' ');
    await request(maps, { body: map('a') });
    const answer = await request(maps, { body });
    expect(answer).toMatchObject({
      httpCode: Number(code),
      body: { kind: 'Status', status: 'Failure', reason, code: Number(code) },
    });
    expect(textAt(answer.body, 'message')).toMatch(message);
  });

  it('refuse media types they cannot read', async () => {
    const contentType = 'application/cbor';
    expect(await request(maps, { body: 'x', contentType })).toMatchObject({ httpCode: 415 });
    await request(maps, { body: map('a') });
    expect(await request(`${maps}/a`, { method: 'PATCH', body: {} })).toMatchObject({
      httpCode: 415,
    });
  });

  it('refuse a body that is too large', async () => {
    const body = map('big', { a: 'x'.repeat(4 * 1024 * 1024) });
    expect(await request(maps, { body })).toMatchObject({ httpCode: 413 });
  });

  it('say which fields of an object are wrong', async () => {
    const body = {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web' },
      spec: { ports: [{ port: 80, protocol: 'tcp' }] },
    };
    const answer = await request(`${server.url}/api/v1/namespaces/default/services`, { body });
    expect(answer).toMatchObject({
      httpCode: 422,
      body: {
        reason: 'Invalid',
        details: {
          name: 'web',
          kind: 'Service',
          causes: [{ field: 'spec.ports[0].protocol', reason: 'FieldValueNotSupported' }],
        },
      },
    });
  });

  it('of an old version are conflicts', async () => {
    const { body } = await request(maps, { body: map('a') });
    const next = { ...body, data: { x: '1' } };
    expect(await request(`${maps}/a`, { method: 'PUT', body: next })).toMatchObject({
      httpCode: 200,
    });
    const late = await request(`${maps}/a`, { method: 'PUT', body: { ...body, data: { x: '2' } } });
    expect(late).toMatchObject({ httpCode: 409, body: { reason: 'Conflict' } });
    expect(textAt(late.body, 'message')).toMatch(
      /^Operation cannot be fulfilled on configmaps "a": the object has been modified/,
    );
    const patch = { metadata: { resourceVersion: textAt(body, 'metadata', 'resourceVersion') } };
    const options = { method: 'PATCH', body: patch, contentType: 'application/merge-patch+json' };
    expect(await request(`${maps}/a`, options)).toMatchObject({ httpCode: 409 });
  });

  it('by patch: merge, json, strategic, apply', async () => {
    await request(maps, { body: map('a', { x: '1', y: '1' }) });
    const patch = async (
      contentType: string,
      body: JsonObject | JsonObject[],
      query = '',
    ): Promise<unknown> =>
      (await request(`${maps}/a${query}`, { method: 'PATCH', body, contentType })).body['data'];
    expect(await patch('application/merge-patch+json', { data: { x: null } })).toEqual({ y: '1' });
    expect(
      await patch('application/json-patch+json', [{ op: 'add', path: '/data/z', value: '1' }]),
    ).toEqual({ y: '1', z: '1' });
    expect(
      await patch('application/strategic-merge-patch+json', {
        data: { $patch: 'replace', q: '1' },
      }),
    ).toEqual({ q: '1' });
    expect(
      await patch('application/apply-patch+yaml', { data: { r: '1' } }, '?fieldManager=t'),
    ).toEqual({ q: '1', r: '1' });
  });

  it('of a dry run leave nothing', async () => {
    expect(await request(`${maps}?dryRun=All`, { body: map('a') })).toMatchObject({
      httpCode: 201,
    });
    expect(await request(`${maps}/a`)).toMatchObject({ httpCode: 404 });
    expect(await request(`${maps}?dryRun=Some`, { body: map('a') })).toMatchObject({
      httpCode: 400,
    });
  });

  it('of a status touch nothing else', async () => {
    const nodes = `${server.url}/api/v1/nodes`;
    await request(nodes, { body: { apiVersion: 'v1', kind: 'Node', metadata: { name: 'n' } } });
    const body = {
      metadata: { name: 'n' },
      spec: { podCIDR: '10.0.0.0/24' },
      status: { addresses: [{ type: 'Hostname', address: 'n' }] },
    };
    const answer = await request(`${nodes}/n/status`, { method: 'PUT', body });
    expect(answer.body).toMatchObject({ spec: {}, status: body.status });
    expect(answer.body['spec']).toEqual({});
    expect(await request(`${maps}/n/status`)).toMatchObject({ httpCode: 404 });
  });
});

describe('deletion', () => {
  it('answers with a Status and asks for preconditions', async () => {
    const { body } = await request(maps, { body: map('a') });
    const wrong = { preconditions: { uid: 'other' } };
    expect(await request(`${maps}/a`, { method: 'DELETE', body: wrong })).toMatchObject({
      httpCode: 409,
    });
    const uid = textAt(body, 'metadata', 'uid');
    const right = { kind: 'DeleteOptions', preconditions: { uid } };
    expect(await request(`${maps}/a`, { method: 'DELETE', body: right })).toMatchObject({
      httpCode: 200,
      body: { kind: 'Status', status: 'Success', details: { name: 'a', kind: 'configmaps', uid } },
    });
    expect(await request(`${maps}/a`, { method: 'DELETE' })).toMatchObject({ httpCode: 404 });
  });

  it('waits for finalizers', async () => {
    await request(maps, {
      body: { ...map('a'), metadata: { name: 'a', finalizers: ['x.dev/f'] } },
    });
    const marked = await request(`${maps}/a`, { method: 'DELETE' });
    expect(marked.body['metadata']).toMatchObject({
      deletionTimestamp: expect.any(String),
      finalizers: ['x.dev/f'],
    });
    const patch = (finalizers: string[]): Promise<unknown> =>
      request(`${maps}/a`, {
        method: 'PATCH',
        body: { metadata: { finalizers } },
        contentType: 'application/merge-patch+json',
      });
    expect(await patch(['x.dev/f', 'x.dev/g'])).toMatchObject({ httpCode: 422 });
    expect(await patch([])).toMatchObject({ httpCode: 200 });
    expect(await request(`${maps}/a`)).toMatchObject({ httpCode: 404 });
  });

  it('of a collection takes selectors', async () => {
    for (const [name, app] of [
      ['a', 'x'],
      ['b', 'y'],
      ['c', 'x'],
    ]) {
      await request(maps, {
        body: { ...map(name ?? ''), metadata: { name: name ?? '', labels: { app: app ?? '' } } },
      });
    }
    const answer = await request(`${maps}?labelSelector=app%3Dx`, { method: 'DELETE' });
    expect(answer.body['items']).toHaveLength(2);
    expect((await request(maps)).body['items']).toMatchObject([{ metadata: { name: 'b' } }]);
  });

  it('of a Namespace takes what is in it, and waits for what stays', async () => {
    const { objects } = server.api;
    objects.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'ns' } });
    objects.create({ ...map('a'), metadata: { name: 'a', namespace: 'ns' } });
    objects.create({
      ...map('b'),
      metadata: { name: 'b', namespace: 'ns', finalizers: ['x.dev/f'] },
    });
    const answer = await request(`${server.url}/api/v1/namespaces/ns`, { method: 'DELETE' });
    expect(answer.body).toMatchObject({ kind: 'Namespace', status: { phase: 'Terminating' } });
    const inside = `${server.url}/api/v1/namespaces/ns/configmaps`;
    expect(await request(`${inside}/a`)).toMatchObject({ httpCode: 404 });
    expect(await request(inside, { body: map('c') })).toMatchObject({ httpCode: 403 });
    objects.patch({ apiVersion: 'v1', kind: 'ConfigMap', namespace: 'ns', name: 'b' }, 'merge', {
      metadata: { finalizers: null },
    });
    expect(await request(`${server.url}/api/v1/namespaces/ns`)).toMatchObject({ httpCode: 404 });
    const permanent = `${server.url}/api/v1/namespaces/default`;
    expect(await request(permanent, { method: 'DELETE' })).toMatchObject({ httpCode: 403 });
  });
});

describe('custom kinds', () => {
  const definitions = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
  const definition = {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'widgets.example.com' },
    spec: {
      group: 'example.com',
      scope: 'Namespaced',
      names: { plural: 'widgets', kind: 'Widget', shortNames: ['wd'] },
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          subresources: { status: {} },
          schema: { openAPIV3Schema: { type: 'object' } },
        },
        { name: 'v1beta1', served: true, storage: false },
      ],
    },
  };

  it('are served from the moment of their definition until its end', async () => {
    const widgets = `${server.url}/apis/example.com/v1/namespaces/default/widgets`;
    const body = {
      apiVersion: 'example.com/v1',
      kind: 'Widget',
      metadata: { name: 'w' },
      spec: { size: 3, gone: null },
    };
    expect(await request(widgets, { body })).toMatchObject({ httpCode: 404 });
    const defined = await request(server.url + definitions, { body: definition });
    expect(defined.body['status']).toMatchObject({
      conditions: [
        { type: 'NamesAccepted', status: 'True' },
        { type: 'Established', status: 'True' },
      ],
    });
    expect(await request(widgets, { body })).toMatchObject({
      httpCode: 201,
      body: { spec: { size: 3, gone: null } },
    });
    expect((await request(`${server.url}/apis/example.com/v1`)).body['resources']).toMatchObject([
      { name: 'widgets', kind: 'Widget', shortNames: ['wd'] },
      { name: 'widgets/status' },
    ]);
    const beta = `${server.url}/apis/example.com/v1beta1/namespaces/default/widgets/w`;
    expect((await request(beta)).body['apiVersion']).toBe('example.com/v1beta1');
    await request(`${server.url}${definitions}/widgets.example.com`, { method: 'DELETE' });
    expect(await request(`${widgets}/w`)).toMatchObject({ httpCode: 404 });
    await request(server.url + definitions, { body: definition });
    expect((await request(widgets)).body['items']).toEqual([]);
  });

  it('need a version to be replaced, and take no strategic patch', async () => {
    await request(server.url + definitions, { body: definition });
    const widgets = `${server.url}/apis/example.com/v1/namespaces/default/widgets`;
    const body = { apiVersion: 'example.com/v1', kind: 'Widget', metadata: { name: 'w' } };
    await request(widgets, { body });
    expect(await request(`${widgets}/w`, { method: 'PUT', body })).toMatchObject({ httpCode: 422 });
    const contentType = 'application/strategic-merge-patch+json';
    expect(await request(`${widgets}/w`, { method: 'PATCH', body: {}, contentType })).toMatchObject(
      { httpCode: 415 },
    );
  });
});

describe('who asks', () => {
  const withToken = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

  it('must know a token, and may do what its rules say', async () => {
    const rules = [
      { apiGroups: [''], resources: ['nodes', 'nodes/status'], verbs: ['get', 'list', 'watch'] },
    ];
    await using other = await startTestApi({
      tokens: [
        { token: 'all', user: 'admin' },
        { token: 'few', user: 'agent', rules },
      ],
    });
    const nodes = `${other.url}/api/v1/nodes`;
    expect(await request(nodes)).toMatchObject({ httpCode: 401, body: { reason: 'Unauthorized' } });
    expect(await request(nodes, withToken('wrong'))).toMatchObject({ httpCode: 401 });
    expect(await request(nodes, withToken('all'))).toMatchObject({ httpCode: 200 });
    expect(await request(nodes, withToken('few'))).toMatchObject({ httpCode: 200 });
    const refused = await request(`${other.url}/api/v1/namespaces/default/pods`, withToken('few'));
    expect(refused).toMatchObject({ httpCode: 403, body: { reason: 'Forbidden' } });
    expect(textAt(refused.body, 'message')).toBe(
      'pods is forbidden: User "agent" cannot list resource "pods" in API group "" in the namespace "default"',
    );
    const body = { apiVersion: 'v1', kind: 'Node', metadata: { name: 'n' } };
    expect(await request(nodes, { ...withToken('few'), body })).toMatchObject({ httpCode: 403 });
    other.api.faults.setTokens([{ token: 'new', user: 'admin' }]);
    expect(await request(nodes, withToken('all'))).toMatchObject({ httpCode: 401 });
    expect(await request(nodes, withToken('new'))).toMatchObject({ httpCode: 200 });
    expect((await fetch(`${other.url}/readyz`)).status).toBe(200);
  });

  it.each(['//', '//[', '//host:x/api'])(
    'for the path %s is of no use, and no end',
    async (path) => {
      expect((await fetch(server.url + path)).status).toBe(404);
    },
  );

  it('over TLS is served by HTTP/2 and HTTP/1.1', async ({ skip }) => {
    const tls = await selfSigned();
    if (tls === undefined) return skip('openssl is missing');
    await using other = await startTestApi({ tls });
    const session = connect(other.url, { ca: tls.cert });
    const stream = session.request({ ':path': '/api/v1/namespaces' });
    let text = '';
    stream.on('data', (chunk: Buffer) => (text += chunk.toString()));
    await once(stream, 'end');
    expect(JSON.parse(text)).toMatchObject({ kind: 'NamespaceList' });

    const watch = session.request({ ':path': '/api/v1/namespaces?watch=1' });
    const [headers] = (await once(watch, 'response')) as [Record<string, unknown>];
    expect(headers[':status']).toBe(200);
    await until('the watch is open', () => other.api.openWatchCount === 1);
    watch.on('error', () => undefined);
    const closed = new Promise((resolve) => watch.on('close', resolve));
    other.api.faults.disconnectWatches();
    await closed;
    expect(watch.rstCode).not.toBe(0);
    session.destroy();

    const version = await new Promise((resolve, reject) => {
      const options = { ca: tls.cert, ALPNProtocols: ['http/1.1'] };
      httpsRequest(`${other.url}/version`, options, (response) => {
        response.resume();
        resolve(response.httpVersion);
      })
        .on('error', reject)
        .end();
    });
    expect(version).toBe('1.1');
  });
});

it('serves one store on an address and on a descriptor that is bound already', async () => {
  const sys = await openSys();
  const fd = sys.socket(AF_INET, SOCK_STREAM, 0);
  // struct sockaddr_in for 127.0.0.1, port chosen by the kernel.
  sys.bind(fd, new Uint8Array([AF_INET, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]));
  await using other = await startTestApi({ listen: [{ host: '127.0.0.1', port: 0 }, { fd }] });
  const [first = '', second = ''] = other.api.urls;
  expect(second).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
  await request(`${first}/api/v1/nodes`, {
    body: { apiVersion: 'v1', kind: 'Node', metadata: { name: 'n' } },
  });
  expect(await request(`${second}/api/v1/nodes/n`)).toMatchObject({ httpCode: 200 });
});

it('says what holds a port that is taken', async () => {
  const port = Number(new URL(server.url).port);
  await expect(startTestApi({ listen: [{ host: '127.0.0.1', port }] })).rejects.toThrow(
    `Cannot listen on 127.0.0.1 port ${port}: listen EADDRINUSE`,
  );
});

it('knows paths apart', async () => {
  for (const path of [
    '/nope',
    '/api/v2',
    '/apis/nope/v1',
    '/api/v1/nope',
    '/api/v1/pods/x',
    '/apis/discovery.k8s.io/v1/nodes',
    '/openapi/v3/apis/nope/v1',
    '/api/v1/namespaces/default/nodes',
    '/%zz',
  ]) {
    expect(await request(server.url + path)).toMatchObject({
      httpCode: 404,
      body: { kind: 'Status' },
    });
  }
  expect(await request(`${server.url}/api/v1/nodes`, { method: 'PUT', body: {} })).toMatchObject({
    httpCode: 405,
  });
  expect(await request(`${server.url}/api/v1/pods`, { body: {} })).toMatchObject({ httpCode: 405 });
});
