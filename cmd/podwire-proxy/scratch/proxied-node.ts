/** The real daemon on the node of a small cluster, with an API server at the node's 127.0.0.1. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { apiPort, boundSocketIn } from '#cmd/scratch/bound-socket.ts';
import { startEmbeddedApi, type EmbeddedApi } from '#pkg/embedded-api/embedded-api.ts';
import { kubeconfigFor } from '#pkg/embedded-api/kubeconfig-for.ts';
import { createSmallCluster, type SmallCluster } from '#pkg/proxy/testdata/small-cluster.ts';
import { openSys } from '#pkg/sys/open-sys.ts';

export interface ProxiedNode extends AsyncDisposable {
  readonly network: SmallCluster;
  readonly api: EmbeddedApi;
  /** The configuration file of the daemon, and the kubeconfig it names. */
  readonly configPath: string;
  readonly kubeconfig: string;
  /** Starts the daemon with a configuration that compares rules each 30 s. */
  startDaemon(flags?: readonly string[]): Daemon;
  /** Status and body of a URL, asked from the node. */
  ask(url: string): Promise<{ readonly status: number; readonly body: string }>;
  /** What iptables-save prints for a family on the node. */
  save(family: 'ip' | 'ip6'): Promise<string>;
}

export interface Daemon {
  readonly pid: number;
  /** Everything it has logged. */
  readonly log: () => string;
  /** Resolves when it is gone, to its exit code; undefined when a signal ended it. */
  readonly exited: Promise<number | undefined>;
  kill(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | undefined>;
}

export const nodeName = 'node-one';
export const program = programPath('podwire-proxy');

/**
 * What to start as a program: its source; in the virtual machine the build, since Node takes minutes
 * there for hundreds of files.
 */
export function programPath(name: 'podwire' | 'podwire-proxy'): string {
  const isEmulated = process.env['PODWIRE_VM'] !== undefined;
  const path = isEmulated ? `../../../dist/${name}` : `../../${name}/main.ts`;
  return new URL(path, import.meta.url).pathname;
}

/** @param program what to start as the daemon: its source, or a build */
export async function createProxiedNode(daemon = program): Promise<ProxiedNode> {
  await using opened = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'podwire-proxy-'));
  opened.defer(() => rm(dir, { recursive: true, force: true }));
  const network = opened.use(await createSmallCluster());
  const sys = await openSys();
  const fd = boundSocketIn(sys, network.node);
  const api = opened.use(await startEmbeddedApi({ listen: [{ fd }] }));
  const kubeconfig = join(dir, 'kubeconfig');
  await writeFile(kubeconfig, kubeconfigFor({ server: `http://127.0.0.1:${apiPort}` }));
  const config = join(dir, 'config.conf');
  await writeFile(config, configFile(kubeconfig));
  api.objects.create({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: nodeName, labels: { 'topology.kubernetes.io/zone': 'z1' } },
  });
  const daemons = new Set<Daemon>();
  opened.defer(async () => {
    await Promise.all([...daemons].map((started) => started.kill('SIGKILL')));
  });
  const running = opened.move();
  return {
    network,
    api,
    configPath: config,
    kubeconfig,
    startDaemon: (flags = ['--config', config, '--hostname-override', nodeName]) => {
      const started = start(network.node.name, [daemon, ...flags]);
      daemons.add(started);
      return started;
    },
    ask: async (url) => {
      const script = `const a = await fetch(process.argv[1]); process.stdout.write(JSON.stringify({status: a.status, body: await a.text()}))`;
      const args = ['--input-type=module', '-e', script, url];
      const { stdout } = await network.node.exec(process.execPath, args);
      return JSON.parse(stdout) as { status: number; body: string };
    },
    save: async (family) => {
      const tool = family === 'ip' ? 'iptables-nft-save' : 'ip6tables-nft-save';
      return (await network.node.exec(tool, [])).stdout.replaceAll(/^#.*\n?/gm, '');
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

function configFile(kubeconfig: string): string {
  return `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: { kubeconfig: ${kubeconfig} }
clusterCIDR: 10.1.0.0/16,fd00:10::/32
iptables: { syncPeriod: 30s, minSyncPeriod: 50ms }
logging: { verbosity: 2 }
`;
}

/** `ip netns exec` becomes the program: a signal sent to it reaches the daemon. */
function start(netns: string, args: readonly string[]): Daemon {
  const command = ['netns', 'exec', netns, process.execPath, ...args];
  const child = execa('ip', command, { reject: false, stdin: 'ignore', all: true });
  let log = '';
  child.all.on('data', (bytes: Buffer) => (log += bytes.toString()));
  const exited = child.then(({ exitCode }) => exitCode);
  return {
    pid: child.pid ?? 0,
    log: () => log,
    exited,
    kill: (signal) => {
      child.kill(signal);
      return exited;
    },
  };
}
