/**
 * A node for container runtimes under test: network, mount and process namespaces of its own, so
 * that a runtime finds its usual directories (/run, /var/lib) empty, and nothing of it outlives the
 * test. Its plugins are the built executable under all its names.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { systemClock } from '#pkg/clock/clock.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { runCommand, type CommandOptions, type CommandOutput } from '#pkg/exec/run.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { pluginNames } from '#plugins/plugin-names.ts';

const executable = join(import.meta.dirname, '../../dist/podwire-cni');

export interface RuntimeNode extends AsyncDisposable {
  readonly netns: ScratchNetns;
  /** Seen alike from inside and outside; removed at the end. */
  readonly directory: string;
  /** Network configurations. */
  readonly confDir: string;
  /** Plugins: symbolic links to the built executable. */
  readonly binDir: string;
  /** For the runtime's control groups, which no namespace hides: "/podwire-…". */
  readonly cgroupParent: string;
  /** Runs a program inside. */
  exec(
    file: string,
    args: readonly string[],
    options?: Partial<CommandOptions>,
  ): Promise<CommandOutput>;
  /** Starts a program inside; it ends with the node at the latest. */
  start(file: string, args: readonly string[]): Promise<Started>;
  /** Runs a program in a pod's network namespace, by the path it has inside. */
  inPod(netns: string, file: string, args: readonly string[]): Promise<CommandOutput>;
  /** Writes a network configuration list in place of all there are. */
  configure(network: object): void;
  /** All that pods leave in the kernel and on disk until they are removed. */
  traces(): Promise<Traces>;
}

/** A program that runs inside. */
export interface Started {
  /** The end of what it printed on standard error. */
  readonly log: () => string;
  readonly hasEnded: () => boolean;
  /** Sends the signal and waits for its end. */
  stop(signal: 'TERM' | 'KILL'): Promise<void>;
}

export interface Traces {
  readonly links: readonly string[];
  readonly leases: readonly string[];
  readonly results: readonly string[];
  readonly namespaces: readonly string[];
  readonly rules: readonly string[];
}

/** As for what runs in a namespace (pkg/netns/scratch.ts): disposing ends what hangs. */
const timeoutMs = 240_000;

export async function createRuntimeNode(): Promise<RuntimeNode> {
  await using stack = new AsyncDisposableStack();
  const netns = stack.use(await createScratchNetns('pw-runtime'));
  const directory = mkdtempSync(join(tmpdir(), 'podwire-runtime-'));
  stack.defer(() => rmSync(directory, { recursive: true, force: true, maxRetries: 20 }));
  const confDir = join(directory, 'net.d');
  const binDir = join(directory, 'bin');
  for (const folder of [confDir, binDir]) mkdirSync(folder);
  for (const name of pluginNames) symlinkSync(executable, join(binDir, name));
  const cgroupParent = `/podwire-${randomBytes(4).toString('hex')}`;
  stack.defer(() => removeCgroups(cgroupParent));
  const init = stack.use(await startInit(netns));
  const resources = stack.move();
  const exec: RuntimeNode['exec'] = (file, args, options = {}) =>
    runCommand('nsenter', [...init.enter, file, ...args], { timeoutMs, ...options });
  return {
    netns,
    directory,
    confDir,
    binDir,
    cgroupParent,
    exec,
    start: (file, args) => startInside(init.enter, [file, ...args], exec),
    inPod: (path, file, args) => exec('nsenter', [`--net=${path}`, file, ...args]),
    configure(network) {
      for (const file of readdirSync(confDir)) rmSync(join(confDir, file), { recursive: true });
      writeFileSync(join(confDir, '10-test.conflist'), JSON.stringify(network));
    },
    traces: () => readTraces(exec),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** Writes what the node daemon would, where `type: podwire` looks for it. */
export async function writeNodeFacts(
  node: RuntimeNode,
  podCIDRs: readonly string[],
): Promise<void> {
  const facts = JSON.stringify({ podCIDRs, mtuBytes: 1450, backend: 'vxlan' });
  const script = 'mkdir -p /run/podwire && cat > /run/podwire/node.json';
  await node.exec('sh', ['-c', script], { input: facts });
}

/** Whether packets get from the pod to the address and back: a closed port there says so at once. */
export async function reaches(node: RuntimeNode, pod: string, address: string): Promise<boolean> {
  const script = `timeout 20 bash -c 'echo > /dev/tcp/${address}/9' 2>&1; true`;
  const { stdout } = await node.inPod(pod, 'bash', ['-c', script]);
  return stdout.includes('Connection refused');
}

/** The first process of the node; the rest die with it. */
async function startInit(netns: ScratchNetns): Promise<AsyncDisposable & { enter: string[] }> {
  const script = [
    'mount -t proc proc /proc',
    'mount -t tmpfs tmpfs /run',
    'mount -t tmpfs tmpfs /var/lib',
    'mkdir /run/netns',
    'echo ready',
    // Takes in the processes whose parents ended.
    'while :; do sleep 1000 & wait $!; done',
  ].join(' && ');
  const namespaces = ['--mount', '--pid', '--fork', '--kill-child', '--propagation', 'slave'];
  const child = spawn(
    'nsenter',
    [`--net=${netns.path}`, 'unshare', ...namespaces, 'sh', '-c', script],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const ended = once(child, 'exit');
  const lines = createInterface({ input: child.stdout });
  const [line] = (await Promise.race([once(lines, 'line'), ended])) as [string | number];
  if (line !== 'ready') throw new Error(`Cannot start a node: its first process ended`);
  const of = `/proc/${child.pid}/ns`;
  return {
    enter: [`--mount=${of}/mnt`, `--net=${of}/net`, `--pid=${of}/pid_for_children`],
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/** nsenter passes no signal on, so the program tells its process ID, as the node counts them. */
async function startInside(
  enter: readonly string[],
  command: readonly string[],
  exec: RuntimeNode['exec'],
): Promise<Started> {
  const script = 'echo $$ >&3; exec "$@" 3>&-';
  const child = spawn('nsenter', [...enter, 'sh', '-c', script, 'sh', ...command], {
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
  });
  const ended = once(child, 'exit');
  let log = '';
  child.stderr?.on('data', (chunk: Buffer) => (log = (log + chunk.toString()).slice(-8_000)));
  const [pid] = (await once(child.stdio[3] as Readable, 'data')) as [Buffer];
  return {
    log: () => log,
    hasEnded: () => child.exitCode !== null || child.signalCode !== null,
    async stop(signal) {
      await exec('kill', [`-${signal}`, pid.toString().trim()]);
      await ended;
    },
  };
}

async function readTraces(exec: RuntimeNode['exec']): Promise<Traces> {
  const lines = async (script: string): Promise<string[]> => {
    const { stdout } = await exec('sh', ['-c', script]);
    return stdout.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  };
  const links = await lines("ip -o link | awk -F': ' '{print $2}'");
  const saves = 'iptables-save; ip6tables-save; iptables-legacy-save; ip6tables-legacy-save';
  const rules = await lines(`(${saves}) 2> /dev/null; nft list ruleset`);
  return {
    links: links.map((name) => name.replace(/@.*/, '')).toSorted(),
    leases: (
      await lines(
        'find /var/lib/cni/networks -name .podwire-resting -prune -o ' +
          '-type f -name "[0-9a-f]*[.:]*" -print 2> /dev/null; true',
      )
    ).toSorted(),
    results: await lines('ls /var/lib/cni/results 2> /dev/null; true'),
    namespaces: await lines('ls /run/netns'),
    // Counters move by themselves.
    rules: rules
      .map((rule) => rule.replace(/\[\d+:\d+\]|packets \d+ bytes \d+/g, '').trim())
      .toSorted(),
  };
}

/** Control groups of containers that were killed; the last of their processes may be ending. */
async function removeCgroups(parent: string): Promise<void> {
  const deadline = systemClock.now() + timeoutMs;
  const folders = globSync(`/sys/fs/cgroup/{,*/}${parent.slice(1)}{,/**/}`).filter(isCgroup);
  // The deepest first.
  for (const folder of folders.toSorted().toReversed()) {
    while (!tryRemoveCgroup(folder)) {
      if (systemClock.now() > deadline) throw new Error(`Cannot remove ${folder}: it is in use`);
      await systemClock.sleep(20);
    }
  }
}

function tryRemoveCgroup(folder: string): boolean {
  try {
    rmdirSync(folder);
    return true;
  } catch (error) {
    if (isErrno(error, 'EBUSY')) return false;
    throw error;
  }
}

function isCgroup(folder: string): boolean {
  try {
    readFileSync(join(folder, 'cgroup.procs'));
    return true;
  } catch {
    return false;
  }
}
