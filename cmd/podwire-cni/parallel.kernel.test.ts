import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { giveInput } from '#cmd/scratch/give-input.ts';
import { scratchName } from '#pkg/netns/scratch.ts';
import {
  buildExecutable,
  createScratchNode,
  goPluginDir,
  writeNodeFacts,
  type CniOutcome,
  type ScratchNode,
} from './scratch-node.ts';

const count = 100;
const prefix = scratchName('pw-cni-many');
const numbers = Array.from({ length: count }, (_, i) => i);

let node: ScratchNode;
beforeAll(buildExecutable);
beforeEach(async () => {
  node = await createScratchNode();
  writeNodeFacts(node, ['10.244.1.0/24', 'fd00:10:244:1::/64']);
  shell(`for i in $(seq 0 ${count - 1}); do ip netns add ${prefix}-$i; done`);
});
afterEach(async () => {
  shell(`for i in $(seq 0 ${count - 1}); do ip netns del ${prefix}-$i; done`);
  await node[Symbol.asyncDispose]();
});

function shell(script: string): void {
  execFileSync('sh', ['-c', script], { stdio: ['ignore', 'ignore', 'inherit'] });
}

function config(): object {
  const { dataDir, nodeFile, stateDir } = node;
  const ipam = { dataDir };
  return { cniVersion: '1.0.0', name: 'net', type: 'podwire', nodeFile, stateDir, ipam };
}

function call(command: string, i: number): Promise<CniOutcome> {
  const netns = `/run/netns/${prefix}-${i}`;
  return node.cni('podwire', { command, id: `pod-${i}`, netns, config: config() });
}

describe(`${count} pods at once`, () => {
  it('85. get different addresses on a fresh node, and leave nothing behind', async () => {
    const added = await Promise.all(numbers.map((i) => call('ADD', i)));
    expect(added.filter((outcome) => outcome.exitCode !== 0)).toEqual([]);
    for (const index of [0, 1]) {
      expect(new Set(added.map(({ json }) => json.ips[index]?.address)).size).toBe(count);
    }
    expect(new Set(added.map(({ json }) => json.interfaces[1]?.name)).size).toBe(count);
    expect(node.leases()).toHaveLength(2 * count);

    const deleted = await Promise.all(numbers.map((i) => call('DEL', i)));
    expect(deleted.filter((outcome) => outcome.exitCode !== 0)).toEqual([]);
    expect(node.leases()).toEqual([]);
    expect(await node.netns.ip('-br link')).not.toContain('veth');
  });

  it('of ours and of Go, taking turns, share the addresses without a duplicate', async () => {
    const ranges = [[{ subnet: '10.244.1.0/24' }]];
    const ipam = { type: 'host-local', dataDir: node.dataDir, ranges };
    const conf = { cniVersion: '1.0.0', name: 'net', type: 'bridge', isGateway: true, ipam };
    const outcomes = await Promise.all(
      numbers.slice(0, 40).map((i) =>
        node.cni('bridge', {
          id: `pod-${i}`,
          netns: `/run/netns/${prefix}-${i}`,
          config: conf,
          ...(i % 2 === 0 ? {} : { program: `${goPluginDir}/bridge` }),
        }),
      ),
    );
    expect(outcomes.filter((outcome) => outcome.exitCode !== 0)).toEqual([]);
    expect(new Set(outcomes.map(({ json }) => json.ips[0]?.address)).size).toBe(40);
  });
});

describe('an ADD that is killed', () => {
  it('144. at any moment leaves nothing after its DEL', async () => {
    await call('ADD', 0);
    const before = await node.snapshot([]);
    for (let i = 1; i <= 40; i++) {
      await startAndKill(i, i / 2);
      expect(await call('DEL', i)).toEqual({ exitCode: 0, json: undefined, stderr: '' });
    }
    expect(await node.snapshot([])).toEqual(before);
    expect(await call('ADD', 1)).toMatchObject({ exitCode: 0 });
  });
});

/** Starts an ADD and kills it a few milliseconds later, wherever it is then. */
async function startAndKill(i: number, afterMs: number): Promise<void> {
  const child = spawn('nsenter', [`--net=${node.netns.path}`, join(node.binDir, 'podwire')], {
    env: {
      CNI_COMMAND: 'ADD',
      CNI_CONTAINERID: `pod-${i}`,
      CNI_NETNS: `/run/netns/${prefix}-${i}`,
      CNI_IFNAME: 'eth0',
      PATH: process.env['PATH'],
    },
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  giveInput(child.stdin, JSON.stringify(config()));
  await sleep(afterMs);
  const ended = child.exitCode === null ? once(child, 'exit') : undefined;
  child.kill('SIGKILL');
  await ended;
}
