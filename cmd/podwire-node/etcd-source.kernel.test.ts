/** A node's subnet in a real etcd that goes away for longer than leases last, or forgets. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock } from '#pkg/clock/clock.ts';
import { createEtcdClient, type EtcdClient } from '#pkg/etcd/client.ts';
import { startScratchEtcd, type ScratchEtcd } from '#pkg/etcd/scratch-etcd.ts';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { defaultAnnotationPrefix } from '#pkg/overlay/annotations.ts';
import { planSubnets } from '#pkg/pod-network/subnet-plan.ts';
import { EtcdSource } from './etcd-source.ts';

const prefix = '/coreos.com/network';
const slow = { timeout: 30_000, interval: 50 };
const ttlSeconds = 3;

let opened: AsyncDisposableStack;
let etcd: ScratchEtcd;
let client: EtcdClient;
beforeEach(async () => {
  opened = new AsyncDisposableStack();
  etcd = opened.use(await startScratchEtcd());
  client = opened.use(await createEtcdClient({ endpoints: [`unix://${etcd.socket}`] }));
});
afterEach(() => opened.disposeAsync());

/** A node's source, which runs until the test has ended. */
function run(name: string, address: string, by: EtcdClient = client): EtcdSource {
  const stop = new AbortController();
  const source = new EtcdSource({
    client: by,
    prefix,
    configText: '',
    nodeName: name,
    annotationPrefix: defaultAnnotationPrefix,
    previous: undefined,
    subnets: { ip: planSubnets({ network: parsePrefix('10.3.0.0/16') }), ip6: undefined },
    ttlSeconds,
    random: () => 0,
    addresses: () => ({ ip: parseAddress(address) }),
    publicIPs: {},
    renewMarginSeconds: 1,
    clock: systemClock,
    log: silentLogger,
    onWaiting: () => undefined,
  });
  const running = source.run(stop.signal);
  opened.defer(async () => {
    stop.abort();
    await running;
  });
  return source;
}

async function keys(): Promise<readonly string[]> {
  const text = await etcd.ctl('get', '--prefix', '--keys-only', `${prefix}/subnets/`);
  return text.split('\n').filter((line) => line !== '');
}

function rangesOf(source: EtcdSource): readonly string[] {
  return [...source.nodes.snapshot().values()].flatMap(({ podCIDRs }) => podCIDRs).toSorted();
}

async function holder(key: string): Promise<string | undefined> {
  return (await client.get(key, new AbortController().signal))?.lease;
}

test('128. a lease that ran out while etcd hung is taken anew, of the same subnet', async () => {
  const source = run('a', '192.168.1.1');
  await expect.poll(() => rangesOf(source), slow).toEqual(['10.3.1.0/24']);
  const key = `${prefix}/subnets/10.3.1.0-24`;
  const before = await holder(key);
  expect(before).toBeDefined();
  etcd.hang();
  // By etcd's clock, which goes on.
  await systemClock.sleep(2 * ttlSeconds * 1000);
  // What is known stays known.
  expect(rangesOf(source)).toEqual(['10.3.1.0/24']);
  etcd.goOn();
  await expect
    .poll(() => holder(key).catch(() => before), slow)
    .not.toSatisfy((lease) => lease === before || lease === undefined);
  expect(await keys()).toEqual([key]);
  await etcd.ctl('put', `${prefix}/subnets/10.3.7.0-24`, '{"PublicIP":"192.168.1.7"}');
  await expect.poll(() => rangesOf(source), slow).toEqual(['10.3.1.0/24', '10.3.7.0/24']);
});

test('128. a past that is compacted between the list and the watch is read anew', async () => {
  let lists = 0;
  const forgetful: EtcdClient = {
    get: (...asked) => client.get(...asked),
    transact: (...asked) => client.transact(...asked),
    grantLease: (...asked) => client.grantLease(...asked),
    renewLease: (...asked) => client.renewLease(...asked),
    revokeLease: (...asked) => client.revokeLease(...asked),
    watch: (...asked) => client.watch(...asked),
    list: async (...asked) => {
      const listed = await client.list(...asked);
      lists += 1;
      if (lists > 1) return listed;
      // Told to nobody, since it came after the list and is gone before the watch.
      const other = `${prefix}/subnets/10.3.7.0-24`;
      await etcd.ctl('put', other, '{"PublicIP":"192.168.1.7"}');
      await etcd.ctl('put', `${prefix}/subnets/10.3.8.0-24`, '{"PublicIP":"192.168.1.8"}');
      const { modRevision = '' } =
        (await client.get(`${prefix}/subnets/10.3.8.0-24`, asked[1])) ?? {};
      await etcd.ctl('compact', modRevision);
      return listed;
    },
    [Symbol.dispose]: () => undefined,
  };
  const source = run('a', '192.168.1.1', forgetful);
  await expect
    .poll(() => rangesOf(source), slow)
    .toEqual(['10.3.1.0/24', '10.3.7.0/24', '10.3.8.0/24']);
  expect(lists).toBeGreaterThan(1);
});

test('127. two nodes that start at once have a subnet each, and follow one another', async () => {
  const [a, b] = [run('a', '192.168.1.1'), run('b', '192.168.1.2')];
  const both = ['10.3.1.0/24', '10.3.2.0/24'];
  await expect.poll(() => rangesOf(a), slow).toEqual(both);
  await expect.poll(() => rangesOf(b), slow).toEqual(both);
  expect(a.nodes.snapshot().get('a')?.podCIDRs).not.toEqual(b.nodes.snapshot().get('b')?.podCIDRs);
});
