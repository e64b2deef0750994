import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { inClusterConfig } from './in-cluster.ts';
import { loadKubeconfig, parseKubeconfig } from './kubeconfig.ts';

const pem = '-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n';
const pem64 = Buffer.from(pem).toString('base64');

function kubeconfig(cluster: string, user: string, more = ''): string {
  return `
apiVersion: v1
kind: Config
current-context: here
preferences: {}
contexts:
- name: here
  context: {cluster: c, user: u, namespace: kube-system}
- name: there
  context: {cluster: d, user: u}
clusters:
- name: c
  cluster: {${cluster}}
- name: d
  cluster: {server: "http://127.0.0.1:8080/"}
users:
- name: u
  user: {${user}}
${more}`;
}

const at = '/etc/podwire/kubeconfig';

describe('a kubeconfig', () => {
  test('gives server, authority and client certificate of its current context', () => {
    const text = kubeconfig(
      `server: "https://10.0.0.1:6443/prefix/", certificate-authority-data: ${pem64}, tls-server-name: kubernetes`,
      `client-certificate-data: ${pem64}, client-key: keys/client.key`,
    );
    expect(parseKubeconfig(text, at)).toEqual({
      server: 'https://10.0.0.1:6443/prefix',
      serverName: 'kubernetes',
      insecure: false,
      ca: { kind: 'text', text: pem },
      user: {
        certificate: { kind: 'text', text: pem },
        key: { kind: 'file', path: '/etc/podwire/keys/client.key' },
      },
      namespace: 'kube-system',
    });
  });

  test('gives tokens, token files, and skips verification when told', () => {
    const text = kubeconfig(
      'server: "https://host", insecure-skip-tls-verify: true',
      'token: secret, tokenFile: token',
    );
    expect(parseKubeconfig(text, at)).toMatchObject({
      insecure: true,
      user: { token: 'secret', tokenFile: '/etc/podwire/token' },
    });
  });

  test('gives the context and the server that the command line chose', () => {
    const text = kubeconfig('server: "https://host"', 'token: t');
    expect(parseKubeconfig(text, at, { context: 'there' })).toMatchObject({
      server: 'http://127.0.0.1:8080',
      namespace: 'default',
      user: { token: 't' },
    });
    expect(parseKubeconfig(text, at, { server: 'https://192.0.2.1:6443' }).server).toBe(
      'https://192.0.2.1:6443',
    );
  });

  test('gives a credential plugin', () => {
    const text = kubeconfig(
      'server: "https://host"',
      'exec: {apiVersion: client.authentication.k8s.io/v1, command: ./get-token, args: [-v], env: [{name: A, value: b}], interactiveMode: IfAvailable, provideClusterInfo: true}',
    );
    expect(parseKubeconfig(text, at).user.exec).toEqual({
      apiVersion: 'client.authentication.k8s.io/v1',
      command: '/etc/podwire/get-token',
      args: ['-v'],
      env: { A: 'b' },
      installHint: '',
      provideClusterInfo: true,
    });
  });

  const https = 'server: "https://host"';
  test.each([
    ['server: "host:6443"', '', 'clusters[name=c].cluster.server must be a URL like'],
    ['server: "https://h/?a=b"', '', 'clusters[name=c].cluster.server must not have a query'],
    ['server: 5', '', 'clusters[0].cluster.server is wrong'],
    [
      `${https}, certificate-authority-data: "####"`,
      '',
      'clusters[name=c].cluster.certificate-authority-data must be PEM in base64',
    ],
    [`${https}, proxy-url: "http://p"`, '', 'proxy-url is not supported'],
    [https, 'client-key: k', 'users[name=u].user must have both client-certificate and client-key'],
    [https, 'username: me', 'users[name=u].user.username is not supported'],
    [https, 'as: me', 'users[name=u].user.as is not supported'],
    [https, 'auth-provider: {name: gcp}', 'users[name=u].user.auth-provider is not supported'],
    [https, 'token: [a]', 'users[0].user.token is wrong'],
    [
      https,
      'exec: {apiVersion: client.authentication.k8s.io/v1, command: c, interactiveMode: Always}',
      'users[name=u].user.exec.interactiveMode must not be Always',
    ],
    [https, 'exec: {apiVersion: v9, command: c}', 'users[0].user.exec.apiVersion is wrong'],
  ])('with {%s} and {%s} is refused, naming file and field', (cluster, user, message) => {
    const read = (): unknown => parseKubeconfig(kubeconfig(cluster, user), at);
    expect(read).toThrow(message);
    expect(read).toThrow(at);
  });

  test('that lacks what it names says what it has', () => {
    const text = kubeconfig(https, 'token: t');
    expect(() => parseKubeconfig(text, at, { context: 'gone' })).toThrow(
      'contexts must have an entry named "gone"; it has "here", "there"',
    );
    expect(() => parseKubeconfig('current-context: x', at)).toThrow('it has none');
    expect(() => parseKubeconfig('apiVersion: v1', at)).toThrow('current-context must name');
    expect(() => parseKubeconfig('a: [', at)).toThrow('not YAML');
    const broken = (): unknown => parseKubeconfig('a: b\ntoken: "SECRET" x\n', at);
    expect(broken).toThrow(`Cannot read kubeconfig ${at}: not YAML at line 2: UNEXPECTED_TOKEN`);
    expect(broken).toThrow(/^(?!.*SECRET)/s);
    expect(() => parseKubeconfig('- list', at)).toThrow(/\(the file\) is wrong/);
    expect(() => parseKubeconfig(text, at, { server: 'nowhere' })).toThrow(
      'Cannot use server "nowhere": it must be a URL',
    );
  });

  test('that is not there is an error that names it', async () => {
    await expect(loadKubeconfig('/nonexistent/kubeconfig')).rejects.toThrow(
      'Cannot read kubeconfig /nonexistent/kubeconfig',
    );
  });
});

describe('in a cluster', () => {
  let dir = '';
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'podwire-sa-'));
    await writeFile(join(dir, 'token'), 'abc\n');
  });
  afterAll(() => rm(dir, { recursive: true }));

  test('the configuration names the files of the ServiceAccount', async () => {
    expect(await inClusterConfig({ host: 'fd00::1', port: '443' }, dir)).toEqual({
      server: 'https://[fd00::1]:443',
      serverName: undefined,
      insecure: false,
      ca: { kind: 'file', path: join(dir, 'ca.crt') },
      user: { tokenFile: join(dir, 'token') },
      namespace: 'default',
    });
    await writeFile(join(dir, 'namespace'), 'kube-system\n');
    const config = await inClusterConfig({ host: '10.96.0.1', port: '443' }, dir);
    expect(config).toMatchObject({ server: 'https://10.96.0.1:443', namespace: 'kube-system' });
  });

  test('what is missing is said', async () => {
    const nothing = { host: undefined, port: undefined };
    await expect(inClusterConfig(nothing, dir)).rejects.toThrow('KUBERNETES_SERVICE_HOST');
    await expect(inClusterConfig({ host: 'h', port: 'x' }, dir)).rejects.toThrow('it is "x"');
    await expect(inClusterConfig({ host: 'h', port: '1' }, '/nonexistent')).rejects.toThrow(
      '/nonexistent/token is not readable',
    );
  });
});
