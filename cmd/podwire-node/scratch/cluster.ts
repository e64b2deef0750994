/** The three nodes with an API server each of them reaches at its own 127.0.0.1:6443. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { apiPort, boundSocketIn } from '#cmd/scratch/bound-socket.ts';
import { startEmbeddedApi, type EmbeddedApi } from '#pkg/embedded-api/embedded-api.ts';
import { kubeconfigFor } from '#pkg/embedded-api/kubeconfig-for.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { buildDaemon, createDaemons, type Daemon } from './daemon.ts';
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

export async function createTestCluster(): Promise<TestCluster> {
  await buildDaemon();
  await using opened = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'podwire-node-'));
  opened.defer(() => rm(dir, { recursive: true, force: true }));
  const network = opened.use(await createThreeNodes());
  const sys = await openSys();
  const listen = Object.values(network.nodes).map(({ netns }) => ({
    fd: boundSocketIn(sys, netns),
  }));
  const api = opened.use(await startEmbeddedApi({ listen }));
  const kubeconfig = join(dir, 'kubeconfig');
  await writeFile(kubeconfig, kubeconfigFor({ server: `http://127.0.0.1:${apiPort}` }));
  const daemons = opened.use(createDaemons(dir));
  const running = opened.move();
  return {
    network,
    api,
    dir,
    register: (node) => register(api, node),
    startDaemon: (name, config = '') =>
      daemons.start(network.nodes[name], ['--kubeconfig', kubeconfig], config),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
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
