/**
 * How long /healthz takes while a starting proxy takes in and writes all Services, asked each 10 ms:
 *
 *     node --disable-warning=ExperimentalWarning hack/bench/proxy/health.ts
 *       [--services 20000] [--runs 5] [--program dist/podwire-proxy] [--node-flags="--trace-gc"]
 *       [--results FILE]
 *
 * Needs root and dist/ (npm run build). The API server is in this process, and works meanwhile.
 */
import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startEmbeddedApi } from '#pkg/embedded-api/embedded-api.ts';
import { addressing, putEndpoints, writeObjects } from './cluster.ts';
import { nodeProgram } from './contestants.ts';
import { createBenchNode, nodeName, startDaemon } from './node.ts';
import { healthTimes, place as target } from './probes.ts';
import { quantile } from './table.ts';

const { values } = parseArgs({
  options: {
    services: { type: 'string', default: '20000' },
    runs: { type: 'string', default: '5' },
    program: { type: 'string', default: join(import.meta.dirname, '../../../dist/podwire-proxy') },
    'node-flags': { type: 'string', default: '' },
    results: { type: 'string' },
  },
});
const services = Number(values.services);
const flags = values['node-flags'].split(' ').filter((flag) => flag !== '');
const [node = '', ...rest] = nodeProgram(values.program);
const dir = mkdtempSync(join(tmpdir(), 'podwire-bench-'));

async function run(number: number): Promise<void> {
  const of = addressing.ip;
  await using place = await createBenchNode();
  const persistenceFile = join(dir, `objects-${number}`);
  writeObjects(persistenceFile, of, { services, endpoints: 2 });
  await using api = await startEmbeddedApi({
    listen: [{ fd: place.apiFd }],
    serviceCIDRs: [of.serviceCIDR],
    persistenceFile,
    runControllers: false,
  });
  api.objects.create({ apiVersion: 'v1', kind: 'Node', metadata: { name: nodeName } });
  putEndpoints(api.objects, of.probed, [of.pods[0]]);
  const ownDir = join(dir, String(number));
  mkdirSync(ownDir);
  const daemon = startDaemon(
    {
      name: 'nftables',
      command: [node, ...flags, ...rest],
      args: ['-v', '2'],
      config: 'mode: nftables\nnftables: { minSyncPeriod: 10ms }\n',
      restMs: 0,
      backend: 'none',
    },
    { netns: place.network.node, dir: ownDir, path: process.env['PATH'] ?? '' },
  );
  const micros = await healthTimes(
    place.network.node,
    target('127.0.0.1', 10256),
    4_000 + services / 2,
  );
  const written = /"msg":"Rules written"|Rules written/.test(daemon.log());
  await daemon.stop();
  if (!written) throw new Error(`Cannot measure: nothing was written:\n${daemon.log()}`);
  const ms = (q: number): number => Number((quantile(micros, q) / 1000).toFixed(1));
  const line = {
    name: 'healthz',
    services,
    load: Number((loadavg()[0] ?? 0).toFixed(1)),
    asked: micros.length,
    p50: ms(0.5),
    p99: ms(0.99),
    maxMs: ms(1),
  };
  console.log(JSON.stringify(line));
  if (flags.length > 0) console.log(daemon.log());
  if (values.results !== undefined) appendFileSync(values.results, `${JSON.stringify(line)}\n`);
}

try {
  for (let i = 0; i < Number(values.runs); i++) await run(i);
} finally {
  rmSync(dir, { recursive: true });
}
