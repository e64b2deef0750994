import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { watchRules, type TableWatch } from './table-watch.ts';

const sys = await openSys();
const die = (error: Error): never => {
  throw error;
};

let netns: ScratchNetns;
let watcher: TableWatch;
let changes = 0;

beforeEach(async () => {
  netns = await createScratchNetns('pw-nftmon');
  changes = 0;
  const rules = {
    concerns: ({ table }: { readonly table: string }) => table === 'podwire-test',
    programs: ['nft'],
  };
  watcher = withNetns(sys, netns.path, () => watchRules(sys, rules, () => changes++), die);
});
afterEach(async () => {
  watcher[Symbol.dispose]();
  await netns[Symbol.asyncDispose]();
});

/** Runs nft commands, one after the other. */
async function nft(...commands: readonly string[]): Promise<void> {
  for (const command of commands) await netns.exec('nft', command.split(' '));
}

describe('watchRules()', () => {
  test('tells of changes to our table by whatever means', async () => {
    const steps = [
      'add table inet podwire-test',
      'add set inet podwire-test pods { type ipv4_addr; }',
      'add element inet podwire-test pods { 10.0.0.1 }',
      'delete element inet podwire-test pods { 10.0.0.1 }',
      'add chain inet podwire-test pre',
      'add rule inet podwire-test pre accept',
      'flush chain inet podwire-test pre',
      'flush ruleset',
    ];
    for (const step of steps) {
      const before = changes;
      await nft(step);
      await expect.poll(() => changes, { message: step }).toBeGreaterThan(before);
    }
  });

  test("is silent about others' tables", async () => {
    await nft('add table inet other', 'add chain inet other pre', 'delete table inet other');
    expect(changes).toBe(0);
    // Events come in order: once ours is seen, those before it have been looked at.
    await nft('add table inet podwire-test');
    await expect.poll(() => changes).toBeGreaterThan(0);
    expect(changes).toBe(1);
  });

  test('is silent about a write of ours, and not about what others did before it', async () => {
    await nft('add table inet podwire-test');
    await watcher.exempt(async () => {
      expect(changes).toBe(1);
      await nft('add chain inet podwire-test pre');
    });
    expect(changes).toBe(1);
    await nft('delete chain inet podwire-test pre');
    await expect.poll(() => changes).toBe(2);
  });
});
