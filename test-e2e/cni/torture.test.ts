import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  buildExecutable,
  createScratchNode,
  writeNodeFacts,
  type ScratchNode,
} from '#cmd/podwire-cni/scratch-node.ts';
import { scratchName } from '#pkg/netns/scratch.ts';
import { createRandom } from './random.ts';
import { createTorture, type LivePod, type Slot } from './torture.ts';

/** `PODWIRE_TORTURE=10000` makes so many calls; the seed of a run that failed makes its choices. */
const calls = Number(process.env['PODWIRE_TORTURE'] ?? 1_000);
const seed = Number(process.env['PODWIRE_SEED'] ?? 1);
const rounds = 4;
const workers = 8;
const prefix = scratchName('pw-torture');

let node: ScratchNode;
let slots: readonly Slot[];

beforeAll(buildExecutable);
beforeEach(async () => {
  node = await createScratchNode();
  writeNodeFacts(node, ['10.244.0.0/16', 'fd00:10:244:1::/64']);
  slots = Array.from({ length: 24 }, (_, i) => createSlot(`${prefix}-${i}`));
});
afterEach(async () => {
  for (const { netns } of slots) ip(`netns delete ${netns.replace(/.*\//, '')}`);
  await node[Symbol.asyncDispose]();
});

function createSlot(name: string): Slot {
  ip(`netns add ${name}`);
  return {
    netns: `/run/netns/${name}`,
    renew() {
      ip(`netns delete ${name}`);
      ip(`netns add ${name}`);
    },
  };
}

function ip(words: string): void {
  execFileSync('ip', words.split(' '), { stdio: ['ignore', 'ignore', 'inherit'] });
}

/** What the machine holds for pods, by name. */
async function holdings(): Promise<Holdings> {
  const links = JSON.parse(await node.netns.ip('-j link')) as { ifname: string }[];
  const { stdout: ruleset } = await node.netns.exec('nft', ['list', 'ruleset']);
  return {
    leases: node.leases(),
    links: links.map(({ ifname }) => ifname).filter((name) => name.startsWith('veth')),
    others: links.map(({ ifname }) => ifname).filter((name) => !name.startsWith('veth')).length,
    ruleOwners: [...new Set(ruleset.match(/\bpod-\d+\b/g))],
    namespaces: readFileSync('/proc/self/mountinfo', 'utf8').split(prefix).length - 1,
  };
}

interface Holdings {
  readonly leases: readonly string[];
  readonly links: readonly string[];
  readonly others: number;
  readonly ruleOwners: readonly string[];
  readonly namespaces: number;
}

/** What is there is of the live pods, and of each of them. */
function expectHoldings(
  have: Holdings,
  live: readonly LivePod[],
  { namespaces, hasRules }: { readonly namespaces: number; readonly hasRules: boolean },
): void {
  const sorted = (names: readonly string[]): string[] => names.toSorted();
  expect(sorted(have.leases)).toEqual(sorted(live.flatMap(({ addresses }) => addresses)));
  expect(sorted(have.links)).toEqual(sorted(live.map(({ hostLink }) => hostLink)));
  const owners = hasRules ? live.map(({ containerId }) => containerId) : [];
  expect(sorted(have.ruleOwners)).toEqual(sorted(owners));
  expect(have.namespaces).toBe(namespaces);
}

/** Each takes its share of the calls. */
const networks = {
  podwire: {
    // A pod that was lost keeps its port until GC: no two get the same.
    runtimeConfig: (podNumber: number) => ({
      portMappings: [
        { hostPort: 20_000 + (podNumber % 40_000), containerPort: 80, protocol: 'tcp' },
      ],
      ...(podNumber % 4 === 0 ? { bandwidth: { ingressRate: 8e6, ingressBurst: 8e6 } } : {}),
    }),
    configuration: () => ({
      type: 'podwire',
      nodeFile: node.nodeFile,
      stateDir: node.stateDir,
      capabilities: { portMappings: true, bandwidth: true },
      ipam: { dataDir: node.dataDir },
    }),
    share: 0.7,
    hasRules: true,
  },
  bridge: {
    runtimeConfig: () => ({}),
    configuration: () => ({
      type: 'bridge',
      isDefaultGateway: true,
      ipam: {
        type: 'host-local',
        dataDir: node.dataDir,
        ranges: [[{ subnet: '10.9.0.0/16' }], [{ subnet: 'fd00:9::/64' }]],
      },
    }),
    share: 0.3,
    hasRules: false,
  },
} as const;

describe(`${calls} calls in random order on ${workers} workers, many killed`, () => {
  it.each(['podwire', 'bridge'] as const)(
    '144. leave of %s nothing that GC does not find',
    async (type) => {
      const { configuration, runtimeConfig, share, hasRules } = networks[type];
      const network = { cniVersion: '1.1.0', name: 'net', ...configuration() };
      const random = createRandom(seed);
      const torture = createTorture({ node, slots, network, runtimeConfig, workers, random });
      const callsPerRound = Math.ceil((calls * share) / rounds);
      const before = await holdings();
      for (let round = 0; round < rounds; round++) {
        expect(await torture.run(callsPerRound)).toEqual([]);
        expect(await torture.collectGarbage()).toBe('');
        expectHoldings(await holdings(), torture.live(), { ...before, hasRules });
      }
      expect(torture.live().length).toBeGreaterThan(0);
      expect(torture.counts.killed).toBeGreaterThan(callsPerRound / 5);
      expect(await torture.deleteAll()).toEqual([]);
      expect(await torture.collectGarbage()).toBe('');
      // The bridge stays.
      expect(await holdings()).toEqual({ ...before, others: before.others + 1 });
      process.stderr.write(`torture of ${type}: ${JSON.stringify(torture.counts)}\n`);
    },
    120_000 + calls * 300,
  );
});
