import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { giveInput } from '#cmd/scratch/give-input.ts';
import { bundle } from '#hack/bundle.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { eachOnScratchNode } from './scratch-each.ts';
import { writeNodeFacts, type ScratchNode } from './scratch-node.ts';
import { everythingOn, records, settledOn } from './scratch-traffic.ts';

/**
 * ADD from its source, killed at every system call that changes something; then DEL by the built
 * executable, as a runtime calls it. What a second pod shares with the first (bridge, tables) is
 * there before.
 */
let node: ScratchNode;
eachOnScratchNode((fresh) => {
  node = fresh;
  writeNodeFacts(node, ['10.244.1.0/24', 'fd00:10:244:1::/64']);
});

/** As one file it starts in half the time, and it is started for every call. */
const directory = mkdtempSync(join(tmpdir(), 'podwire-crash-'));
const script = join(directory, 'scratch-crash.mjs');
beforeAll(() => bundle('cmd/podwire-cni/scratch-crash.ts', script, '0.0.0-test'));
afterAll(() => rmSync(directory, { recursive: true }));

const runtimeConfig = {
  portMappings: [
    { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
    { hostPort: 5353, containerPort: 53, protocol: 'udp', hostIP: '192.0.2.1' },
  ],
  bandwidth: { ingressRate: 8e6, ingressBurst: 8e5, egressRate: 8e6, egressBurst: 8e5 },
};

function configOf(more: object): object {
  return {
    cniVersion: '1.1.0',
    name: 'podwire',
    type: 'podwire',
    nodeFile: node.nodeFile,
    stateDir: node.stateDir,
    ipam: { dataDir: node.dataDir },
    runtimeConfig,
    sysctl: { 'net.ipv4.conf.IFNAME.log_martians': '1' },
    ...more,
  };
}

interface Death {
  readonly signal: NodeJS.Signals | null;
  /** How many calls there were; of one that lived. */
  readonly calls: number;
}

/** Runs ADD until its n-th call. */
async function addUntil(n: number, pod: ScratchNetns, config: object): Promise<Death> {
  const args = [process.execPath, '--disable-warning=ExperimentalWarning', script];
  const child = spawn('nsenter', [`--net=${node.netns.path}`, ...args, 'podwire', String(n)], {
    env: {
      ...process.env,
      CNI_COMMAND: 'ADD',
      CNI_CONTAINERID: 'victim',
      CNI_IFNAME: 'eth0',
      CNI_NETNS: pod.path,
      CNI_PATH: node.binDir,
    },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const { promise, resolve } = Promise.withResolvers<NodeJS.Signals | null>();
  child.on('close', (_, signal) => resolve(signal));
  giveInput(child.stdin, JSON.stringify(config));
  const signal = await promise;
  return { signal, calls: Number(output.trim().split('\n').at(-1)) };
}

const minutes = 60_000;

describe('143. 144. ADD killed at every call', () => {
  it.each([
    ['bridge', 'DEL'],
    ['routed', 'GC'],
  ])(
    'mode %s: leaves nothing after %s without a namespace',
    async (mode, command) => {
      const neighbour = await node.pod();
      const config = configOf({ mode });
      const first = {
        ...runtimeConfig,
        portMappings: [{ hostPort: 81, containerPort: 80, protocol: 'tcp' }],
      };
      const there = {
        netns: neighbour.path,
        id: 'first',
        config: { ...config, runtimeConfig: first },
      };
      expect(await node.cni('podwire', there)).toMatchObject({ exitCode: 0 });
      const before = await settledOn(node);
      const clean = async (): Promise<void> => {
        const valid = { 'cni.dev/valid-attachments': [{ containerID: 'first', ifname: 'eth0' }] };
        const more = command === 'GC' ? valid : {};
        const call = { command, id: 'victim', config: { ...config, ...more } };
        expect(await node.cni('podwire', call)).toMatchObject({ exitCode: 0, json: undefined });
      };
      let pod = await node.pod();
      let remembered = 0;
      for (let n = 1; ; n++) {
        const { signal, calls } = await addUntil(n, pod, config);
        if (signal === null) {
          // Each call was hit once, and no fewer than these there must be.
          expect(calls).toBe(n - 1);
          expect(calls).toBeGreaterThan(30);
          await clean();
          break;
        }
        expect(signal).toBe('SIGKILL');
        if ([...records(node).keys()].some((file) => file.includes('victim'))) remembered++;
        await clean();
        expect(await everythingOn(node), `killed at call ${n}`).toEqual(before);
        // As after every ADD that failed: the runtime makes a new namespace.
        if (n % 10 === 0) pod = await node.pod();
      }
      expect(remembered).toBeGreaterThan(10);
      expect(await everythingOn(node)).toEqual(before);
    },
    10 * minutes,
  );
});
