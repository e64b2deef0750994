import { afterEach, beforeEach, expect, test } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { EtcdClient } from '#pkg/etcd/client.ts';
import type { EtcdEntry } from '#pkg/etcd/records.ts';
import { parseAddress, type Address } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { defaultAnnotationPrefix } from '#pkg/overlay/annotations.ts';
import type { ByFamily } from '#pkg/overlay/node-facts.ts';
import { planSubnets } from '#pkg/pod-network/subnet-plan.ts';
import { EtcdSource } from './etcd-source.ts';

let clock: FakeClock;
const prefix = '/net';
let stop: AbortController;
let running: Promise<void>;
let addresses: ByFamily<Address>;
let entries: Map<string, EtcdEntry>;
let source: EtcdSource;
let lists: number;
let isAway: boolean;
let renew: () => Promise<number>;
let grant: () => Promise<string>;
let addressesOf: (before: ByFamily<Address>) => ByFamily<Address>;

const away = new AgentError('EtcdAway', 'Cannot reach etcd');

/** etcd as a map that tells of nothing by itself. */
const client: EtcdClient = {
  get: async (key) => entries.get(key),
  list: async () => {
    lists += 1;
    if (isAway) throw away;
    return { revision: '9', entries: [...entries.values()] };
  },
  transact: async (conditions, changes) => {
    const holds = conditions.every(
      ({ key, createRevision }) => (entries.get(key)?.createRevision ?? '0') === createRevision,
    );
    if (!holds) return undefined;
    for (const change of changes) {
      if (change.op === 'delete') entries.delete(change.key);
      else {
        const { key, lease, value } = change;
        const createRevision = entries.get(key)?.createRevision ?? '9';
        entries.set(key, { key, value, lease, createRevision, modRevision: '9' });
      }
    }
    return '9';
  },
  grantLease: () => grant(),
  renewLease: () => renew(),
  revokeLease: async () => undefined,
  async *watch(_, __, signal) {
    await new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    });
    yield { revision: '9', events: [] };
  },
  [Symbol.dispose]: () => undefined,
};

beforeEach(() => {
  clock = new FakeClock();
  stop = new AbortController();
  addresses = { ip: parseAddress('192.168.1.1') };
  entries = new Map();
  lists = 0;
  isAway = false;
  renew = async () => 86_400;
  grant = async () => 'a lease';
  addressesOf = () => addresses;
  source = new EtcdSource({
    client,
    prefix,
    configText: '',
    nodeName: 'a',
    annotationPrefix: defaultAnnotationPrefix,
    previous: undefined,
    subnets: { ip: planSubnets({ network: parsePrefix('10.3.0.0/16') }), ip6: undefined },
    ttlSeconds: 86_400,
    random: () => 0,
    addresses: (before) => addressesOf(before),
    publicIPs: {},
    renewMarginSeconds: 3_600,
    clock,
    log: silentLogger,
    onWaiting: () => undefined,
  });
});
afterEach(async () => {
  stop.abort();
  await running;
});

test('a host that gets another address keeps its subnet, and is known by the new one', async () => {
  running = source.run(stop.signal);
  await source.nodes.whenSynced(stop.signal);
  await clock.advance(0);
  const before = source.nodes.get('a');
  expect(before).toMatchObject({ podCIDRs: ['10.3.1.0/24'], internalIPs: ['192.168.1.1'] });
  addresses = { ip: parseAddress('192.168.1.77') };
  source.addressGone(parseAddress('10.9.9.9'));
  await clock.advance(60_000);
  expect(source.nodes.get('a')).toEqual(before);
  source.addressGone(parseAddress('192.168.1.1'));
  await clock.advance(60_000);
  expect(source.nodes.get('a')).toMatchObject({
    podCIDRs: ['10.3.1.0/24'],
    internalIPs: ['192.168.1.77'],
  });
  await source.ownNode.annotate({ 'podwire.dev/public-ip': '192.168.1.77' }, stop.signal);
  expect([...entries.values()].map(({ key, value }) => [key, JSON.parse(value)])).toEqual([
    ['/net/subnets/10.3.1.0-24', { PublicIP: '192.168.1.77' }],
  ]);
});

test('an etcd that is away is told of after a minute, until it is back', async () => {
  renew = () => Promise.reject(away);
  running = source.run(stop.signal);
  await source.nodes.whenSynced(stop.signal);
  isAway = true;
  await clock.advance(59_000);
  expect(source.staleness()).toEqual([]);
  await clock.advance(3_000);
  expect(source.staleness()).toEqual([
    'nothing is heard from etcd since 1970-01-01T00:00:00.000Z: Cannot reach etcd',
  ]);
  isAway = false;
  renew = async () => 86_400;
  await clock.advance(15_000);
  expect(source.staleness()).toEqual([]);
});

test('an address that goes while the subnet is being taken is not missed', async () => {
  const asked = Promise.withResolvers<void>();
  const granted = Promise.withResolvers<string>();
  grant = () => {
    asked.resolve();
    return granted.promise;
  };
  running = source.run(stop.signal);
  await asked.promise;
  addresses = { ip: parseAddress('192.168.1.77') };
  source.addressGone(parseAddress('192.168.1.1'));
  granted.resolve('a lease');
  await source.nodes.whenSynced(stop.signal);
  await clock.advance(60_000);
  expect(source.nodes.get('a')).toMatchObject({ internalIPs: ['192.168.1.77'] });
  expect(entries.size).toBe(1);
});

test('keeps an address for as long as the host has it', async () => {
  const seen: ByFamily<Address>[] = [];
  addressesOf = (before) => {
    seen.push(before);
    return addresses;
  };
  running = source.run(stop.signal);
  await source.nodes.whenSynced(stop.signal);
  source.addressGone(parseAddress('192.168.1.1'));
  await clock.advance(60_000);
  expect(seen).toEqual([{}, addresses]);
});

test.each([
  ['refuses to renew the lease', () => Promise.reject(new AgentError('EtcdRefused', 'no'))],
  ['says that the lease has ended, and has its key still', () => Promise.resolve(0)],
])('an etcd that %s is not asked again and again', async (_, answer) => {
  renew = answer;
  running = source.run(stop.signal);
  await source.nodes.whenSynced(stop.signal);
  for (let second = 0; second < 60; second++) await clock.advance(1_000);
  expect(lists).toBeGreaterThan(4);
  expect(lists).toBeLessThan(12);
  renew = async () => 86_400;
  await clock.advance(60_000);
  const before = lists;
  await clock.advance(60_000);
  expect(lists).toBe(before);
});
