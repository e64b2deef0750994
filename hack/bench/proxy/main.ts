/**
 * What Services cost a node, by what clients notice:
 *
 *     node --disable-warning=ExperimentalWarning hack/bench/proxy/main.ts
 *       [--services 1000,5000,20000] [--endpoints 2] [--modes iptables] [--changes 15]
 *       [--connections 3000] [--family ip6] [--peer /path/to/kube-proxy] [--results FILE]
 *
 * Needs root and dist/ (npm run build). An API server in this process holds the Services; each
 * contestant runs on a node of its own made of network namespaces, one after the other. `--modes`
 * are words that names of contestants contain: "tree,nftables". A peer takes turns with each.
 * `--results` adds a line of JSON for each to a file, which plot.ts draws.
 */
import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir, loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startEmbeddedApi } from '#pkg/embedded-api/embedded-api.ts';
import { addressing, writeObjects } from './cluster.ts';
import { contestants, type Contestant } from './contestants.ts';
import { measure, type Figures } from './measure.ts';
import { createBenchNode, nodeName, type BenchNode } from './node.ts';
import { resultLine } from './results.ts';
import { figuresTable } from './table.ts';

const { values } = parseArgs({
  options: {
    services: { type: 'string', default: '1000,5000,20000' },
    endpoints: { type: 'string', default: '2' },
    modes: { type: 'string', default: 'iptables' },
    changes: { type: 'string', default: '15' },
    connections: { type: 'string', default: '3000' },
    family: { type: 'string', default: 'ip' },
    peer: { type: 'string' },
    results: { type: 'string' },
  },
});

const chosen = contestants(values.modes.split(','), values.peer);
const addresses = addressing[values.family === 'ip6' ? 'ip6' : 'ip'];
const nodeAddresses = [
  { type: 'InternalIP', address: '203.0.113.1' },
  { type: 'InternalIP', address: '2001:db8::1' },
];
const dir = mkdtempSync(join(tmpdir(), 'podwire-bench-'));
/** Of the comparison under way: nodes with all that runs on them, and the API server. */
let opened = new AsyncDisposableStack();
let stopped: Promise<void> | undefined;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  // Not once(): execa ends the process when nobody else listens by the time it hears of the signal.
  process.on(signal, () => void (stopped ??= opened.disposeAsync()));
}
try {
  for (const services of values.services.split(',').map(Number)) {
    if (stopped === undefined) await compare(services);
  }
} catch (error) {
  // What is measured fails when its node goes.
  if (stopped === undefined) throw error;
  process.exitCode = 1;
} finally {
  await (stopped ?? opened.disposeAsync());
  rmSync(dir, { recursive: true });
}

async function compare(services: number): Promise<void> {
  await opened.disposeAsync();
  opened = new AsyncDisposableStack();
  const nodes: (readonly [Contestant, BenchNode])[] = [];
  for (const contestant of chosen) nodes.push([contestant, opened.use(await createBenchNode())]);
  const persistenceFile = join(dir, `objects-${services}`);
  const endpoints = Number(values.endpoints);
  writeObjects(persistenceFile, addresses, { services, endpoints });
  const api = opened.use(
    await startEmbeddedApi({
      listen: nodes.map(([, { apiFd }]) => ({ fd: apiFd })),
      serviceCIDRs: [addresses.serviceCIDR],
      persistenceFile,
      runControllers: false,
    }),
  );
  const { objects } = api;
  objects.create({ apiVersion: 'v1', kind: 'Node', metadata: { name: nodeName } });
  const node = { apiVersion: 'v1', kind: 'Node', name: nodeName };
  objects.patch(node, 'merge', { status: { addresses: nodeAddresses } }, { subresource: 'status' });

  const rows: (readonly [string, Figures])[] = [];
  for (const [contestant, benchNode] of nodes) {
    const ownDir = join(dir, `${services}-${rows.length}`);
    mkdirSync(ownDir);
    const [changes, connections] = [Number(values.changes), Number(values.connections)];
    const place = {
      node: benchNode,
      objects,
      addresses,
      dir: ownDir,
      services,
      changes,
      connections,
    };
    const row = [contestant.name, await measure(contestant, place)] as const;
    rows.push(row);
    const { family } = addresses;
    const line = resultLine(contestant.name, { services, endpoints, family }, row[1]);
    if (values.results !== undefined) appendFileSync(values.results, `${line}\n`);
    // The whole table comes when all are done, which can take minutes.
    console.error(`${services} Services:\n${figuresTable([row])}`);
  }
  const load = loadavg()[0]?.toFixed(1);
  console.log(`\n${services} Services x ${values.endpoints} endpoints, load ${load}`);
  console.log(figuresTable(rows));
}
