import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { buildExecutable } from '#cmd/podwire-cni/scratch-node.ts';
import { fuzzDirectory } from './fuzz-config.ts';
import type { FuzzReport } from './fuzz-worker.ts';
import { createRuntimeNode, type RuntimeNode } from './runtime-node.ts';

/** Another seed makes other cases; a failure names the number of its case. */
const seed = process.env['PODWIRE_SEED'] ?? '1';

let node: RuntimeNode;

beforeAll(buildExecutable);
beforeEach(async () => {
  node = await createRuntimeNode();
  // A case may name any path: all of the machine is read-only but what the node has of its own.
  const pods = [0, 1, 2].map((i) => `ip netns add pod-${i}`);
  const script = ['mount -o remount,bind,ro /', `mkdir ${fuzzDirectory}`, ...pods].join(' && ');
  await node.exec('sh', ['-c', script]);
});
afterEach(() => node[Symbol.asyncDispose]());

async function fuzz(mode: string, cases: number): Promise<FuzzReport> {
  const worker = join(import.meta.dirname, 'fuzz-worker.ts');
  const words = [worker, mode, String(cases), seed, node.binDir];
  const { stdout } = await node.exec(process.execPath, words, { timeoutMs: 800_000 });
  return JSON.parse(stdout) as FuzzReport;
}

/** Files where none belong. */
async function strayFiles(): Promise<string[]> {
  const own = ['networks', 'state', 'tuning', 'missing', '*.json', 'resolv.conf', 'progress'];
  // A configuration may say that leases belong below the working directory, or beside it.
  const relative = ['cwd/*/*', 'net', '.podwire', '.podwire-resting', 'attachments'];
  const places = [
    ...[...own, ...relative].map((name) => `${fuzzDirectory}/${name}`),
    '/run/cni',
    '/run/netns',
    '/run/podwire',
    '/run/xtables.lock',
    '/var/lib/cni',
    '/var/lib/podwire',
  ];
  const excluded = places.flatMap((place) => ['-path', place, '-prune', '-o']);
  const { stdout } = await node.exec('find', [
    '/run',
    '/var/lib',
    ...excluded,
    '-type',
    'f',
    '-print',
  ]);
  return stdout.split('\n').filter((line) => line !== '');
}

describe('whatever a plugin is given, it answers as the specification says', () => {
  it('in 100,000 calls', async () => {
    const report = await fuzz('in-process', 100_000);
    expect(report.problems.slice(0, 10)).toEqual([]);
    expect(report.successes).toBeGreaterThan(10_000);
    expect(report.slowestMs).toBeLessThan(10_000);
    expect(await strayFiles()).toEqual([]);
  });

  it('in 300 calls of the executable', async () => {
    const report = await fuzz('executable', 300);
    expect(report.problems.slice(0, 10)).toEqual([]);
    expect(report.successes).toBeGreaterThan(30);
    expect(await strayFiles()).toEqual([]);
  });
});
