/**
 * What many nodes cost one node's daemon:
 *
 *     node --disable-warning=ExperimentalWarning hack/bench/nodes/main.ts [nodes ...]
 *
 * For each number of nodes (100, 1000 and 5000): cold starts to all entries in the kernel, each beside
 * a raw writer of the same netlink messages, then changes of one node's VXLAN MAC one by one. Times
 * are the least of all turns, the ratio is the median of the turns'. Needs root and dist/ (npm run
 * build).
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { kubeconfigFor } from '#pkg/embedded-api/kubeconfig-for.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { systemClock } from '#pkg/clock/clock.ts';
import { peerOf } from './cluster.ts';

const turns = 5;
const changes = 20;
/** How long the daemon is watched at rest, so that rest is not counted as work. */
const restMs = 3_000;
const program = join(import.meta.dirname, '../../../dist/podwire-node');

async function createNode(): Promise<ScratchNetns> {
  const netns = await createScratchNetns('pw-bench-nodes');
  await netns.ip('link add eth0 type veth peer name router');
  await netns.ip('link set router up');
  await netns.ip('link set eth0 up');
  await netns.ip('addr add 192.168.0.1/24 dev eth0');
  await netns.ip('route add default via 192.168.0.254');
  return netns;
}

function start(netns: ScratchNetns, args: readonly string[]): ChildProcess {
  const command = ['netns', 'exec', netns.name, process.execPath];
  const flags = ['--disable-warning=ExperimentalWarning', ...args];
  return spawn('ip', [...command, ...flags], { stdio: ['pipe', 'pipe', 'pipe'] });
}

/** Lines as they come; `next` resolves with the first one from now on that has the word. */
function linesOf(stream: NodeJS.ReadableStream): (word: string) => Promise<string> {
  const waiting: { word: string; resolve: (line: string) => void }[] = [];
  createInterface({ input: stream }).on('line', (line) => {
    for (const one of waiting.filter(({ word }) => line.includes(word))) {
      waiting.splice(waiting.indexOf(one), 1);
      one.resolve(line);
    }
  });
  return (word) => new Promise((resolve) => waiting.push({ word, resolve }));
}

/** CPU time so far in milliseconds, and memory in MB. */
function usageOf(pid: number): { cpuMs: number; rssMB: number; peakMB: number } {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const megabytes = (key: string): number =>
    Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(status)?.[1]) / 1024;
  // In ticks of 10 ms: user and system.
  const cpuMs = (Number(stat[11]) + Number(stat[12])) * 10;
  return { cpuMs, rssMB: megabytes('VmRSS'), peakMB: megabytes('VmHWM') };
}

/** Of a line of the log, in milliseconds. */
function timeOf(line: string): number {
  return Date.parse((JSON.parse(line) as { readonly time: string }).time);
}

function medianOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;
}

async function rawMs(count: number): Promise<number> {
  await using netns = await createNode();
  const { stdout } = await netns.exec(process.execPath, [
    '--disable-warning=ExperimentalWarning',
    join(import.meta.dirname, 'raw.ts'),
    String(count),
  ]);
  return Number(stdout);
}

interface Started {
  readonly daemon: ChildProcess;
  readonly pid: number;
  readonly logged: (word: string) => Promise<string>;
  readonly readyMs: number;
  /** Reading what is there, planning, and writing: all between two lines of the log. */
  readonly writeMs: number;
}

async function startDaemon(netns: ScratchNetns, count: number, dir: string): Promise<Started> {
  const kubeconfig = join(dir, 'kubeconfig');
  writeFileSync(kubeconfig, kubeconfigFor({ server: 'http://127.0.0.1:6443' }));
  const config = join(dir, 'config.yaml');
  const folders = ['runDir', 'cniConfDir', 'cniDataDir', 'stateDir'];
  const keys = folders.map((key) => `${key}: ${dir}/${key}`);
  writeFileSync(config, [...keys, 'healthBindAddress: ""', ''].join('\n'));
  const startMs = performance.now();
  const flags = ['--kubeconfig', kubeconfig, '--node-name', 'node-0', '--config', config];
  const daemon = start(netns, [program, ...flags]);
  if (daemon.stderr === null || daemon.pid === undefined) throw new Error('no pipes');
  const logged = linesOf(daemon.stderr);
  const [tables, objects] = [logged('Masquerade table changed'), logged('Host network changed')];
  await logged('Pod network is ready');
  const readyMs = performance.now() - startMs;
  const writeMs = timeOf(await objects) - timeOf(await tables);
  const routes = (await netns.ip('route show proto 220')).trim().split('\n').length;
  if (routes !== count - 1) throw new Error(`Cannot go on: ${routes} routes for ${count} nodes`);
  return { daemon, pid: daemon.pid, logged, readyMs, writeMs };
}

/** As before the daemon came. */
async function undo({ daemon }: Started, netns: ScratchNetns): Promise<void> {
  const ended = once(daemon, 'exit');
  daemon.kill();
  await ended;
  await netns.ip('link del podwire.1');
  await netns.exec('nft', ['delete', 'table', 'inet', 'podwire-masquerade']);
}

async function measure(count: number, dir: string): Promise<void> {
  await using netns = await createNode();
  const server = start(netns, [join(import.meta.dirname, 'serve.ts'), String(count)]);
  if (server.stdout === null || server.stdin === null) throw new Error('no pipes');
  const served = linesOf(server.stdout);
  await served('ready');
  const raw: number[] = [];
  const starts: Started[] = [];
  for (let turn = 0; turn < turns; turn++) {
    const last = starts.at(-1);
    if (last !== undefined) await undo(last, netns);
    raw.push(await rawMs(count));
    starts.push(await startDaemon(netns, count, dir));
  }
  const writeMs = Math.min(...starts.map((one) => one.writeMs));
  const readyMs = Math.min(...starts.map((one) => one.readyMs));
  const ratio = medianOf(starts.map((one, i) => one.writeMs / (raw[i] ?? NaN)));
  const last = starts.at(-1);
  if (last === undefined) throw new Error('no turns');
  const { daemon, logged, pid } = last;
  // The devices just made lead to one more look at everything, which may take the first change; the
  // second makes the index of all nodes, once in the daemon's life.
  for (const warmUp of [1, 2]) {
    const written = logged('Host network changed');
    server.stdin.write(`${count - 1} ${changes + warmUp}\n`);
    await written;
    await systemClock.sleep(1_000);
  }
  await systemClock.sleep(restMs);
  const rested = usageOf(pid);
  await systemClock.sleep(restMs);
  const before = usageOf(pid);
  const restCpuPerMs = (before.cpuMs - rested.cpuMs) / restMs;
  const latencies: number[] = [];
  const began = performance.now();
  for (let change = 1; change <= changes; change++) {
    const written = logged('Host network changed');
    const at = performance.now();
    server.stdin.write(`${count - 1} ${change}\n`);
    await written;
    latencies.push(performance.now() - at);
    await systemClock.sleep(300);
  }
  const after = usageOf(pid);
  const rest = restCpuPerMs * (performance.now() - began);
  const { mac } = peerOf(count - 1, changes);
  const fdb = await netns.exec('bridge', ['fdb', 'show', 'dev', 'podwire.1']);
  if (!fdb.stdout.includes(mac)) throw new Error(`Cannot go on: no entry for ${mac}`);
  daemon.kill();
  server.kill();
  const median = medianOf(latencies);
  const cells = [
    String(count),
    `${(readyMs / 1000).toFixed(2)} s`,
    `${writeMs} ms`,
    `${Math.min(...raw).toFixed(0)} ms`,
    ratio.toFixed(2),
    `${after.rssMB.toFixed(0)} / ${after.peakMB.toFixed(0)} MB`,
    `${median.toFixed(0)} ms`,
    `${((after.cpuMs - before.cpuMs - rest) / changes).toFixed(1)} ms`,
  ];
  console.log(`| ${cells.join(' | ')} |`);
}

const counts = process.argv.slice(2).map(Number);
const dir = mkdtempSync(join(tmpdir(), 'podwire-bench-'));
console.log(`load ${loadavg()[0]?.toFixed(1)}
| nodes | start to ready | of it netlink: observe, plan, write | raw writer | ratio | memory now / most | one change: until written, p50 | CPU |
|---|---|---|---|---|---|---|---|`);
try {
  for (const count of counts.length > 0 ? counts : [100, 1000, 5000]) await measure(count, dir);
  console.log(`load ${loadavg()[0]?.toFixed(1)}`);
} finally {
  rmSync(dir, { recursive: true });
}
