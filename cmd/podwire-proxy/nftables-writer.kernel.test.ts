/** The law of every driver, on the real kernel: after a write there is nothing left to write. */
import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { patience } from '#hack/vm/patience.ts';
import { families, type Family } from '#pkg/ip/address.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { renderTable } from '#pkg/nftables/render.ts';
import { proxySkeleton } from '#pkg/proxy/nftables-base.ts';
import { contentsOf } from '#pkg/proxy/nftables-ruleset.ts';
import { affinityMap, proxyTableName } from '#pkg/proxy/nftables-sets.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { portsOf, service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { sixServices } from '#pkg/proxy/testdata/six-services.ts';
import { differs } from './nftables-watch.ts';
import type { NftablesWriter } from './nftables-writer.ts';
import { nftablesTestOptions } from './scratch/nftables-inputs.ts';
import { createNftablesRig, type NftablesRig } from './scratch/nftables-rig.ts';
import { createRandom, randomPort, type Random } from './scratch/random-ports.ts';

const signal = new AbortController().signal;
const node = undefined;
let netns: ScratchNetns;
const rigs: NftablesRig[] = [];

beforeEach(async () => {
  netns = await createScratchNetns('pw-nftw');
});
afterEach(async () => {
  for (const rig of rigs.splice(0)) rig[Symbol.dispose]();
  await netns[Symbol.asyncDispose]();
});

function rigFor(family: Family): NftablesRig {
  const rig = createNftablesRig(netns, family);
  rigs.push(rig);
  return rig;
}

const { maps, sets: plainSets } = proxySkeleton(nftablesTestOptions(), []);
const proxySetNames = [...plainSets, ...maps].map(({ name }) => name);

/** Every element the kernel has, but for remembered clients. */
function observed(
  { driver }: NftablesRig,
  sets: readonly string[] = proxySetNames,
): Map<string, Map<string, string>> {
  const contents = new Map<string, Map<string, string>>();
  for (const set of sets) {
    const elements = new Map<string, string>();
    for (const part of driver.read(set)) {
      for (const { key, value } of part) elements.set(key, value ?? '');
    }
    if (elements.size > 0) contents.set(set, elements);
  }
  return contents;
}

function sorted(contents: ReadonlyMap<string, ReadonlyMap<string, string>>): unknown {
  const entries = [...contents].map(
    ([set, elements]) => [set, [...elements].toSorted(([a], [b]) => (a < b ? -1 : 1))] as const,
  );
  return entries.toSorted(([a], [b]) => (a < b ? -1 : 1));
}

function everythingIsWritten(
  rig: NftablesRig,
  ports: ReadonlyMap<string, ProxiedPort>,
  family: Family,
  sets = proxySetNames,
): void {
  const have = sorted(observed(rig, sets));
  const want = sorted(contentsOf(ports, nftablesTestOptions({ family })));
  // The matcher that explains takes longer than the kernel.
  if (JSON.stringify(have) !== JSON.stringify(want)) expect(have).toEqual(want);
}

describe('the nftables writer', () => {
  it.each(families)(
    'writes what is wanted; a second one has nothing to write (%s)',
    async (family) => {
      const rig = rigFor(family);
      const ports = portsOf(sixServices, family);
      const first = await rig.newWriter().write({ ports, changed: 'all', node }, signal);
      expect(first.kind).toBe('full');
      everythingIsWritten(rig, ports, family);
      const generation = rig.generations.look().number;
      const second = await rig.newWriter().write({ ports, changed: 'all', node }, signal);
      expect(second).toEqual({ kind: 'full', written: 0 });
      expect(rig.generations.look().number).toBe(generation);
    },
  );

  it.each(families)('leaves nft able to read, for everybody (%s)', async (family) => {
    const rig = rigFor(family);
    const vips = ['172.30.0.41', 'fd00:96::41'];
    const sticky = service('ns/sticky', { clusterIPs: vips, affinitySeconds: 60 });
    const endpoints = [slice('ns/sticky', ['10.1.0.1']), slice('ns/sticky', ['fd00:10::1'])];
    const ports = portsOf({ services: [sticky], slices: endpoints }, family);
    await rig.newWriter().write({ ports, changed: 'all', node }, signal);
    const skeleton = renderTable(proxySkeleton(nftablesTestOptions({ family }), []));
    await rig.nft(['--check', '-f', '-'], skeleton, signal);
    await rig.nft(['-f', '-'], 'table inet other { set s { type ipv4_addr; }; }', signal);
    expect(await rig.nft(['list', 'ruleset'], undefined, signal)).toContain(proxyTableName);
  });

  it('S110. a new process writes only what differs', async () => {
    const rig = rigFor('ip');
    const before = portsOf(sixServices, 'ip');
    await rig.newWriter().write({ ports: before, changed: 'all', node }, signal);
    const [key = ''] = before.keys();
    const fewer = new Map([...before].filter(([name]) => name !== key));
    const { written } = await rig.newWriter().write({ ports: fewer, changed: 'all', node }, signal);
    // Its place among the plain ones, its class, its slot, its address.
    expect(written).toBe(4);
    everythingIsWritten(rig, fewer, 'ip');
  });

  it('replaces a table that is built otherwise, in one transaction', async () => {
    const rig = rigFor('ip');
    const ports = portsOf(sixServices, 'ip');
    await rig.newWriter({ masqueradeBit: 15 }).write({ ports, changed: 'all', node }, signal);
    const writer = rig.newWriter();
    await writer.write({ ports, changed: 'all', node }, signal);
    everythingIsWritten(rig, ports, 'ip');
    expect(await rig.nft(['list', 'ruleset'], undefined, signal)).not.toContain('0x00008000');
    expect(found(writer, rig)).toBeUndefined();
  });

  it.each([
    ['the whole ruleset', 'flush ruleset', 'the table is gone'],
    ['our table', `delete table ip ${proxyTableName}`, 'the table is gone'],
    ['a rule', `flush chain ip ${proxyTableName} services`, 'rules, chains or sets differ'],
    ['elements', `flush set ip ${proxyTableName} plain-services`, 'plain-services has 0'],
    [
      'a chain',
      `flush map ip ${proxyTableName} affinity-services
      flush map ip ${proxyTableName} affinity-node-ports
      flush chain ip ${proxyTableName} remember-10800
      delete chain ip ${proxyTableName} remember-10800`,
      'a chain is gone',
    ],
  ])('sees that somebody deleted %s, and puts it back', async (_, script, finding) => {
    const rig = rigFor('ip');
    const ports = portsOf(sixServices, 'ip');
    const writer = rig.newWriter();
    await writer.write({ ports, changed: 'all', node }, signal);
    expect(found(writer, rig)).toBeUndefined();
    const sizes = [...(rig.driver.structure()?.sets.values() ?? [])];
    await rig.nft(['-f', '-'], script, signal);
    // Kernels before 6.16 do not count elements: the watch reads them all then, later.
    const isSeen = sizes.some((size) => size !== undefined) || !finding.includes(' has ');
    if (isSeen) expect(found(writer, rig)).toContain(finding);
    else expect(found(writer, rig)).toBeUndefined();
    writer.doubt();
    await writer.write({ ports, changed: new Set(), node }, signal);
    everythingIsWritten(rig, ports, 'ip');
    expect(found(writer, rig)).toBeUndefined();
  });

  it('heals at once where a change meets a table that is not as it was', async () => {
    const rig = rigFor('ip');
    const before = portsOf(sixServices, 'ip');
    const writer = rig.newWriter();
    await writer.write({ ports: before, changed: 'all', node }, signal);
    await rig.nft(['-f', '-'], `flush map ip ${proxyTableName} endpoints`, signal);
    const [key = ''] = before.keys();
    const ports = new Map([...before].filter(([name]) => name !== key));
    // The slot to delete is not there: the kernel refuses, and the writer looks at everything.
    const report = await writer.write({ ports, changed: new Set([key]), node }, signal);
    expect(report.kind).toBe('full');
    everythingIsWritten(rig, ports, 'ip');
  });

  it("tells its own transactions from others'", async () => {
    const rig = rigFor('ip');
    const ports = portsOf(sixServices, 'ip');
    const writer = rig.newWriter();
    await writer.write({ ports, changed: 'all', node }, signal);
    rig.generations.trust(rig.generations.look().number);
    const [key = ''] = ports.keys();
    await writer.write({ ports: new Map(), changed: new Set([key]), node }, signal);
    expect(rig.generations.look().isFamiliar).toBe(true);
    await rig.nft(['-f', '-'], 'add table inet other', signal);
    expect(rig.generations.look().isFamiliar).toBe(false);
    await writer.write({ ports, changed: new Set([key]), node }, signal);
    expect(rig.generations.look().isFamiliar).toBe(false);
  });

  it('forgets clients whose endpoint is gone, and no others', async () => {
    const rig = rigFor('ip');
    const sticky = (endpoints: string[]): Cluster => ({
      services: [service('a/b', { clusterIPs: ['10.96.0.1'], affinitySeconds: 60 })],
      slices: [slice('a/b', endpoints)],
    });
    const writer = rig.newWriter();
    const all = portsOf(sticky(['10.1.0.1', '10.1.0.2']), 'ip');
    await writer.write({ ports: all, changed: 'all', node }, signal);
    const remember = (client: string, endpoint: string): string =>
      `add element ip ${proxyTableName} ${affinityMap} { 10.96.0.1 . tcp . 80 . ${client} timeout 60s : ${endpoint} . 80 }\n`;
    const script = remember('10.1.9.1', '10.1.0.1') + remember('10.1.9.2', '10.1.0.2');
    await rig.nft(['-f', '-'], script, signal);
    const fewer = portsOf(sticky(['10.1.0.2']), 'ip');
    await writer.write({ ports: fewer, changed: new Set(['a/b:p80/tcp']), node }, signal);
    const clients = [...rig.driver.read(affinityMap)].flat().map(({ key }) => key);
    expect(clients).toEqual(['10.96.0.1 . tcp . 80 . 10.1.9.2']);
    // A new process knows nothing of the past, and finds what must go by itself.
    await rig.nft(['-f', '-'], remember('10.1.9.3', '10.1.0.1'), signal);
    await rig.newWriter().write({ ports: fewer, changed: 'all', node }, signal);
    expect([...rig.driver.read(affinityMap)].flat()).toHaveLength(1);
  });

  it('loads many Services in slices: others have their turn between', async () => {
    const rig = rigFor('ip');
    const many = Array.from({ length: 2_000 }, (_, i) => i);
    const ports = portsOf(
      {
        services: many.map((i) =>
          service(`ns/s${i}`, { clusterIPs: [`10.96.${i >> 8}.${i & 255}`] }),
        ),
        slices: many.map((i) =>
          slice(`ns/s${i}`, [`10.1.${i >> 8}.${i & 255}`, `10.2.${i >> 8}.${i & 255}`]),
        ),
      },
      'ip',
    );
    await rig.newWriter().write({ ports: new Map(), changed: 'all', node }, signal);
    let turns = 0;
    let isDone = false;
    const others = (async () => {
      for (; !isDone; turns++) await setImmediate();
    })();
    const { written } = await rig.newWriter().write({ ports, changed: 'all', node }, signal);
    isDone = true;
    await others;
    expect(written).toBe(2_000 * 5);
    expect(turns).toBeGreaterThanOrEqual(written / 1_000 - 1);
  });

  it.each(families)(
    '1,000 random changes end with nothing left to write (%s)',
    async (family) => {
      const rig = rigFor(family);
      const random = createRandom(family === 'ip' ? 1 : 2);
      // No port has more than 40 endpoints: sets of larger classes are looked at once, at the end.
      const used = proxySetNames.filter((name) => !(Number(/\d+$/.exec(name)?.[0]) > 64));
      const ports = new Map<string, ProxiedPort>();
      const writer = rig.newWriter();
      await writer.write({ ports, changed: 'all', node }, signal);
      for (let sequence = 0; sequence < 500; sequence++) {
        const changed = changeSome(ports, { random, family });
        const report = await writer.write({ ports, changed, node }, signal);
        expect(report.kind).toBe('partial');
        everythingIsWritten(rig, ports, family, used);
      }
      everythingIsWritten(rig, ports, family);
      expect(found(writer, rig)).toBeUndefined();
      // What a restart would do: nothing.
      const again = await rig.newWriter().write({ ports, changed: 'all', node }, signal);
      expect(again.written).toBe(0);
    },
    patience(240_000),
  );
});

function found(writer: NftablesWriter, { driver }: NftablesRig): string | undefined {
  const { expected } = writer;
  if (expected === undefined) throw new Error('the writer is at work');
  return differs(expected, driver.structure());
}

/** One to six ports come, go or change. */
function changeSome(
  ports: Map<string, ProxiedPort>,
  { random, family }: { readonly random: Random; readonly family: Family },
): Set<string> {
  const changed = new Set<string>();
  for (let left = random.below(6); left >= 0; left--) {
    const [key, port] = randomPort(random, family);
    changed.add(key);
    if (random.below(4) === 0) ports.delete(key);
    else ports.set(key, port);
  }
  return changed;
}
