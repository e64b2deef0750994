import { describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { contentsOf } from '#pkg/proxy/nftables-ruleset.ts';
import { portKey, type ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { portsOf, service, slice } from '#pkg/proxy/testdata/records.ts';
import { createNftablesWriter } from './nftables-writer.ts';
import { nftablesTestOptions, quietLog } from './scratch/nftables-inputs.ts';
import { TestTable } from './scratch/nftables-test-table.ts';

const options = nftablesTestOptions();
const signal = AbortSignal.timeout(60_000);

/** Ports of Services s1, s2 … with one endpoint each. */
function many(count: number, pod = (n: number) => `10.180.${n >> 8}.${n & 255}`) {
  const numbers = Array.from({ length: count }, (_, i) => i + 1);
  return portsOf(
    {
      services: numbers.map((n) =>
        service(`ns/s${n}`, { clusterIPs: [`172.30.${n >> 8}.${n & 255}`] }),
      ),
      slices: numbers.map((n) => slice(`ns/s${n}`, [pod(n)])),
    },
    'ip',
  );
}

class Bench {
  readonly table = new TestTable();
  readonly clock = new FakeClock(1_000);
  readonly parked: string[] = [];
  #ports: ReadonlyMap<string, ProxiedPort> = new Map();
  readonly #writer = createNftablesWriter({
    family: 'ip',
    driver: this.table,
    options: () => options,
    onParked: (port) => void this.parked.push(portKey(port)),
    clock: this.clock,
    log: quietLog,
  });

  async write(ports: ReadonlyMap<string, ProxiedPort>, changed: 'all' | string[]): Promise<void> {
    this.#ports = ports;
    const keys = changed === 'all' ? changed : new Set(changed);
    await this.#writer.write({ ports, changed: keys, node: undefined }, signal);
  }

  /** The table has exactly what all ports but these make. */
  expectAllBut(...left: string[]): void {
    const ports = new Map([...this.#ports].filter(([key]) => !left.includes(key)));
    const wanted = contentsOf(ports, options);
    expect(Object.fromEntries(this.table.contents)).toEqual(Object.fromEntries(wanted));
  }
}

const refusing =
  (...addresses: string[]) =>
  ({ key }: { readonly key: string }): boolean =>
    addresses.some((address) => key.startsWith(`${address} `));
const key = (n: number): string => `ns/s${n}:p80/tcp`;

describe('a port whose elements are refused', () => {
  it('is left out of the first write and told of, the others are served', async () => {
    const bench = new Bench();
    bench.table.refuses = refusing('172.30.0.33', '172.30.7.208');
    await bench.write(many(2_200), 'all');
    expect(bench.parked.toSorted()).toEqual([key(2_000), key(33)]);
    bench.expectAllBut(...bench.parked);
    // Nothing is tried again for it.
    const before = bench.table.transactions;
    await bench.write(
      many(2_200, (n) => (n === 5 ? '10.181.0.5' : `10.180.${n >> 8}.${n & 255}`)),
      [key(5)],
    );
    expect(bench.table.transactions).toBe(before + 1);
    bench.expectAllBut(...bench.parked);
  });

  it('costs those that changed with it nothing, not for a moment', async () => {
    const bench = new Bench();
    await bench.write(many(10), 'all');
    let wasAway = 0;
    bench.table.refuses = (change) => {
      if (!bench.table.contents.get('endpoints')?.has('172.30.0.3 . tcp . 80 . 0')) wasAway += 1;
      return refusing('172.30.0.11')(change);
    };
    await bench.write(
      many(11, (n) => (n === 3 ? '10.181.0.3' : `10.180.0.${n}`)),
      [key(3), key(11)],
    );
    expect(bench.parked).toEqual([key(11)]);
    expect(wasAway).toBe(0);
    bench.expectAllBut(key(11));
  });

  it('goes with what it was before, and is tried again when it changes or ten minutes later', async () => {
    const bench = new Bench();
    await bench.write(many(3), 'all');
    bench.table.refuses = ({ new: value }) => value === '10.181.0.2 . 80';
    await bench.write(
      many(3, (n) => `10.${n === 2 ? 181 : 180}.0.${n}`),
      [key(2)],
    );
    expect(bench.parked).toEqual([key(2)]);
    bench.expectAllBut(key(2));
    await bench.write(many(3), [key(2)]);
    bench.expectAllBut();

    await bench.write(
      many(3, (n) => `10.${n === 2 ? 181 : 180}.0.${n}`),
      [key(2)],
    );
    bench.expectAllBut(key(2));
    bench.table.refuses = () => false;
    await bench.clock.advance(600_000);
    await bench.write(
      many(3, (n) => `10.${n === 2 ? 181 : 180}.0.${n}`),
      [],
    );
    bench.expectAllBut();
  });

  it('is left out, too, when what it was is refused by now', async () => {
    const bench = new Bench();
    await bench.write(many(3), 'all');
    bench.table.remove();
    bench.table.refuses = refusing('172.30.0.2');
    await bench.write(
      many(3, (n) => `10.${n === 2 ? 181 : 180}.0.${n}`),
      [key(2)],
    );
    expect(bench.parked).toEqual([key(2)]);
    bench.expectAllBut(key(2));
  });

  it('is not blamed when everything is refused', async () => {
    const bench = new Bench();
    bench.table.refuses = () => true;
    await expect(bench.write(many(100), 'all')).rejects.toThrow('Cannot write');
    expect(bench.parked).toEqual([]);
    bench.table.refuses = () => false;
    await bench.write(many(100), 'all');
    bench.expectAllBut();
  });
});

describe('an address that several claim, while what one of them wants is refused', () => {
  /** s1 … s3 claim one address; s1 has it, with an endpoint that is refused when `isBad`. */
  const claimed = (isBad: boolean, ...names: readonly number[]): Map<string, ProxiedPort> =>
    portsOf(
      {
        services: names.map((n) =>
          service(`ns/s${n}`, {
            clusterIPs: [`172.30.0.${n}`],
            externalIPs: ['203.0.113.9'],
            affinitySeconds: n * 10,
          }),
        ),
        slices: names.map((n) => slice(`ns/s${n}`, [`10.${n === 1 && isBad ? 181 : 180}.0.${n}`])),
      },
      'ip',
    );
  const refuses = ({ new: value }: { readonly new: string | undefined }): boolean =>
    value === '10.181.0.1 . 80';

  it.each([
    ['at a start', []],
    ['where the second has it', [2, 3]],
    ['where the first had it', [1, 2, 3]],
  ])('is served by the next: %s', async (_, before) => {
    const bench = new Bench();
    await bench.write(claimed(false, ...before), 'all');
    bench.table.refuses = refuses;
    await bench.write(claimed(true, 1, 2, 3), before.length === 0 ? 'all' : [key(1)]);
    expect(bench.parked).toEqual([key(1)]);
    bench.expectAllBut(key(1));
    // It leaves the place to the one after, and nothing behind.
    await bench.write(claimed(true, 1, 3), [key(2)]);
    bench.expectAllBut(key(1));
    await bench.write(claimed(false, 1, 3), [key(1)]);
    bench.expectAllBut();
  });
});
