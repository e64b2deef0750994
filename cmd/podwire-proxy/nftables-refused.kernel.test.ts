/** Ports that the kernel or nft refuses, on the real kernel: they are left out, the others are served. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { contentsOf } from '#pkg/proxy/nftables-ruleset.ts';
import { proxySetNames } from '#pkg/proxy/nftables-sets.ts';
import { portKey, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { claimant, claimedAddress } from '#pkg/proxy/testdata/claimant.ts';
import { portsOf, service, slice } from '#pkg/proxy/testdata/records.ts';
import { nftablesTestOptions } from './scratch/nftables-inputs.ts';
import { createNftablesRig, type NftablesRig } from './scratch/nftables-rig.ts';

const signal = new AbortController().signal;
let netns: ScratchNetns;
let rig: NftablesRig;

beforeEach(async () => {
  netns = await createScratchNetns('pw-nftref');
  rig = createNftablesRig(netns, 'ip');
});
afterEach(async () => {
  rig[Symbol.dispose]();
  await netns[Symbol.asyncDispose]();
});

/** Twenty ports, of which these have an endpoint that cannot be. */
function ports(...bad: readonly number[]): Map<string, ProxiedPort> {
  const numbers = Array.from({ length: 20 }, (_, i) => i + 1);
  const services = numbers.map((n) => service(`ns/s${n}`, { clusterIPs: [`172.30.0.${n}`] }));
  const all = portsOf(
    { services, slices: numbers.map((n) => slice(`ns/s${n}`, [`10.1.0.${n}`])) },
    'ip',
  );
  for (const n of bad) {
    const port = all.get(key(n));
    if (port === undefined) throw new Error(`no port ${n}`);
    // The model lets no such thing pass.
    const cluster = port.endpoints.cluster.map((endpoint) => ({ ...endpoint, port: 70_000 }));
    all.set(key(n), { ...port, endpoints: { ...port.endpoints, cluster } });
  }
  return all;
}

const key = (n: number): string => `ns/s${n}:p80/tcp`;

/** The kernel has exactly what all ports but these make. */
function expectAllBut(all: ReadonlyMap<string, ProxiedPort>, left: readonly string[]): void {
  const wanted = contentsOf(
    new Map([...all].filter(([name]) => !left.includes(name))),
    nftablesTestOptions(),
  );
  const have = proxySetNames.flatMap((set) =>
    [...rig.driver.read(set)].flat().map(({ key: element }) => `${set} ${element}`),
  );
  const want = [...wanted].flatMap(([set, elements]) =>
    [...elements.keys()].map((element) => `${set} ${element}`),
  );
  expect(have.toSorted()).toEqual(want.toSorted());
}

it('are left out of the first load of a node', async () => {
  const parked: string[] = [];
  const all = ports(7, 19);
  const writer = rig.newWriter({}, (port) => void parked.push(portKey(port)));
  await writer.write({ ports: all, changed: 'all', node: undefined }, signal);
  expect(parked.toSorted()).toEqual([key(19), key(7)]);
  expectAllBut(all, parked);
});

it('are left out of a table that takes the place of another, which serves until then', async () => {
  const before = ports();
  const old = rig.newWriter();
  await old.write({ ports: before, changed: 'all', node: undefined }, signal);
  const generation = rig.generations.look().number;

  const parked: string[] = [];
  const all = ports(7, 19);
  const writer = rig.newWriter({ masqueradeBit: 15 }, (port) => void parked.push(portKey(port)));
  await writer.write({ ports: all, changed: 'all', node: undefined }, signal);
  expect(parked.toSorted()).toEqual([key(19), key(7)]);
  expectAllBut(all, parked);
  // One transaction: all the looking around wrote nothing.
  expect(rig.generations.look().number).toBe(generation + 1);

  // It is served when it is as it should be.
  await writer.write({ ports: before, changed: new Set([key(7)]), node: undefined }, signal);
  expectAllBut(before, [key(19)]);
});

it('are not blamed for a table that is refused whatever is in it', async () => {
  const all = ports();
  await rig.newWriter().write({ ports: all, changed: 'all', node: undefined }, signal);
  const parked: string[] = [];
  // nft knows no such bit.
  const writer = rig.newWriter({ masqueradeBit: 40 }, (port) => void parked.push(portKey(port)));
  const write = writer.write({ ports: all, changed: 'all', node: undefined }, signal);
  await expect(write).rejects.toMatchObject({ code: 'CommandFailed' });
  expect(parked).toEqual([]);
  expectAllBut(all, []);
});

it('none is, though several claim one address, and a name goes on where another ends', async () => {
  const claim = (...args: Parameters<typeof claimant>) => portsOf(claimant(...args), 'ip');
  const others = claim('ns/a-b', 6, ['10.1.0.2', '10.1.0.3']);
  const parked: string[] = [];
  const newWriter = () => rig.newWriter({}, ({ name }) => parked.push(name));
  await newWriter().write({ ports: new Map(), changed: 'all', node: undefined }, signal);
  for (const [endpoints, served] of [
    [['10.1.0.1'], ['10.1.0.1 . 80']],
    [[], ['10.1.0.2 . 80', '10.1.0.3 . 80']],
  ] as const) {
    const all = new Map([...claim('ns/a', 5, endpoints), ...others]);
    // As the next process does, over what the former one left.
    await newWriter().write({ ports: all, changed: 'all', node: undefined }, signal);
    expectAllBut(all, []);
    const slots = [...rig.driver.read('endpoints')]
      .flat()
      .filter(({ key: slot }) => slot.startsWith(`${claimedAddress} `));
    expect(slots).toHaveLength(served.length);
    expect(new Set(slots.map(({ value }) => value))).toEqual(new Set(served));
    const again = await newWriter().write({ ports: all, changed: 'all', node: undefined }, signal);
    expect(again).toEqual({ kind: 'full', written: 0 });
  }
  expect(parked).toEqual([]);
});
