/**
 * What a change costs the proxy besides the kernel: from the stores to the elements of mode nftables,
 * with everything that follows a write. Writes to no kernel, so that it runs anywhere.
 *
 *     node --expose-gc hack/bench/proxy/round.ts [services...]
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { createApiFeed } from '#cmd/podwire-proxy/api-feed.ts';
import { trackChanges } from '#cmd/podwire-proxy/change-tracking.ts';
import { createConntrackCleaner } from '#cmd/podwire-proxy/conntrack-cleaner.ts';
import { createHealthCheckServers } from '#cmd/podwire-proxy/health-check-servers.ts';
import type { NftablesDriver } from '#cmd/podwire-proxy/nftables-driver.ts';
import { createNftablesWriter } from '#cmd/podwire-proxy/nftables-writer.ts';
import { createRound } from '#cmd/podwire-proxy/round.ts';
import { systemClock } from '#pkg/clock/clock.ts';
import { createSyncTracker } from '#pkg/health/sync-tracker.ts';
import type { Family } from '#pkg/ip/address.ts';
import { createStore, type WritableStore } from '#pkg/kube/store.ts';
import type { EndpointSliceRecord, ObjectMeta, ServiceRecord } from '#pkg/kube/types.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { createProxyMetrics } from '#pkg/metrics/proxy-metrics.ts';
import type { NftablesOptions } from '#pkg/proxy/nftables-options.ts';
import { watchLoopTurns } from '../loop-turns.ts';

const endpoints = 2;
const changes = 300;
const nodeName = 'bench-node';
const options: NftablesOptions = {
  family: 'ip',
  masqueradeBit: 14,
  masqueradeAll: false,
  localDetector: { kind: 'none' },
  nodePortAddresses: ['192.0.2.1'],
  nodeAddress: '192.0.2.1',
  serviceCIDRs: [],
  counters: 'services',
};

function service(n: number, protocol: 'TCP' | 'UDP'): ServiceRecord {
  return {
    namespace: `ns-${n % 20}`,
    name: `service-${n}`,
    uid: `s${n}`,
    resourceVersion: '1',
    type: 'ClusterIP',
    clusterIPs: [`172.${16 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`],
    ipFamilies: ['IPv4'],
    ports: [{ name: 'http', protocol, port: 80, nodePort: 0 }],
    externalIPs: [],
    loadBalancerIngress: [],
    loadBalancerSourceRanges: [],
    externalTrafficPolicy: 'Cluster',
    internalTrafficPolicy: 'Cluster',
    affinitySeconds: 0,
    healthCheckNodePort: 0,
  };
}

function slice(n: number, version: number, protocol: 'TCP' | 'UDP'): EndpointSliceRecord {
  const at = n * endpoints + version;
  return {
    namespace: `ns-${n % 20}`,
    name: `service-${n}-x7k2p`,
    uid: `e${n}`,
    resourceVersion: String(version + 1),
    serviceName: `service-${n}`,
    addressType: 'IPv4',
    ports: [{ name: 'http', protocol, port: 8080 }],
    endpoints: Array.from({ length: endpoints }, (_, e) => ({
      address: `10.${((at + e) >> 16) & 255}.${((at + e) >> 8) & 255}.${(at + e) & 255}`,
      ready: true,
      serving: true,
      terminating: false,
      nodeName: '',
      zoneHints: [],
      nodeHints: [],
    })),
    triggerTime: '',
  };
}

/** Takes everything and keeps nothing. */
const driver: NftablesDriver = {
  structure: () => undefined,
  load: () => Promise.resolve(),
  check: () => Promise.resolve(),
  addChain: () => undefined,
  edit: (edits) => ({ messages: edits.length, bytes: 0 }),
  *read() {
    yield [];
  },
  forget: () => undefined,
};

async function measure(count: number): Promise<Record<string, number>> {
  const stop = new AbortController();
  const { signal } = stop;
  const services = createStore<ServiceRecord>();
  const slices = createStore<EndpointSliceRecord>();
  const metrics = createProxyMetrics({
    version: '0',
    platform: 'linux/amd64',
    nodeVersion: process.version,
    featureGates: [],
  });
  const tracker = trackChanges({
    services,
    slices,
    tracker: createSyncTracker<Family>(['ip'], 60_000, systemClock),
    metrics,
    clock: systemClock,
  });
  const cleaner = createConntrackCleaner({
    clock: systemClock,
    log: silentLogger,
    nodePortAddresses: () => ['192.0.2.1'],
    remove: () => Promise.resolve({ listed: 0, deleted: 0, requests: 0, complete: true }),
    onCleaned: () => undefined,
  });
  const servers = createHealthCheckServers({
    nodeName,
    log: silentLogger,
    nodePortAddresses: () => 'all',
    isProxyHealthy: () => true,
    report: () => undefined,
  });
  const feed = createApiFeed(services, slices);
  const writer = createNftablesWriter({
    family: 'ip',
    driver,
    options: () => options,
    onParked: () => undefined,
    clock: systemClock,
    log: silentLogger,
  });
  const round = createRound({
    nodeName,
    feed,
    nodes: { get: () => undefined },
    mode: { writers: new Map([['ip', writer]]) },
    afterWrite: [cleaner.afterWrite, servers.afterWrite],
    tracker,
    metrics,
    clock: systemClock,
    log: silentLogger,
  });
  const cleaning = cleaner.run(signal);

  const of = (n: number): 'TCP' | 'UDP' => (n % 10 === 0 ? 'UDP' : 'TCP');
  const initial = Array.from({ length: count }, (_, n) => n);
  const allServices = initial.map((n) => service(n, of(n)));
  const allSlices = initial.map((n) => slice(n, 0, of(n)));
  await sleep(50);
  const turns = watchLoopTurns();
  const startMs = performance.now();
  await fill(services, allServices);
  await fill(slices, allSlices);
  await round(signal);
  const loadMs = performance.now() - startMs;
  const turnMs = turns.longestMs();
  turns.stop();

  const result: Record<string, number> = { services: count, loadMs, turnMs };
  for (const [name, pick] of [
    ['tcp', 1],
    ['udp', 10],
  ] as const) {
    for (let i = 0; i < 50; i++) await change(i);
    const micros: number[] = [];
    const cpu = process.cpuUsage();
    for (let i = 0; i < changes; i++) micros.push(await change(i));
    const used = process.cpuUsage(cpu);
    micros.sort((a, b) => a - b);
    result[`${name}P50us`] = micros[changes >> 1] ?? 0;
    result[`${name}P99us`] = micros[Math.floor(changes * 0.99)] ?? 0;
    result[`${name}CpuUs`] = (used.user + used.system) / changes;

    async function change(i: number): Promise<number> {
      const n = pick === 1 ? 1 + (i % 9) : 10 * (i % 10);
      const at = performance.now();
      slices.put(slice(n, 1 + (++version % 7), of(n)));
      await round(signal);
      return (performance.now() - at) * 1000;
    }
  }
  stop.abort();
  await cleaning;
  await servers[Symbol.asyncDispose]();
  feed[Symbol.dispose]();
  tracker[Symbol.dispose]();
  return result;
}

/** As a list does it. */
async function fill<T extends ObjectMeta>(
  store: WritableStore<T>,
  all: readonly T[],
): Promise<void> {
  for (let at = 0; at < all.length; at += 100) {
    for (const record of all.slice(at, at + 100)) store.put(record);
    await sleep(0);
  }
  store.complete({ size: all.length, has: () => true });
}

let version = 0;
const sizes = process.argv.slice(2).map(Number);
for (const size of sizes.length > 0 ? sizes : [1000, 5000, 20_000]) {
  const row = await measure(size);
  console.log(
    Object.entries(row)
      .map(([name, value]) => `${name} ${value.toFixed(value < 100 ? 1 : 0)}`)
      .join('  '),
  );
}
