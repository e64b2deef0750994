/** Manifests of deploy/, and their Pod's container as far as a program can tell. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { parseAllDocuments } from 'yaml';
import { startEmbeddedApi, type EmbeddedApi } from '#pkg/embedded-api/embedded-api.ts';
import type { PolicyRule } from '#pkg/embedded-api/http/authentication.ts';
import { createAuthority } from '#pkg/kube/testing/certificates.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { apiPort, boundSocketIn } from './bound-socket.ts';

/** The first object of this kind in a file below deploy/. */
export async function manifest<T>(path: string, kind: string): Promise<T> {
  const text = await readFile(new URL(`../../deploy/${path}`, import.meta.url), 'utf8');
  const documents = parseAllDocuments(text);
  const objects = ('empty' in documents ? [] : documents).map((d) => d.toJS() as { kind: string });
  return objects.find((object) => object.kind === kind) as T;
}

/** What of a DaemonSet a program can tell. */
export interface DaemonSet {
  readonly spec: { readonly template: { readonly spec: PodSpec } };
}

export interface PodSpec {
  readonly containers: readonly [
    {
      readonly command: readonly string[];
      readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[];
      readonly livenessProbe?: Probe;
      readonly readinessProbe?: Probe;
    },
  ];
  readonly volumes: readonly Volume[];
}

interface Probe {
  readonly httpGet: { readonly host: string; readonly port: number; readonly path: string };
}

interface Volume {
  readonly name: string;
  readonly configMap?: { readonly name: string };
  readonly hostPath?: { readonly path: string; readonly type?: string };
}

/** An API server on the node that knows one ServiceAccount, with these rights. */
export async function startApiFor(
  node: ScratchNetns,
  account: { readonly name: string; readonly rules: readonly PolicyRule[] },
): Promise<{ readonly api: EmbeddedApi; readonly ca: string }> {
  const authority = createAuthority();
  if (typeof authority === 'string') throw new Error(authority);
  const sys = await openSys();
  const user = `system:serviceaccount:kube-system:${account.name}`;
  const api = await startEmbeddedApi({
    listen: [{ fd: boundSocketIn(sys, node) }],
    tls: authority.issue('127.0.0.1'),
    serviceCIDRs: ['10.96.0.0/12'],
    tokens: [{ token: 'the-token', user, rules: account.rules }],
  });
  return { api, ca: authority.ca };
}

export interface Container {
  /** Everything it has logged. */
  readonly log: () => string;
  readonly child: ReturnType<typeof spawn>;
}

/**
 * Starts a DaemonSet's container as the kubelet lays it out, at the very paths of the manifests: the
 * ConfigMap and the ServiceAccount's files, and `<dir>/host/…` for the host's paths. Of the image,
 * `bin` is /usr/local/bin; the rest is this machine's. /opt, /var/lib and /run are empty besides.
 */
export async function startContainer(
  node: ScratchNetns,
  pod: PodSpec,
  at: {
    readonly dir: string;
    readonly bin: string;
    readonly ca: string;
    readonly data: Readonly<Record<string, string>>;
    readonly nodeName: string;
  },
): Promise<Container> {
  const { bin, ca, data, dir, nodeName } = at;
  const [{ command, volumeMounts }] = pod.containers;
  const files = { ...prefixed('config', data), 'account/ca.crt': ca, 'account/token': 'the-token' };
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(dir, path)), { recursive: true });
    await writeFile(join(dir, path), text);
  }
  const mounts = volumeMounts.flatMap(({ name, mountPath }) => {
    const volume = pod.volumes.find((other) => other.name === name);
    if (volume?.hostPath?.path === '/lib/modules') return [];
    const source = volume?.hostPath === undefined ? 'config' : `host${volume.hostPath.path}`;
    return volume?.hostPath?.type === 'FileOrCreate'
      ? [`touch ${mountPath}`]
      : [`mkdir -p "$0/${source}" ${mountPath}`, `mount --bind "$0/${source}" ${mountPath}`];
  });
  const script = `set -e
mount --make-rprivate /
mkdir -p "$0/tmp"
mount -t tmpfs tmpfs "$0/tmp"
mkdir "$0/tmp/new" "$0/tmp/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$0/tmp/new,workdir=$0/tmp/work" overlay /etc
for folder in /opt /var/lib /run; do mount -t tmpfs tmpfs $folder; done
mkdir -p /run/secrets/kubernetes.io/serviceaccount
mount --bind "$0/account" /run/secrets/kubernetes.io/serviceaccount
${mounts.join('\n')}
mount --bind ${bin} /usr/local/bin
exec "$@"`;
  const argv = command.map((word) => word.replace('$(NODE_NAME)', nodeName));
  const words = ['netns', 'exec', node.name, 'unshare', '-m', 'sh', '-c', script, dir, ...argv];
  const env = {
    NODE_NAME: nodeName,
    KUBERNETES_SERVICE_HOST: '127.0.0.1',
    KUBERNETES_SERVICE_PORT: String(apiPort),
  };
  const child = spawn(words, env);
  let log = '';
  child.all.on('data', (bytes: Buffer) => (log += bytes.toString()));
  return { log: () => log, child };
}

function spawn(words: readonly string[], env: Readonly<Record<string, string>>) {
  return execa('ip', words, { reject: false, stdin: 'ignore', all: true, env });
}

function prefixed(
  folder: string,
  files: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(files).map(([name, text]) => [`${folder}/${name}`, text]),
  );
}

/** What a URL answers to a program on the node: "200 ok". */
export async function ask(node: ScratchNetns, url: string): Promise<string> {
  const script = `const a = await fetch(process.argv[1]); console.log(a.status, await a.text())`;
  const args = ['--input-type=module', '-e', script, url];
  return (await node.exec(process.execPath, args)).stdout;
}
