/**
 * What Services cost packets of established connections, and what counting them costs: a byte there
 * and back, and as much as fits, through a Service and to the pod itself, with connection tracking
 * that counts (`nftables.traffic`) and that does not, taking turns:
 *
 *     node --disable-warning=ExperimentalWarning hack/bench/proxy/established.ts
 *       [--services 20000] [--exchanges 20000] [--rounds 4] [--seconds 3] [--results FILE]
 *
 * Needs root and iperf3. The node has the table of so many Services; nothing else runs on it.
 */
import { appendFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { createSmallCluster } from '#pkg/proxy/testdata/small-cluster.ts';
import { addressing } from './cluster.ts';
import { benchPort } from './bench-port.ts';
import { benchCluster, ours } from './layout-contestants.ts';
import { connectTimes, exchangeTimes, place, startEcho } from './probes.ts';
import { quantile } from './table.ts';
import { portKey } from '#pkg/proxy/proxied-port.ts';

const { values } = parseArgs({
  options: {
    services: { type: 'string', default: '20000' },
    exchanges: { type: 'string', default: '20000' },
    rounds: { type: 'string', default: '4' },
    seconds: { type: 'string', default: '3' },
    results: { type: 'string' },
  },
});
const { pods, service } = addressing.ip;
const [echoed, direct, iperf] = [9001, 9002, 5201];
/** Of each process of the prober: its first exchanges are slower than the others. */
const warmUp = 1000;

interface Row {
  readonly exchange: Record<'service' | 'pod', number[]>;
  readonly connect: Record<'service' | 'pod', number[]>;
  /** Gigabits a second. */
  readonly through: Record<'service' | 'pod', number[]>;
}
const row = (): Row => ({
  exchange: { service: [], pod: [] },
  connect: { service: [], pod: [] },
  through: { service: [], pod: [] },
});

await using stack = new AsyncDisposableStack();
using opened = new DisposableStack();
const cluster = stack.use(await createSmallCluster());
const { client, node, servers } = cluster;
const ports = benchCluster(Number(values.services));
const [echoIp, iperfIp] = [service(60_001), service(60_002)];
for (const port of [
  benchPort('zz-echo', { ip: echoIp, port: echoed }, [`${pods[0]}:${echoed}`]),
  benchPort('zz-iperf', { ip: iperfIp, port: iperf }, [`${pods[0]}:${iperf}`]),
]) {
  ports.set(portKey(port), port);
}
await ours(cluster, 120_000, opened).load(ports);
stack.use(await startEcho(servers[0], echoed));
stack.use(await startEcho(servers[0], direct));
const server = servers[0].exec('iperf3', ['-s', '-p', String(iperf)], { timeoutMs: 600_000 });
server.catch(() => undefined);

const rows = new Map([0, 1].map((counting) => [counting, row()] as const));
for (let round = 0; round < Number(values.rounds); round++) {
  for (const counting of round % 2 === 0 ? [0, 1] : [1, 0]) {
    const into = rows.get(counting);
    if (into === undefined) continue;
    // Connections that begin from here on.
    await node.exec('sysctl', ['-qw', `net.netfilter.nf_conntrack_acct=${counting}`]);
    const echoes = [place(echoIp, echoed), place(pods[0], direct)];
    const [viaService, viaPod] = await exchangeTimes(client, Number(values.exchanges), echoes);
    into.exchange.service.push(...(viaService?.slice(warmUp) ?? []));
    into.exchange.pod.push(...(viaPod?.slice(warmUp) ?? []));
    const probes = [place(addressing.ip.probed.ip, 80), place(pods[1], 8080)];
    const [toService, toPod] = await connectTimes(client, 1200, probes);
    into.connect.service.push(...(toService?.slice(200) ?? []));
    into.connect.pod.push(...(toPod?.slice(200) ?? []));
    for (const [to, host] of [
      ['service', iperfIp],
      ['pod', pods[0]],
    ] as const) {
      const args = ['-c', host, '-p', String(iperf), '-t', values.seconds, '-J'];
      const { stdout } = await client.exec('iperf3', args, { timeoutMs: 60_000 });
      const told = JSON.parse(stdout) as { end: { sum_received: { bits_per_second: number } } };
      into.through[to].push(told.end.sum_received.bits_per_second / 1e9);
    }
  }
}

const load = Number((loadavg()[0] ?? 0).toFixed(1));
console.log(`${values.services} Services, load ${load}`);
const round = (value: number): number => Number(value.toPrecision(4));
const pair = (all: readonly number[]) => [round(quantile(all, 0.5)), round(quantile(all, 0.99))];
for (const [counting, { connect, exchange, through }] of rows) {
  const line = {
    name: counting === 1 ? 'established, counted' : 'established',
    services: Number(values.services),
    load,
    exchangeMicros: { service: pair(exchange.service), pod: pair(exchange.pod) },
    connectMicros: { service: pair(connect.service), pod: pair(connect.pod) },
    gigabits: {
      service: round(quantile(through.service, 0.5)),
      pod: round(quantile(through.pod, 0.5)),
    },
  };
  console.log(JSON.stringify(line));
  if (values.results !== undefined) appendFileSync(values.results, `${JSON.stringify(line)}\n`);
}
