/**
 * What it costs to hold 20,000 EndpointSlices of 5 endpoints: CPU, memory and how long the event
 * loop is blocked, for a LIST and for a WatchList, over plain HTTP/1.1 and HTTP/2 with TLS.
 *
 *     node --expose-gc hack/bench/kube/list.ts [slices]
 *
 * The server runs in a process of its own, so that only the client's memory is measured, and each
 * case in a process of its own.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#pkg/clock/clock.ts';
import { createKubeClient } from '#pkg/kube/client.ts';
import { projectEndpointSlice } from '#pkg/kube/project.ts';
import { proxiedEndpointSlices } from '#pkg/kube/resources.ts';
import { createStore } from '#pkg/kube/store.ts';
import type { EndpointSliceRecord } from '#pkg/kube/types.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { watchLoopTurns } from '../loop-turns.ts';

const cases = ['h1 list', 'h1 watchlist', 'h2 list', 'h2 watchlist'];

async function main([mode = 'all', ...args]: readonly string[]): Promise<void> {
  if (mode === 'serve') return serve(args[0] ?? '', Number(args[1]));
  if (mode === 'client') return measure(args[0] ?? '', args[1] ?? '');
  await compare(mode === 'all' ? 20_000 : Number(mode));
}

async function compare(slices: number): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'podwire-bench-'));
  const subject = ['-subj', '/CN=bench', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '2'];
  const keys = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const files = ['-keyout', join(dir, 'key'), '-out', join(dir, 'crt')];
  execFileSync('openssl', ['req', '-x509', ...keys, ...files, ...subject], { stdio: 'pipe' });
  const server = spawn(process.execPath, [import.meta.filename, 'serve', dir, String(slices)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    const ports = await new Promise<string>((resolve) => {
      server.stdout.once('data', (text: Buffer) => resolve(text.toString()));
    });
    for (const name of cases) {
      const args = ['--expose-gc', import.meta.filename, 'client', `${dir} ${ports.trim()}`, name];
      process.stdout.write(execFileSync(process.execPath, args).toString());
    }
  } finally {
    server.kill();
    rmSync(dir, { recursive: true });
  }
}

async function measure(where: string, name: string): Promise<void> {
  const [dir = '', h1, h2] = where.split(' ');
  const secure = name.startsWith('h2');
  const server = secure ? `https://127.0.0.1:${h2}` : `http://127.0.0.1:${h1}`;
  const ca = { kind: 'text', text: readFileSync(join(dir, 'crt'), 'utf8') } as const;
  const identity = { serverName: undefined, insecure: false, ca, user: {}, namespace: '' };
  const userAgent = name.endsWith('watchlist') ? 'bench-watchlist' : 'bench';
  await using client = createKubeClient(
    { server, ...identity },
    { clock: systemClock, log: silentLogger, userAgent },
  );
  globalThis.gc?.();
  const heapBefore = process.memoryUsage().heapUsed;
  const turns = watchLoopTurns();
  const cpuBefore = process.cpuUsage();
  const startMs = performance.now();
  const store = createStore<EndpointSliceRecord>();
  const signal = AbortSignal.timeout(120_000);
  client.watchResource(proxiedEndpointSlices, projectEndpointSlice, store, signal);
  await store.whenSynced(signal);
  const wallMs = performance.now() - startMs;
  // The last block is counted only when the loop has turned once more.
  await new Promise((resolve) => setTimeout(resolve, 20));
  const cpu = process.cpuUsage(cpuBefore);
  turns.stop();
  globalThis.gc?.();
  const line = {
    case: name,
    slices: store.size,
    wallMs: Math.round(wallMs),
    cpuMs: Math.round((cpu.user + cpu.system) / 1000),
    longestTurnMs: Math.round(turns.longestMs()),
    peakRssMB: Math.round(process.resourceUsage().maxRSS / 1024),
    heapKeptMB: Math.round((process.memoryUsage().heapUsed - heapBefore) / 1e6),
    changeMicros: Math.round(changeMicros(store) * 10) / 10,
  };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** One changed record and a snapshot after it, over and over. */
function changeMicros(store: ReturnType<typeof createStore<EndpointSliceRecord>>): number {
  const records = [...store.snapshot().values()].slice(0, 5_000);
  const startMs = performance.now();
  for (const record of records) {
    store.put({ ...record, resourceVersion: `${record.resourceVersion}-changed` });
    store.snapshot();
  }
  return ((performance.now() - startMs) * 1000) / records.length;
}

async function serve(dir: string, slices: number): Promise<void> {
  const items = Array.from({ length: slices }, (_, index) => JSON.stringify(slice(index)));
  const list = Buffer.from(
    `{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[${items.join(',')}]}`,
  );
  const end = `{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}}}\n`;
  const lines = Buffer.from(
    items.map((item) => `{"type":"ADDED","object":${item}}\n`).join('') + end,
  );
  process.stderr.write(`list of ${slices}: ${(list.length / 1e6).toFixed(1)} MB\n`);
  const answer = (request: http.IncomingMessage, response: http.ServerResponse): void => {
    const streams = request.headers['user-agent'] === 'bench-watchlist';
    const isList = !(request.url ?? '').includes('watch=true');
    const wantsState = (request.url ?? '').includes('sendInitialEvents');
    if (wantsState && !streams) response.writeHead(422).end('{}');
    else if (isList) response.end(list);
    else response.write(wantsState ? lines : '\n');
  };
  const h1 = http.createServer(answer).listen(0, '127.0.0.1');
  const identity = { key: readFileSync(join(dir, 'key')), cert: readFileSync(join(dir, 'crt')) };
  const h2 = http2.createSecureServer(identity, answer as never).listen(0, '127.0.0.1');
  await Promise.all([once(h1), once(h2)]);
  const ports = [h1, h2].map((server) => (server.address() as { port: number }).port);
  process.stdout.write(`${ports.join(' ')}\n`);
}

function once(server: { once(event: 'listening', listener: () => void): unknown }): Promise<void> {
  return new Promise((resolve) => server.once('listening', resolve));
}

/** As the EndpointSlice controller writes them, managedFields and all: 2.8 KB. */
function slice(index: number): object {
  const namespace = `namespace-${index % 20}`;
  const name = `service-${index}-x7k2p`;
  const managed = {
    manager: 'kube-controller-manager',
    operation: 'Update',
    apiVersion: 'discovery.k8s.io/v1',
    time: '2026-11-01T00:00:00Z',
    fieldsType: 'FieldsV1',
    fieldsV1: {
      'f:addressType': {},
      'f:endpoints': {},
      'f:metadata': {
        'f:annotations': { '.': {}, 'f:endpoints.kubernetes.io/last-change-trigger-time': {} },
        'f:generateName': {},
        'f:labels': {
          '.': {},
          'f:endpointslice.kubernetes.io/managed-by': {},
          'f:kubernetes.io/service-name': {},
        },
        'f:ownerReferences': { '.': {}, 'k:{"uid":"b2a4a2a4-1111-2222-3333-444455556666"}': {} },
      },
      'f:ports': {},
    },
  };
  const uid = (kind: number): string =>
    `${index.toString(16).padStart(8, '0')}-0000-4000-8000-00000000000${kind}`;
  const endpoint = (n: number): object => ({
    addresses: [`10.${100 + (index >> 12)}.${(index >> 4) & 255}.${(index & 15) * 16 + n}`],
    conditions: { ready: true, serving: true, terminating: false },
    nodeName: `node-${(index * 5 + n) % 5000}.example.internal`,
    zone: `zone-${n % 3}`,
    targetRef: { kind: 'Pod', namespace, name: `${name}-${n}`, uid: uid(n) },
  });
  return {
    metadata: {
      name,
      generateName: `service-${index}-`,
      namespace,
      uid: uid(9),
      resourceVersion: String(1000 + index),
      generation: 3,
      creationTimestamp: '2026-11-01T00:00:00Z',
      labels: {
        'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
        'kubernetes.io/service-name': `service-${index}`,
        app: `service-${index}`,
      },
      annotations: {
        'endpoints.kubernetes.io/last-change-trigger-time': '2026-11-01T00:00:00Z',
      },
      ownerReferences: [
        {
          apiVersion: 'v1',
          kind: 'Service',
          name: `service-${index}`,
          uid: uid(8),
          controller: true,
          blockOwnerDeletion: true,
        },
      ],
      managedFields: [managed],
    },
    addressType: 'IPv4',
    endpoints: [0, 1, 2, 3, 4].map(endpoint),
    ports: [{ name: 'http', protocol: 'TCP', port: 8080 }],
  };
}

await main(process.argv.slice(2));
