/** The machine's own kubectl, over TLS with a token: what people will use the server with. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { kubeconfigFor } from './kubeconfig-for.ts';
import { selfSigned } from './testing/self-signed.ts';
import { startTestApi, until, type TestApi } from './testing/start-test-api.ts';

// The machine may be busy with other tests.
vi.setConfig({ testTimeout: 60_000 });

const tls = await selfSigned();
const version = await execa('kubectl', ['version', '--client'], { reject: false });
const missing = [
  ...(tls === undefined ? ['openssl'] : []),
  ...(version.exitCode === 0 ? [] : ['kubectl']),
];

let server: TestApi;
let folder: string;
beforeAll(async () => {
  if (tls === undefined) return;
  folder = await mkdtemp(join(tmpdir(), 'podwire-kubectl-'));
  server = await startTestApi({
    tls,
    tokens: [{ token: 'secret', user: 'admin' }],
    serviceCIDRs: ['10.96.0.0/16', 'fd00:96::/112'],
  });
  const subject = { server: server.url, certificateAuthority: tls.cert, token: 'secret' };
  await writeFile(join(folder, 'kubeconfig'), kubeconfigFor(subject), { mode: 0o600 });
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  if (folder !== undefined) await rm(folder, { recursive: true });
});

function start(args: string, input = '') {
  return execa('kubectl', args.split(' '), {
    input,
    reject: false,
    env: { KUBECONFIG: join(folder, 'kubeconfig'), HOME: folder },
  });
}

/** Standard output of a kubectl that must succeed. */
async function kubectl(args: string, input = ''): Promise<string> {
  const { exitCode, stdout, stderr } = await start(args, input);
  if (exitCode !== 0) throw new Error(`kubectl ${args}: ${stderr}`);
  return stdout;
}

const web = `
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  type: NodePort
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http}
  - {name: dns, port: 53, protocol: UDP}
---
apiVersion: v1
kind: Pod
metadata:
  name: web-1
  labels: {app: web}
spec:
  nodeName: node-a
  containers:
  - name: web
    image: nginx
    ports: [{name: http, containerPort: 8080}]
`;

describe.skipIf(missing.length > 0)(`kubectl (missing: ${missing.join(', ') || 'nothing'})`, () => {
  it('applies, applies again, shows and applies a change', async () => {
    expect(await kubectl('apply -f -', web)).toBe('service/web created\npod/web-1 created');
    expect(await kubectl('apply -f -', web)).toBe('service/web unchanged\npod/web-1 unchanged');
    expect(await kubectl('get svc,pods -o wide')).toMatch(
      /service\/web +NodePort +10\.96\.\S+,fd00:96::\S+ +<none> +80:3\d{4}\/TCP,53:3\d{4}\/UDP +\S+ +app=web\n[^]*pod\/web-1 +0\/1 +Pending +0 +\S+ +<none> +node-a/,
    );
    const changed = web
      .replace('port: 80,', 'port: 8080,')
      .replace('app: web}\n  ports', 'app: new}\n  ports');
    const diff = await start('diff -f -', changed);
    expect(diff.exitCode).toBe(1);
    expect(diff.stdout).toMatch(/-\s+port: 80\n[^]*\+\s+port: 8080/);
    expect(await kubectl('apply -f -', changed)).toBe(
      'service/web configured\npod/web-1 unchanged',
    );
    expect(await kubectl('get svc web -o yaml')).toMatch(
      /port: 8080\n[^]*port: 53[^]*selector:\n +app: new\n/,
    );
    expect(await kubectl('get svc web -o jsonpath={.spec.ports[*].port}')).toBe('8080 53');
    expect(await kubectl('apply -f -', web)).toBe('service/web configured\npod/web-1 unchanged');
  });

  it('applies on the server', async () => {
    const map = (data: string): string =>
      `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"ssa"},"data":${data}}`;
    expect(await kubectl('apply --server-side -f -', map('{"a":"1","b":"1"}'))).toBe(
      'configmap/ssa serverside-applied',
    );
    await kubectl('apply --server-side -f -', map('{"b":"2"}'));
    expect(await kubectl('get cm ssa -o jsonpath={.data}')).toBe('{"b":"2"}');
    const other = await start('apply --server-side --field-manager=other -f -', map('{"b":"3"}'));
    expect(other.stderr).toMatch(
      /Apply failed with 1 conflict: conflict with "kubectl": \.data\.b/,
    );
    await kubectl(
      'apply --server-side --field-manager=other --force-conflicts -f -',
      map('{"b":"3"}'),
    );
    expect(await kubectl('get cm ssa -o jsonpath={.data}')).toBe('{"b":"3"}');
  });

  it('labels, annotates, patches in three ways, replaces', async () => {
    await kubectl('create configmap c --from-literal=a=1');
    await kubectl('label configmap c tier=front');
    await kubectl('annotate configmap c note=x');
    await kubectl(`patch configmap c --type=merge -p {"data":{"b":"2"}}`);
    await kubectl(`patch configmap c --type=json -p [{"op":"remove","path":"/data/a"}]`);
    await kubectl(`patch configmap c -p {"data":{"c":"3"}}`);
    const text = await kubectl('get configmap c -o json');
    expect(JSON.parse(text)).toMatchObject({
      metadata: { labels: { tier: 'front' }, annotations: { note: 'x' } },
      data: { b: '2', c: '3' },
    });
    await kubectl('replace -f -', text.replace('"c": "3"', '"c": "4"'));
    expect(await kubectl('get configmap c -o jsonpath={.data.c}')).toBe('4');
    const stale = await start('replace -f -', text);
    expect(stale.stderr).toMatch(/Conflict.*the object has been modified/);
    expect(await kubectl('label configmap c tier-')).toBe('configmap/c unlabeled');
  });

  it('describes Services with endpoints, Pods with events, Nodes and Namespaces', async () => {
    await kubectl('apply -f -', web);
    server.api.objects.patch(
      { apiVersion: 'v1', kind: 'Pod', name: 'web-1' },
      'merge',
      {
        status: { podIPs: [{ ip: '10.244.0.2' }], conditions: [{ type: 'Ready', status: 'True' }] },
      },
      { subresource: 'status' },
    );
    server.api.objects.create({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'node-a' } });
    const { uid } = server.api.objects.get({
      apiVersion: 'v1',
      kind: 'Pod',
      name: 'web-1',
    }).metadata;
    server.api.objects.create({
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { name: 'e1' },
      involvedObject: { apiVersion: 'v1', kind: 'Pod', namespace: 'default', name: 'web-1', uid },
      reason: 'Started',
      message: 'it runs',
      type: 'Normal',
    });
    const slices = { apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice' };
    await until('there are endpoints', () =>
      JSON.stringify(server.api.objects.list(slices)).includes('10.244.0.2'),
    );
    const [service, pod, node, namespace] = await Promise.all(
      ['svc web', 'pod web-1', 'node node-a', 'namespace default'].map((what) =>
        kubectl(`describe ${what}`),
      ),
    );
    expect(service).toMatch(/Endpoints: +10\.244\.0\.2:8080/);
    expect(pod).toMatch(/IP: +10\.244\.0\.2[^]*Started[^]*it runs/);
    expect(node).toMatch(/Name: +node-a[^]*web-1/);
    expect(namespace).toMatch(/Status: +Active/);
    expect(await kubectl('get endpointslices')).toMatch(/web-\S+ +IPv4 +8080,53 +10\.244\.0\.2/);
  });

  it('watches', async () => {
    const watching = start('get configmaps -w -l watched=yes -o name');
    let seen = '';
    watching.stdout?.on('data', (chunk: Buffer) => (seen += chunk.toString()));
    await until('it watches', () => server.api.openWatchCount > 0);
    const objects = server.api.objects;
    const map = (name: string, labels: Record<string, string>): object => ({ name, labels });
    objects.create({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { ...map('seen', { watched: 'yes' }) },
    });
    objects.create({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { ...map('unseen', {}) } });
    await until('it saw one', () => seen === 'configmap/seen\n');
    watching.kill();
    await watching;
  });

  it('uses kinds that are declared as data', async () => {
    await kubectl(
      'apply -f -',
      `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, description: How big it is.}}}
`,
    );
    const widget = 'apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 3}';
    expect(await kubectl('apply -f -', widget)).toBe('widget.example.com/w created');
    expect(await kubectl('apply -f -', widget.replace('3', '4'))).toBe(
      'widget.example.com/w configured',
    );
    expect(await kubectl('get wd')).toMatch(/NAME +SIZE +AGE\nw +4 +\d+s/);
    expect(await kubectl('explain widget.spec.size')).toMatch(/How big it is/);
    expect(await kubectl('delete wd --all')).toBe('widget.example.com "w" deleted');
  });

  it('finds out what there is', async () => {
    const [resources, service, versions] = await Promise.all(
      ['api-resources', 'explain service.spec.ports', 'version'].map((args) => kubectl(args)),
    );
    expect(resources).toMatch(
      /networkpolicies +netpol +networking.k8s.io\/v1 +true +NetworkPolicy/,
    );
    expect(service).toMatch(/nodePort\s+<integer>/);
    expect(versions).toMatch(/Server Version: v1\./);
  });

  it('makes Namespaces and what is in them, and deletes both', async () => {
    await kubectl('create namespace team');
    await kubectl('create -n team service clusterip s --tcp=80:8080');
    await kubectl('run -n team p --image=nginx --port=80');
    expect(await kubectl('get all -A -o name')).toMatch(/pod\/p\n[^]*service\/s/);
    expect(await kubectl('delete pod p -n team')).toMatch(/pod "p" deleted/);
    expect(await kubectl('delete svc --all -n team')).toMatch(/service "s" deleted/);
    expect(await kubectl('delete namespace team')).toBe('namespace "team" deleted');
    const none = await start('get namespace team');
    expect(none.stderr).toBe('Error from server (NotFound): namespaces "team" not found');
  });

  it('is told what is wrong', async () => {
    const bad = await start('apply -f -', web.replace('UDP', 'udp'));
    expect(bad.stderr).toMatch(
      /The Service "web" is invalid: spec.ports\[1\].protocol: Unsupported value: "udp"/,
    );
    const twice = await start('create namespace default');
    expect(twice.stderr).toMatch(/AlreadyExists.*namespaces "default" already exists/);
    const stranger = await start('get pods --token=wrong');
    expect(stranger.stderr).toMatch(/must be logged in|Unauthorized/);
  });
});
