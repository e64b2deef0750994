import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { applyNftables } from './apply.ts';
import { observeNftables, type NftCommand } from './observe.ts';
import { planNftables } from './plan.ts';
import type { ElementSet, Ruleset, Table } from './ruleset.ts';

let netns: ScratchNetns;
let nft: NftCommand;
let calls: string[] = [];
const { signal } = new AbortController();
const name = { family: 'inet', name: 'podwire-test' } as const;

beforeEach(async () => {
  netns = await createScratchNetns('pw-nft');
  calls = [];
  nft = async (args, input) => {
    calls.push(args.join(' '));
    const output = await netns.exec('nft', args, input === undefined ? {} : { input });
    return output.stdout;
  };
});
afterEach(() => netns[Symbol.asyncDispose]());

function ruleset(pods: readonly string[], services: readonly [string, string][] = []): Ruleset {
  const set = (fields: Partial<ElementSet>): ElementSet => ({
    name: 'pods4',
    type: 'ipv4_addr',
    interval: true,
    elements: new Set(pods),
    ...fields,
  });
  const table: Table = {
    ...name,
    sets: [
      set({}),
      set({ name: 'pods6', type: 'ipv6_addr', elements: new Set(['fd00::/64', 'fd00:1::1']) }),
      set({ name: 'empty', elements: new Set() }),
      set({
        name: 'pairs',
        type: 'ipv4_addr . ipv4_addr',
        interval: false,
        elements: new Set(['10.0.0.1 . 10.0.0.2']),
      }),
    ],
    maps: [
      {
        name: 'services',
        type: 'ipv4_addr . inet_proto . inet_service',
        valueType: 'verdict',
        interval: false,
        elements: new Map(services),
      },
      {
        name: 'ports',
        type: 'inet_proto . inet_service',
        valueType: 'ipv4_addr . inet_service',
        interval: false,
        elements: new Map([['tcp . 8080', '10.0.0.1 . 80']]),
      },
    ],
    chains: [
      { name: 'web', rules: [{ text: 'counter accept', why: 'counted' }] },
      {
        name: 'prerouting',
        base: { type: 'filter', hook: 'prerouting', priority: -5, policy: 'accept' },
        rules: [
          { text: 'ip daddr . meta l4proto . th dport vmap @services', why: 'services' },
          { text: 'meta mark & 0x4000 == 0x4000 return', why: "somebody's mark" },
        ],
      },
      {
        name: 'postrouting',
        base: { type: 'nat', hook: 'postrouting', priority: 99, policy: 'accept' },
        rules: [
          { text: 'ip saddr @pods4 ip daddr != @pods4 masquerade fully-random', why: 'leaves' },
        ],
      },
    ],
  };
  return { tables: [table] };
}

/** One round as a daemon makes it; the operations it took. */
async function converge(want: Ruleset): Promise<string[]> {
  const steps = planNftables(want, await observeNftables(nft, [name], signal));
  await applyNftables(nft, steps, signal);
  return steps.map(({ op }) => op);
}

/** The kernel gives a table a new one each time it is made. */
async function tableHandle(): Promise<string | undefined> {
  const { stdout } = await netns.exec('nft', ['-a', 'list', 'table', 'inet', 'podwire-test']);
  return /# handle (\d+)/.exec(stdout)?.[1];
}

describe('nftables on the real kernel', () => {
  const first = ruleset(['10.0.0.0/24', '10.0.1.0/24'], [['10.1.0.1 . tcp . 80', 'goto web']]);

  test('after apply nothing is left to do: the kernel reads back what we wanted', async () => {
    expect(await converge(first)).toEqual(['replaceTable']);
    expect(await converge(first)).toEqual([]);
  });

  test('elements change without replacing the table', async () => {
    await converge(first);
    const handle = await tableHandle();
    const want = ruleset(
      ['10.0.0.0/16', '192.168.0.1'],
      [
        ['10.1.0.1 . tcp . 80', 'drop'],
        ['10.1.0.2 . udp . 53', 'goto web'],
      ],
    );
    expect(await converge(want)).toEqual([
      'deleteElements',
      'deleteElements',
      'addElements',
      'addElements',
    ]);
    expect(await converge(want)).toEqual([]);
    // A range is split again: what overlaps goes first, in the same transaction.
    expect(await converge(first)).toHaveLength(4);
    expect(await converge(first)).toEqual([]);
    expect(await tableHandle()).toBe(handle);
  });

  test.each([
    ['a rule more', 'add rule inet podwire-test postrouting drop'],
    ['a chain less', 'flush chain inet podwire-test web'],
    ['a set more', 'add set inet podwire-test more { type mark; }'],
    ['an element less', 'delete element inet podwire-test pods4 { 10.0.0.0/24 }'],
    ['an element more', 'add element inet podwire-test pods4 { 10.9.0.0-10.9.0.9 }'],
    ['everything gone', 'flush ruleset'],
  ])('heals %s', async (_, command) => {
    await converge(first);
    await netns.exec('nft', command.split(' '));
    expect(await converge(first)).toHaveLength(1);
    expect(await converge(first)).toEqual([]);
  });

  test('leaves the tables of others alone, also when ours goes', async () => {
    const foreign = 'table ip foreign {\nset s {\ntype ipv4_addr\nelements = { 10.0.0.1 }\n}\n}\n';
    await netns.exec('nft', ['-f', '-'], { input: foreign });
    const before = (await netns.exec('nft', ['list', 'table', 'ip', 'foreign'])).stdout;
    await converge(first);
    await converge(ruleset(['10.7.0.0/24']));
    expect(await converge({ tables: [] })).toEqual(['deleteTable']);
    const { stdout } = await netns.exec('nft', ['list', 'ruleset']);
    expect(stdout).toBe(before);
  });

  test('a refused transaction changes nothing', async () => {
    await converge(first);
    const gone = {
      op: 'deleteElements',
      table: name,
      set: 'pods4',
      elements: ['1.1.1.1'],
    } as const;
    const added = { ...gone, op: 'addElements', elements: ['10.8.0.0/24'] } as const;
    await expect(applyNftables(nft, [added, gone], signal)).rejects.toThrow('1.1.1.1');
    expect(await converge(first)).toEqual([]);
  });

  test('a table that is not there costs one listing, and nothing is no command at all', async () => {
    expect(await observeNftables(nft, [name], signal)).toEqual([]);
    expect(calls).toEqual(['-j list tables']);
    await applyNftables(nft, [], signal);
    expect(calls).toHaveLength(1);
  });

  test('4,000 ranges load, read back equal, and one more is one element', async () => {
    const ranges = Array.from({ length: 4000 }, (_, i) => `10.${i >> 8}.${i & 255}.0/24`);
    await converge(ruleset(ranges));
    expect(await converge(ruleset(ranges))).toEqual([]);
    expect(await converge(ruleset([...ranges, '11.0.0.0/24']))).toEqual(['addElements']);
  });
});
