/**
 * Our layout of mode nftables beside kube-proxy's, with the same Services, taking turns on two nodes
 * made of network namespaces; a third node has no rules:
 *
 *     node --disable-warning=ExperimentalWarning hack/bench/proxy/layouts.ts
 *       [--services 1000,5000] [--loads 3] [--changes 40] [--connections 1000] [--rounds 4]
 *       [--patience 200] [--results FILE]
 *
 * Needs root. Ours is written by the daemon's own writer, kube-proxy's by `nft -f -` from text that is
 * ready: what kube-proxy itself needs before is not in its figures. A load that takes longer than
 * `--patience` seconds is given up, and figures of that size and layout end there. With 20,000 Services
 * kube-proxy's layout holds one processor in the kernel for more than a minute ("soft lockup"), and
 * who else works on the machine waits as long: not by default.
 */
import { appendFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { portKey } from '#pkg/proxy/proxied-port.ts';
import { createSmallCluster, type SmallCluster } from '#pkg/proxy/testdata/small-cluster.ts';
import { addressing } from './cluster.ts';
import type { LayoutResult } from './layouts-result.ts';
import { connectRates, connectTimes, place } from './probes.ts';
import { quantile } from './table.ts';
import { benchPort } from './bench-port.ts';
import {
  benchCluster,
  GivenUp,
  nft,
  ours,
  upstream,
  type LayoutContestant,
} from './layout-contestants.ts';

const { values } = parseArgs({
  options: {
    services: { type: 'string', default: '1000,5000' },
    loads: { type: 'string', default: '3' },
    changes: { type: 'string', default: '40' },
    connections: { type: 'string', default: '1000' },
    rounds: { type: 'string', default: '4' },
    patience: { type: 'string', default: '200' },
    results: { type: 'string' },
  },
});
const of = addressing.ip;
const patienceMs = Number(values.patience) * 1000;
const rateMs = 500;
const restMs = 200;
/** Of each process of the prober: its first connections are slower than the others. */
const warmUp = 200;
/** Figures of one layout at one size, milliseconds unless named otherwise. */
interface Row {
  readonly name: string;
  readonly loadMs: number[];
  readonly changeMs: number[];
  /** What upstream does with each sync besides: listing its table. */
  listMs?: number;
  givenUpAfterMs?: number;
  readonly serviceMicros: number[];
  readonly podMicros: number[];
  readonly serviceRate: number[];
  readonly podRate: number[];
}

async function timed(act: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  await act();
  return performance.now() - startedMs;
}

async function measure(services: number): Promise<void> {
  await using clusters = new AsyncDisposableStack();
  using opened = new DisposableStack();
  const made = async (): Promise<SmallCluster> => clusters.use(await createSmallCluster());
  const bare = await made();
  const contestants = [ours(await made(), patienceMs, opened), upstream(await made(), patienceMs)];
  const rows = new Map(
    [...contestants.map(({ name }) => name), 'no rules'].map((name): [string, Row] => [
      name,
      {
        name,
        loadMs: [],
        changeMs: [],
        serviceMicros: [],
        podMicros: [],
        serviceRate: [],
        podRate: [],
      },
    ]),
  );
  const row = ({ name }: { readonly name: string }): Row => rows.get(name) as Row;
  const ports = benchCluster(services);
  const isIn = (contestant: LayoutContestant): boolean =>
    row(contestant).givenUpAfterMs === undefined;

  for (let i = 0; i < Number(values.loads); i++) {
    for (const contestant of contestants.filter(isIn)) {
      if (i > 0) await contestant.unload();
      const startedMs = performance.now();
      try {
        row(contestant).loadMs.push(await timed(() => contestant.load(ports)));
      } catch (error) {
        if (!(error instanceof GivenUp)) throw error;
        row(contestant).givenUpAfterMs = performance.now() - startedMs;
      }
      console.error(
        `${services} ${contestant.name}: ${row(contestant).loadMs.at(-1)?.toFixed(0)} ms`,
      );
    }
  }

  for (let i = 0; i < Number(values.changes); i++) {
    const n = i % (services - 1);
    const pods = [of.pod(90_000 + i), of.pod(91_000 + i)];
    const changed = benchPort(
      `service-${n}`,
      { ip: of.service(n + 1), port: 80 },
      pods.map((pod) => `${pod}:8080`),
    );
    ports.set(portKey(changed), changed);
    for (const contestant of contestants.filter(isIn)) {
      // What the kernel clears away after the other's change is none of this one's.
      await sleep(restMs);
      const ms = await timed(() => contestant.change(ports, changed));
      // The first finds programs and memory cold.
      if (i >= 3) row(contestant).changeMs.push(ms);
    }
  }
  for (const contestant of contestants.filter(isIn)) {
    if (!contestant.name.startsWith('kube-proxy')) continue;
    const args = ['--json', '--terse', 'list', 'table', 'ip', 'kube-proxy'];
    row(contestant).listMs = await timed(() =>
      nft(contestant.cluster, args, undefined, patienceMs),
    );
  }

  const service = place(of.probed.ip, of.probed.port);
  // Another pod than the Service's: their connections would be each other's in connection tracking.
  const pod = place(of.pods[1], 8080);
  const nodes = [
    ...contestants.filter(isIn).map((contestant) => ({ ...contestant, targets: [service, pod] })),
    // In turns between two pods here as well.
    { name: 'no rules', cluster: bare, targets: [place(of.pods[0], 8080), pod] },
  ];
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const { cluster: at, name, targets: all } of nodes) {
      // What is asked second finds memory warm.
      const targets = round % 2 === 0 ? all : all.toReversed();
      const times = await connectTimes(at.client, Number(values.connections) + warmUp, targets);
      const rates = await connectRates(at.client, rateMs, targets);
      const into = row({ name });
      for (const [i, target] of targets.entries()) {
        const isService = target === service;
        (isService ? into.serviceMicros : into.podMicros).push(...(times[i]?.slice(warmUp) ?? []));
        (isService ? into.serviceRate : into.podRate).push(rates[i] ?? Number.NaN);
      }
    }
  }
  report(services, [...rows.values()]);
}

function report(services: number, rows: readonly Row[]): void {
  const show = (all: readonly number[], q = 0.5): string =>
    all.length === 0 ? '-' : quantile(all, q).toFixed(quantile(all, q) < 100 ? 1 : 0);
  const load = Number((loadavg()[0] ?? 0).toFixed(1));
  console.log(`\n${services} Services x 2 endpoints, load ${load}`);
  for (const row of rows) {
    const { changeMs, givenUpAfterMs, listMs, loadMs, name, podMicros, serviceMicros } = row;
    console.log(
      [
        name.padEnd(27),
        `load ms ${loadMs.map((ms) => ms.toFixed(0)).join(', ') || '-'}`,
        givenUpAfterMs === undefined
          ? ''
          : `given up after ${(givenUpAfterMs / 1000).toFixed(0)} s`,
        `change ms p50 ${show(changeMs)} p99 ${show(changeMs, 0.99)}`,
        listMs === undefined ? '' : `list ms ${listMs.toFixed(0)}`,
        `connect us p50/p99: Service ${show(serviceMicros)}/${show(serviceMicros, 0.99)} pod ${show(podMicros)}/${show(podMicros, 0.99)}`,
        `conn/s: Service ${show(row.serviceRate)} pod ${show(row.podRate)}`,
      ]
        .filter((part) => part !== '')
        .join('  '),
    );
  }
  const [own, other] = rows;
  if (own !== undefined && other !== undefined) {
    const ratio = (what: 'loadMs' | 'changeMs' | 'serviceMicros'): string =>
      other[what].length === 0
        ? '-'
        : (quantile(own[what], 0.5) / quantile(other[what], 0.5)).toFixed(3);
    console.log(
      `ours / kube-proxy's layout: load ${ratio('loadMs')}, change ${ratio('changeMs')}, connect ${ratio('serviceMicros')}`,
    );
  }
  if (values.results === undefined) return;
  for (const row of rows) {
    const pair = (all: readonly number[]): readonly [number, number] | undefined =>
      all.length === 0 ? undefined : [round(quantile(all, 0.5)), round(quantile(all, 0.99))];
    const line: LayoutResult = {
      name: row.name,
      services,
      endpoints: 2,
      load,
      loadMs: row.loadMs.map(round),
      givenUpAfterMs: row.givenUpAfterMs,
      changeMs: pair(row.changeMs),
      listMs: row.listMs === undefined ? undefined : round(row.listMs),
      connectMicros: pair(row.serviceMicros),
      podMicros: pair(row.podMicros),
      connectionsPerSecond: pair(row.serviceRate)?.[0],
      podConnectionsPerSecond: pair(row.podRate)?.[0],
    };
    appendFileSync(values.results, `${JSON.stringify(line)}\n`);
  }
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}

for (const services of values.services.split(',').map(Number)) await measure(services);
