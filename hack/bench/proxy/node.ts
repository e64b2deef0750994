/** A node for one contestant: namespaces, a socket for the API server, and the daemon's process. */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { once } from 'node:events';
import { kubeconfigFor } from '#pkg/embedded-api/kubeconfig-for.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { createSmallCluster, type SmallCluster } from '#pkg/proxy/testdata/small-cluster.ts';
import { SOCK_CLOEXEC, SOCK_STREAM } from '#pkg/sys/constants.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { Contestant } from './contestants.ts';

export const nodeName = 'bench-node';
const apiPort = 6443;
/** USER_HZ: what /proc counts processor time in. */
const ticksPerSecond = 100;

export interface BenchNode extends AsyncDisposable {
  readonly network: SmallCluster;
  /** Bound to 127.0.0.1 of the node; the API server listens on it. */
  readonly apiFd: number;
}

export async function createBenchNode(): Promise<BenchNode> {
  const network = await createSmallCluster();
  // Who asks before there are rules leaves a flow without a translation, which would be the fate of
  // the next connection from the same port.
  const short = 'net.netfilter.nf_conntrack_tcp_timeout_syn_sent=1';
  await network.node.exec('sysctl', ['-qw', short]);
  const sys = await openSys();
  const apiFd = withNetns(
    sys,
    network.node.path,
    () => {
      const AF_INET = 2;
      const fd = sys.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      const address = Uint8Array.of(0, 0, apiPort >> 8, apiPort & 255, 127, 0, 0, 1);
      new Uint16Array(address.buffer, 0, 1)[0] = AF_INET;
      sys.bind(fd, Uint8Array.from([...address, ...new Uint8Array(8)]));
      return fd;
    },
    (error) => {
      throw error;
    },
  );
  return { network, apiFd, [Symbol.asyncDispose]: () => network[Symbol.asyncDispose]() };
}

export interface Daemon {
  /** Processor time of it and of the programs it ran, in milliseconds. */
  cpuMs(): number;
  /** Memory now and at most, in megabytes. */
  memoryMB(): { readonly now: number; readonly peak: number };
  /** What it has said lately. */
  log(): string;
  /** Forgets what it has said. */
  forget(): void;
  stop(): Promise<void>;
  /** Rejects with what it said when it ends by itself. */
  readonly died: Promise<never>;
}

/** Starts a contestant on a node; its files go to `dir`. */
export function startDaemon(
  contestant: Contestant,
  {
    netns,
    dir,
    path,
  }: { readonly netns: ScratchNetns; readonly dir: string; readonly path: string },
): Daemon {
  const kubeconfig = join(dir, 'kubeconfig');
  writeFileSync(kubeconfig, kubeconfigFor({ server: `http://127.0.0.1:${apiPort}` }));
  const config = join(dir, 'config.conf');
  writeFileSync(
    config,
    `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: { kubeconfig: ${kubeconfig} }
hostnameOverride: ${nodeName}
clusterCIDR: 10.0.0.0/8
conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s }
${contestant.config}`,
  );
  // `ip netns exec` and env become the program: the process is the daemon.
  const args = [...contestant.command, '--config', config, ...contestant.args];
  const command = ['env', `PATH=${path}`, ...args];
  const child = spawn('ip', ['netns', 'exec', netns.name, ...command], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (bytes: Buffer) => (log = (log + bytes.toString()).slice(-200_000)));
  }
  let isStopping = false;
  const died = new Promise<never>((_, reject) => {
    child.on('exit', (code, signal) => {
      if (isStopping) return;
      const how = `ended with ${code ?? signal}`;
      reject(new Error(`Cannot measure ${contestant.name}: ${args[0]} ${how}:\n${log}`));
    });
  });
  // Who does not look any more need not hear of it.
  died.catch(() => undefined);
  const proc = (file: string): string => readFileSync(`/proc/${child.pid}/${file}`, 'utf8');
  return {
    cpuMs: () => {
      // After the name in parentheses: field 3; utime, stime, cutime, cstime are 14 to 17.
      const fields = proc('stat')
        .replace(/^.*\) /, '')
        .split(' ');
      const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
      return (ticks * 1000) / ticksPerSecond;
    },
    memoryMB: () => {
      const kilobytes = (name: string): number =>
        Number(new RegExp(`${name}:\\s+(\\d+)`).exec(proc('status'))?.[1]);
      return { now: kilobytes('VmRSS') / 1024, peak: kilobytes('VmHWM') / 1024 };
    },
    log: () => log,
    died,
    forget: () => void (log = ''),
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      isStopping = true;
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      await exited;
    },
  };
}
