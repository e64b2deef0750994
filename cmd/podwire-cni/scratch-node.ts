/**
 * A node for tests: a namespace of its own, directories of its own, and the built executable under
 * all its names, called only as a container runtime calls it.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { giveInput } from '#cmd/scratch/give-input.ts';
import { patience } from '#hack/vm/patience.ts';
import { systemClock } from '#pkg/clock/clock.ts';
import { probe } from './scratch-prober.ts';
import { pluginNames } from '#plugins/plugin-names.ts';
import { createScratchNetns, createScratchNetnses, type ScratchNetns } from '#pkg/netns/scratch.ts';

const root = join(import.meta.dirname, '../..');
const executable = join(root, 'dist/podwire-cni');

/** The reference plugins, when the machine has them. */
export const goPluginDir = '/usr/lib/cni';

export interface CniCall {
  readonly command?: string;
  readonly id?: string;
  readonly ifName?: string;
  /** A namespace's path; "" for none. */
  readonly netns?: string;
  readonly config: object;
  readonly args?: string;
  /** More of the runtime's environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** A program to run in place of ours: Go's. */
  readonly program?: string;
}

/** What a plugin printed: a result has the first fields, an error the last. */
export interface CniDocument {
  readonly interfaces: readonly { name: string; mac: string; mtu: number; sandbox?: string }[];
  readonly ips: readonly { address: string; gateway: string; interface: number }[];
  readonly routes: readonly { dst: string; gw?: string }[];
  readonly dns: object;
  readonly code: number;
  readonly msg: string;
}

export interface CniOutcome {
  readonly exitCode: number | null;
  readonly stderr: string;
  /** The document on standard output; in truth undefined when there was none. */
  readonly json: CniDocument;
}

/** A link as `ip -d -j link` shows it. */
export interface KernelLink {
  readonly address: string;
  readonly mtu: number;
  readonly flags: readonly string[];
  readonly linkinfo: { readonly info_slave_data: object };
}

export interface ScratchNode extends AsyncDisposable {
  readonly netns: ScratchNetns;
  /** Where the executable is, under each of its names. */
  readonly binDir: string;
  readonly dataDir: string;
  readonly nodeFile: string;
  /** Of `type: podwire`. */
  readonly stateDir: string;
  /** A namespace "made by the runtime". */
  pod(): Promise<ScratchNetns>;
  /** Calls a plugin by its name, in the node's namespace. */
  cni(type: string, call: CniCall): Promise<CniOutcome>;
  /** Names of lease files in every network. */
  leases(): string[];
  /** Everything in the kernel and on disk an ADD could leave: links, addresses, routes, leases. */
  snapshot(pods: readonly ScratchNetns[]): Promise<object>;
}

/** Builds the executable when a source is newer. Call once, before anything else. */
export function buildExecutable(): void {
  execFileSync(process.execPath, [join(root, 'hack/build-cni.ts'), '--if-stale'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}

export async function createScratchNode(): Promise<ScratchNode> {
  const directory = mkdtempSync(join(tmpdir(), 'podwire-cni-'));
  const binDir = join(directory, 'bin');
  const dataDir = join(directory, 'networks');
  const nodeFile = join(directory, 'node.json');
  mkdirSync(binDir);
  mkdirSync(dataDir);
  for (const name of pluginNames) {
    symlinkSync(executable, join(binDir, name));
  }
  const netns = await createNetns('pw-cni-node');
  // Nobody else has the host's addresses, and to look for others takes a second or two each time.
  await netns.exec('sysctl', ['-qw', 'net.ipv6.conf.default.accept_dad=0']);
  const pods: ScratchNetns[] = [];
  const leases = (): string[] => listLeases(dataDir);
  return {
    netns,
    binDir,
    dataDir,
    nodeFile,
    stateDir: join(directory, 'state'),
    leases,
    async pod() {
      const pod = await createNetns('pw-cni-pod');
      pods.push(pod);
      return pod;
    },
    cni: (type, call) =>
      runPlugin(netns, { ...call, program: call.program ?? join(binDir, type), binDir }),
    async snapshot(of) {
      const kernel = await Promise.all([netns, ...of].map(kernelState));
      return { kernel, leases: leases(), index: listIndex(dataDir) };
    },
    async [Symbol.asyncDispose]() {
      for (const pod of [...pods, netns]) await pod[Symbol.asyncDispose]();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** With the machine's own /sys in the VM: to mount another for each program takes that many seconds. */
async function createNetns(prefix: string): Promise<ScratchNetns> {
  if (process.env['PODWIRE_VM'] === undefined) return createScratchNetns(prefix);
  const [netns] = await createScratchNetnses([prefix]);
  await netns.ip('link set lo up');
  return netns;
}

/** Writes what the node daemon would. */
export function writeNodeFacts(
  node: ScratchNode,
  podCIDRs: readonly string[],
  mtuBytes = 1450,
): void {
  writeFileSync(node.nodeFile, JSON.stringify({ podCIDRs, mtuBytes, backend: 'vxlan' }));
}

/**
 * Whether packets get from `pod` to the address and back: a closed port there says so at once.
 *
 * @param seconds how long to wait for that; a test that expects none need not wait long
 */
export async function reaches(pod: ScratchNetns, address: string, seconds = 20): Promise<boolean> {
  const timeoutMs = patience(seconds * 1000);
  const outcome = await probe({ netns: pod.path, host: address, port: 9, timeoutMs });
  return outcome === 'ECONNREFUSED';
}

export async function showLink(netns: ScratchNetns, name: string): Promise<KernelLink> {
  const [link] = JSON.parse(await netns.ip(`-d -j link show ${name}`)) as [KernelLink];
  return link;
}

/** Resolves when the condition holds; the limit ends what hangs, on a machine under load, too. */
export async function eventually(condition: () => Promise<boolean>): Promise<void> {
  const deadline = systemClock.now() + patience(60_000);
  while (!(await condition())) {
    if (systemClock.now() > deadline) throw new Error('The condition did not come to hold');
    await systemClock.sleep(20);
  }
}

async function runPlugin(
  netns: ScratchNetns,
  call: CniCall & { readonly program: string; readonly binDir: string },
): Promise<CniOutcome> {
  const { command = 'ADD', id = 'pod-1', ifName = 'eth0', netns: path = '', args = '' } = call;
  const child = spawn('nsenter', [`--net=${netns.path}`, call.program], {
    env: {
      PATH: process.env['PATH'],
      CNI_COMMAND: command,
      CNI_CONTAINERID: id,
      CNI_IFNAME: ifName,
      CNI_NETNS: path,
      CNI_ARGS: args,
      CNI_PATH: `${call.binDir}:${goPluginDir}`,
      // Whatever firewalld this machine has is none of this node's.
      DBUS_SYSTEM_BUS_ADDRESS: 'unix:path=/nonexistent',
      ...call.env,
    },
  });
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => (output.stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (output.stderr += chunk.toString()));
  giveInput(child.stdin, JSON.stringify(call.config));
  const [exitCode] = (await once(child, 'close')) as [number | null];
  const json: unknown = output.stdout === '' ? undefined : JSON.parse(output.stdout);
  return { exitCode, stderr: output.stderr, json: json as CniDocument };
}

/** Links, addresses and routes, without what moves by itself. */
async function kernelState(netns: ScratchNetns): Promise<object> {
  await eventually(async () => !(await netns.ip('-j addr')).includes('"tentative":true'));
  const parts = ['-d -j link', '-j addr', '-j route', '-j -6 route'].map(async (words) => {
    const parsed: unknown = JSON.parse((await netns.ip(words)) || '[]');
    return JSON.stringify(parsed, (key, value: unknown) =>
      /timer|_lft|^topology_change/.test(key) ? undefined : value,
    );
  });
  return Promise.all(parts);
}

function listLeases(dataDir: string): string[] {
  return readdirSync(dataDir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /^[0-9a-f]+[.:]/.test(entry.name))
    .filter((entry) => !entry.parentPath.includes('/.podwire-resting/'))
    .map((entry) => entry.name)
    .toSorted();
}

function listIndex(dataDir: string): string[] {
  return readdirSync(dataDir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isSymbolicLink())
    .map((entry) => entry.name)
    .toSorted();
}
