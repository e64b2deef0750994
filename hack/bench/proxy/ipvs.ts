/**
 * What ipvs mode costs: time to decide, commands and bytes for everything and for one change, at
 * several sizes. Decides only and writes to no kernel, so that it runs anywhere.
 *
 *     node hack/bench/proxy/ipvs.ts [services...]
 */
import { planIpSets, planMembers } from '#pkg/ipset/plan.ts';
import { renderIpSetRestore } from '#pkg/ipset/render.ts';
import { planIpvs } from '#pkg/ipvs/plan.ts';
import { renderIpvsRestore } from '#pkg/ipvs/render.ts';
import type { VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import { IpvsBook } from '#pkg/proxy/ipvs-book.ts';
import type { IpvsOptions } from '#pkg/proxy/ipvs-options.ts';
import { portKey, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import type { Endpoint } from '#pkg/proxy/endpoints.ts';

const options: IpvsOptions = {
  family: 'ip',
  scheduler: 'rr',
  masqueradeBit: 14,
  masqueradeAll: false,
  localDetector: { kind: 'none' },
  nodePortAddresses: ['192.168.0.2'],
  hostAddresses: ['192.168.0.2'],
  nodeAddress: '192.168.0.2',
  randomFully: true,
};

function endpoint(n: number): Endpoint {
  const address = `10.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`;
  const state = { ready: true, serving: true, terminating: false, local: false };
  return { target: `${address}:80`, address, port: 80, ...state, zoneHints: [], nodeHints: [] };
}

function port(n: number, endpoints: readonly Endpoint[]): ProxiedPort {
  const name = `service-${n}`;
  return {
    family: 'ip',
    namespace: 'bench',
    name,
    portName: 'http',
    printName: `bench/${name}:http`,
    protocol: 'tcp',
    clusterIP: `172.${16 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`,
    port: 80,
    nodePort: 0,
    externalIPs: [],
    loadBalancerIPs: [],
    sourceRanges: [],
    internalPolicy: 'Cluster',
    externalPolicy: 'Cluster',
    affinitySeconds: 0,
    healthCheckNodePort: 0,
    endpoints: {
      cluster: endpoints,
      local: [],
      all: endpoints,
      reachable: endpoints,
      hasAny: true,
    },
  };
}

interface Cost {
  readonly ms: number;
  readonly commands: number;
  readonly bytes: number;
}

function measure(services: number): { readonly all: Cost; readonly change: Cost } {
  const ports = new Map<string, ProxiedPort>();
  for (let n = 1; n <= services; n++) {
    const made = port(n, [endpoint(2 * n), endpoint(2 * n + 1)]);
    ports.set(portKey(made), made);
  }
  const book = new IpvsBook(options);
  const noServers: ReadonlyMap<string, VirtualServer> = new Map();
  const all = timed(() => {
    book.update(ports, ports.keys());
    const servers = planIpvs(book.servers(), noServers, () => true).puts;
    return [renderIpvsRestore(servers), renderIpSetRestore(planIpSets(book.sets(), new Map()))];
  });
  const before = book.servers();
  const changed = port(7, [endpoint(14)]);
  ports.set(portKey(changed), changed);
  const change = timed(() => {
    const { members, servers } = book.update(ports, [portKey(changed)]);
    const pick = (from: (key: string) => VirtualServer | undefined) =>
      new Map(
        [...servers].flatMap((key) => from(key) ?? []).map((s, i) => [[...servers][i] ?? '', s]),
      );
    const plan = planIpvs(
      pick((key) => book.server(key)),
      pick((key) => before.get(key)),
      () => true,
    );
    const sets = planMembers(members, new Map()) ?? [];
    return [renderIpvsRestore([...plan.puts, ...plan.deletions]), renderIpSetRestore(sets)];
  });
  return { all, change };
}

function timed(action: () => readonly string[]): Cost {
  const startedMs = performance.now();
  const text = action().join('');
  const ms = performance.now() - startedMs;
  return { ms, commands: text.split('\n').length - 1, bytes: text.length };
}

const sizes = process.argv.slice(2).map(Number);
console.log('services  what     ms      commands  bytes');
for (const size of sizes.length > 0 ? sizes : [1000, 20_000]) {
  for (const [what, { bytes, commands, ms }] of Object.entries(measure(size))) {
    const cells = [String(size).padEnd(9), what.padEnd(8), ms.toFixed(2).padEnd(7)];
    console.log(`${cells.join(' ')} ${String(commands).padEnd(9)} ${bytes}`);
  }
}
