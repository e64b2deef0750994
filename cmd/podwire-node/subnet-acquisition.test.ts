import { describe, expect, test } from 'vitest';
import type { EtcdChange, EtcdCondition } from '#pkg/etcd/records.ts';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { formatLeaseKey, parseLeaseKey, parseLeaseValue } from '#pkg/pod-network/subnet-lease.ts';
import { planSubnets } from '#pkg/pod-network/subnet-plan.ts';
import { renewInSeconds } from './etcd-source.ts';
import { acquireSubnet, type HeldLease, type SubnetRules } from './subnet-acquisition.ts';

const never = new AbortController().signal;

/** etcd as a map; `race` is called before each change, as another node would come in between. */
class FakeEtcd {
  readonly keys = new Map<string, { value: string; lease: string | undefined; created: string }>();
  readonly revoked: string[] = [];
  revision = 1;
  race: () => void = () => undefined;

  put(key: string, value: object, lease: string | undefined): void {
    this.revision += 1;
    const text = JSON.stringify(value);
    this.keys.set(`/s/${key}`, { value: text, lease, created: String(this.revision) });
  }

  list(): HeldLease[] {
    return [...this.keys].map(([key, { value, lease, created }]) => ({
      key,
      subnets: parseLeaseKey(key.slice(3)) ?? { ip: parsePrefix('0.0.0.0/32'), ip6: undefined },
      value: parseLeaseValue(value) ?? {},
      lease,
      createRevision: created,
      modRevision: created,
    }));
  }

  readonly client: SubnetRules['client'] = {
    get: async () => undefined,
    grantLease: async () => 'new',
    revokeLease: async (id) => void this.revoked.push(id),
    transact: async (conditions: readonly EtcdCondition[], changes: readonly EtcdChange[]) => {
      this.race();
      const holds = conditions.every(
        ({ key, createRevision }) => (this.keys.get(key)?.created ?? '0') === createRevision,
      );
      if (!holds) return undefined;
      for (const change of changes) {
        if (change.op === 'delete') this.keys.delete(change.key);
        else this.put(change.key.slice(3), JSON.parse(change.value) as object, change.lease);
      }
      return String(this.revision);
    },
  };
}

async function acquire(
  etcd: FakeEtcd,
  { previous, network = '10.3.0.0/16' }: { previous?: string; network?: string } = {},
): Promise<string> {
  const own = await acquireSubnet(
    {
      client: etcd.client,
      subnets: { ip: planSubnets({ network: parsePrefix(network) }), ip6: undefined },
      ttlSeconds: 60,
      random: () => 0,
      log: silentLogger,
    },
    {
      leases: etcd.list(),
      publicIPs: { ip: parseAddress('192.168.1.1') },
      previous: previous === undefined ? undefined : parseLeaseKey(previous),
      relist: async () => etcd.list(),
      keyOf: (subnets) => `/s/${formatLeaseKey(subnets)}`,
      signal: never,
    },
  );
  return `${own.key.slice(3)} ${own.lease ?? 'reserved'}`;
}

const ours = { PublicIP: '192.168.1.1' };
const theirs = { PublicIP: '192.168.1.2' };

describe('acquireSubnet()', () => {
  test('127. twice from one address is one subnet', async () => {
    const etcd = new FakeEtcd();
    expect(await acquire(etcd)).toBe('10.3.1.0-24 new');
    expect(await acquire(etcd)).toBe('10.3.1.0-24 new');
    expect(etcd.keys.size).toBe(1);
  });

  test('127. a reservation stays one', async () => {
    const etcd = new FakeEtcd();
    etcd.put('10.3.9.0-24', ours, undefined);
    expect(await acquire(etcd)).toBe('10.3.9.0-24 reserved');
  });

  test('127. the previous subnet is had again', async () => {
    expect(await acquire(new FakeEtcd(), { previous: '10.3.7.0-24' })).toBe('10.3.7.0-24 new');
  });

  test.each([
    ['another node has it', '10.3.7.0-24'],
    ['another has a part of it', '10.3.7.128-25'],
  ])('127. not the previous one when %s', async (_, key) => {
    const etcd = new FakeEtcd();
    etcd.put(key, theirs, 'x');
    expect(await acquire(etcd, { previous: '10.3.7.0-24' })).toBe('10.3.1.0-24 new');
  });

  test('127. not the previous one of another network', async () => {
    expect(await acquire(new FakeEtcd(), { previous: '10.9.7.0-24' })).toBe('10.3.1.0-24 new');
  });

  test('a subnet that the configuration does not allow any more is given up', async () => {
    const etcd = new FakeEtcd();
    etcd.put('10.3.9.0-24', ours, 'x');
    expect(await acquire(etcd, { network: '10.4.0.0/16' })).toBe('10.4.1.0-24 new');
    expect([...etcd.keys.keys()]).toEqual(['/s/10.4.1.0-24']);
  });

  test('another that is faster gets its subnet, and we the next', async () => {
    const etcd = new FakeEtcd();
    etcd.race = () => {
      etcd.race = () => undefined;
      etcd.put('10.3.1.0-24', theirs, 'x');
    };
    expect(await acquire(etcd)).toBe('10.3.2.0-24 new');
    expect(etcd.revoked).toEqual(['new']);
  });

  test('gives up when others are always faster, and when nothing is free', async () => {
    const etcd = new FakeEtcd();
    let n = 1;
    etcd.race = () => etcd.put(`10.3.${n++}.0-24`, theirs, 'x');
    await expect(acquire(etcd)).rejects.toThrow('others were faster 10 times');
    const full = new FakeEtcd();
    for (const m of [1, 2, 3]) full.put(`10.3.${m}.0-24`, theirs, 'x');
    await expect(acquire(full, { network: '10.3.0.0/22' })).rejects.toThrow(
      'all from 10.3.1.0/24 to 10.3.3.0 are taken',
    );
  });
});

test('128. a lease is renewed an hour before its end, a short one at half', () => {
  expect(renewInSeconds(86_400, 3_600)).toBe(82_800);
  expect(renewInSeconds(600, 3_600)).toBe(300);
});
