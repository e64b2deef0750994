/** The contestants, each on a scratch node of its own. */
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createLauncherDir, startCniDaemon } from '#cmd/podwire-node/scratch/cni-resident.ts';
import { createScratchNetns } from '#pkg/netns/scratch.ts';
import { bridgeConfig, type Contestant, type Plugin } from './contestant.ts';

const root = join(import.meta.dirname, '../../..');
const standalone = join(root, 'dist/podwire-cni');

/** Debian's package containernetworking-plugins. */
export const goDir = '/usr/lib/cni';

/** What a chain of one make is made of, with all its files below `dir`. */
type ChainOf = (binDir: string, dir: string) => readonly Plugin[];

export interface NodeContext {
  readonly dir: string;
  /** As a bundle, which is how it is installed. */
  readonly daemonProgram: string;
  readonly opened: AsyncDisposableStack;
}

export async function goNode(
  context: NodeContext,
  name: string,
  chain: ChainOf,
): Promise<Contestant> {
  const node = context.opened.use(await createScratchNetns('pw-bench-node'));
  return { name, node, plugins: chain(goDir, newDir(context, name)) };
}

/** The executable alone: every call starts it. */
export async function standaloneNode(
  context: NodeContext,
  name: string,
  chain: ChainOf,
): Promise<Contestant> {
  const dir = newDir(context, name);
  const node = context.opened.use(await createScratchNetns('pw-bench-node'));
  for (const plugin of ['bridge', 'podwire']) symlinkSync(standalone, join(dir, plugin));
  return { name, node, plugins: chain(dir, dir) };
}

/** The launcher, and a daemon; undefined where the launcher cannot be compiled. */
export async function residentNode(
  context: NodeContext,
  name: string,
  chain: ChainOf,
): Promise<Contestant | undefined> {
  const launchers = await createLauncherDir(['bridge', 'podwire'], 1);
  if (launchers === undefined) return undefined;
  context.opened.use(launchers);
  launchers.addStandalone();
  const node = context.opened.use(await createScratchNetns('pw-bench-node'));
  const daemon = context.opened.use(
    await startCniDaemon(node, launchers.runDir, context.daemonProgram),
  );
  const pid = daemon.process.pid ?? 0;
  const plugins = chain(launchers.path, newDir(context, name));
  return { name, node, plugins, daemonCpuMs: () => threadsCpuMs(pid) };
}

/** A bridge with addresses: what all makes can do. */
export const bridgeChain: ChainOf = (binDir, dir) => [
  { file: join(binDir, 'bridge'), config: bridgeConfig(dir) },
];

/** What `type: podwire` does in one run: host port, bandwidth, masquerade, anti-spoofing. */
export const podwireChain: ChainOf = (binDir, dir) => {
  const nodeFile = join(dir, 'node.json');
  const facts = { podCIDRs: ['10.244.0.0/20'], mtuBytes: 1450, backend: 'vxlan' };
  writeFileSync(nodeFile, JSON.stringify(facts));
  const config = {
    ...bridgeConfig(dir),
    type: 'podwire',
    nodeFile,
    stateDir: join(dir, 'state'),
    runtimeConfig: { portMappings, bandwidth },
  };
  return [{ file: join(binDir, 'podwire'), config }];
};

/** The same of the reference plugins: four of them, which run iptables. */
export const goChain: ChainOf = (binDir, dir) => {
  const network = { cniVersion: '1.0.0', name: 'bench' };
  return [
    { file: join(binDir, 'bridge'), config: bridgeConfig(dir, { ipMasq: true }) },
    {
      file: join(binDir, 'portmap'),
      config: { ...network, type: 'portmap', snat: true, runtimeConfig: { portMappings } },
    },
    {
      file: join(binDir, 'bandwidth'),
      config: { ...network, type: 'bandwidth', runtimeConfig: { bandwidth } },
    },
    {
      file: join(binDir, 'firewall'),
      config: { ...network, type: 'firewall', backend: 'iptables' },
    },
  ];
};

const portMappings = [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }];
const bandwidth = {
  ingressRate: 100_000_000,
  ingressBurst: 10_000_000,
  egressRate: 100_000_000,
  egressBurst: 10_000_000,
};

/** Puts leases of other pods where the contestant keeps its own. */
export function writeLeases(contestant: Contestant, count: number): void {
  const ipam = contestant.plugins[0]?.config['ipam'] as { readonly dataDir: string };
  const directory = join(ipam.dataDir, 'bench');
  mkdirSync(directory, { recursive: true });
  for (let i = 0; i < count; i++) {
    const address = `10.244.${4 + (i >> 8)}.${i & 255}`;
    writeFileSync(join(directory, address), `other-${i}\r\neth0`);
  }
}

function newDir({ dir }: NodeContext, name: string): string {
  const path = join(dir, name.replaceAll(/\W+/g, '-'));
  mkdirSync(path, { recursive: true });
  return path;
}

/** Processor time of all threads: a process's own counter moves in steps of 10 ms. */
function threadsCpuMs(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  const times = readdirSync(tasks).map((thread) =>
    Number(readFileSync(`${tasks}/${thread}/schedstat`, 'utf8').split(' ')[0]),
  );
  return times.reduce((sum, ns) => sum + ns, 0) / 1e6;
}
