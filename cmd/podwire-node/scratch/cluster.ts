/** The three nodes with an API server each of them reaches at its own 127.0.0.1:6443. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { bundle } from '#hack/bundle.ts';
import { startEmbeddedApi, type EmbeddedApi } from '#pkg/embedded-api/embedded-api.ts';
import { kubeconfigFor } from '#pkg/embedded-api/kubeconfig-for.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { SOCK_CLOEXEC } from '#pkg/sys/constants.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import { createThreeNodes, type NodeName, type TestNode, type ThreeNodes } from './three-nodes.ts';

export interface TestCluster extends AsyncDisposable {
  readonly network: ThreeNodes;
  readonly api: EmbeddedApi;
  /** Holds a folder for each node, with its run and net.d folders. */
  readonly dir: string;
  /** Makes the Node object, with its podCIDRs and addresses. */
  register(node: TestNode): void;
  /** Starts the real daemon in the node's namespace with this configuration (YAML lines). */
  startDaemon(name: NodeName, config?: string): Promise<Daemon>;
}

export interface Daemon {
  /** Everything it has logged. */
  readonly log: () => string;
  /** Resolves when it is gone, to its exit code; undefined when a signal ended it. */
  kill(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | undefined>;
}

/** As the build makes it: beside the plugins that the daemon installs. */
const root = join(import.meta.dirname, '../../..');
const program = join(root, 'dist/podwire-node');

let built: Promise<void> | undefined;

/** Once a test file: as one file a daemon starts sooner. */
function buildDaemon(): Promise<void> {
  return (built ??= (async () => {
    const text = await readFile(join(root, 'package.json'), 'utf8');
    const { version } = JSON.parse(text) as { readonly version: string };
    await bundle('cmd/podwire-node/main.ts', program, version);
  })());
}

const port = 6443;

export async function createTestCluster(): Promise<TestCluster> {
  await buildDaemon();
  await using opened = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'podwire-node-'));
  opened.defer(() => rm(dir, { recursive: true, force: true }));
  const network = opened.use(await createThreeNodes());
  const sys = await openSys();
  const listen = Object.values(network.nodes).map(({ netns }) => ({
    fd: withNetns(sys, netns.path, () => boundSocket(sys), die),
  }));
  const api = opened.use(await startEmbeddedApi({ listen }));
  const kubeconfig = join(dir, 'kubeconfig');
  await writeFile(kubeconfig, kubeconfigFor({ server: `http://127.0.0.1:${port}` }));
  const daemons = new Set<ReturnType<typeof spawn>>();
  opened.defer(async () => {
    for (const daemon of daemons) daemon.kill('SIGKILL');
    await Promise.all(daemons);
  });
  const running = opened.move();
  return {
    network,
    api,
    dir,
    register: (node) => register(api, node),
    startDaemon: async (name, config = '') => {
      const own = join(dir, name);
      await mkdir(own, { recursive: true });
      const file = join(own, 'config.yaml');
      const folders =
        `runDir: ${own}/run\ncniConfDir: ${own}/net.d\n` +
        `cniDataDir: ${own}/data\nstateDir: ${own}/state\n`;
      await writeFile(file, `${folders}${config}`);
      const { netns } = network.nodes[name];
      const flags = ['--kubeconfig', kubeconfig, '--node-name', name, '--config', file];
      const child = spawn(netns.name, flags);
      daemons.add(child);
      let log = '';
      child.all.on('data', (bytes: Buffer) => (log += bytes.toString()));
      return {
        log: () => log,
        kill: async (signal) => {
          child.kill(signal);
          const { exitCode } = await child;
          daemons.delete(child);
          return exitCode;
        },
      };
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** `ip netns exec` becomes the program: a signal sent to it reaches the daemon. */
function spawn(netns: string, flags: readonly string[]) {
  const command = ['netns', 'exec', netns, process.execPath, program, ...flags];
  return execa('ip', command, { reject: false, stdin: 'ignore', all: true });
}

/** Bound to 127.0.0.1:6443 of the present namespace; the server listens on it later. */
function boundSocket(sys: Sys): number {
  const [AF_INET, SOCK_STREAM] = [2, 1];
  const fd = sys.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  // struct sockaddr_in: the family in host order, the port in network order.
  const address = Uint8Array.of(0, 0, port >> 8, port & 255, 127, 0, 0, 1, ...new Uint8Array(8));
  new Uint16Array(address.buffer, 0, 1)[0] = AF_INET;
  sys.bind(fd, address);
  return fd;
}

function die(error: Error): never {
  throw error;
}

function register(api: EmbeddedApi, { name, podCIDRs, internalIPs }: TestNode): void {
  const node = { apiVersion: 'v1', kind: 'Node' };
  api.objects.create({ ...node, metadata: { name }, spec: { podCIDRs: [...podCIDRs] } });
  setInternalIPs(api, name, internalIPs);
}

export function setInternalIPs(api: EmbeddedApi, name: string, ips: readonly string[]): void {
  const addresses = ips.map((address) => ({ type: 'InternalIP', address }));
  const patch = { status: { addresses } };
  const ref = { apiVersion: 'v1', kind: 'Node', name };
  api.objects.patch(ref, 'merge', patch, { subresource: 'status' });
}
