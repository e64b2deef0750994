/** Convergence: each call into the kernel fails once, and the next write heals what is left. */
import { describe, expect, it } from 'vitest';
import { systemClock } from '#pkg/clock/clock.ts';
import { contentsOf } from '#pkg/proxy/nftables-ruleset.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { portsOf, service, slice } from '#pkg/proxy/testdata/records.ts';
import { sixServices } from '#pkg/proxy/testdata/six-services.ts';
import { createNftablesWriter } from './nftables-writer.ts';
import { nftablesTestOptions, quietLog } from './scratch/nftables-inputs.ts';
import { TestTable } from './scratch/nftables-test-table.ts';

const options = nftablesTestOptions();
const signal = AbortSignal.timeout(60_000);
const node = undefined;

const before = portsOf(sixServices, 'ip');
const after = portsOf(
  {
    services: [
      ...sixServices.services.slice(1),
      service('ns9/new', { clusterIPs: ['172.30.0.99'], affinitySeconds: 77 }),
    ],
    slices: [...(sixServices.slices ?? []), slice('ns9/new', ['10.180.0.9', '10.180.0.10'])],
  },
  'ip',
);
const changed = new Set([...before.keys(), ...after.keys()]);

const newWriter = (table: TestTable) =>
  createNftablesWriter({
    family: 'ip',
    driver: table,
    options: () => options,
    onParked: () => undefined,
    clock: systemClock,
    log: quietLog,
  });

/** Start, a change, a doubt: all that a daemon does, trying again what failed. */
async function live(table: TestTable): Promise<number> {
  const writer = newWriter(table);
  let rejections = 0;
  const write = async (ports: Map<string, ProxiedPort>, keys: 'all' | Set<string>) => {
    for (;;) {
      try {
        await writer.write({ ports, changed: keys, node }, signal);
        return;
      } catch {
        rejections += 1;
      }
    }
  };
  await write(before, 'all');
  await write(after, changed);
  writer.doubt();
  await write(after, new Set());
  return rejections;
}

const sorted = (contents: ReadonlyMap<string, ReadonlyMap<string, string>>): unknown =>
  new Map([...contents].map(([set, elements]) => [set, new Map(elements)] as const));

const whole = new TestTable();
await live(whole);

describe('the nftables writer', () => {
  it('writes what is wanted, when nothing fails', () => {
    expect(sorted(whole.contents)).toEqual(sorted(contentsOf(after, options)));
    expect(whole.calls).toBeGreaterThan(10);
  });

  // EBUSY: somebody else is at work, look again. EPERM: the write fails, the next one heals.
  it.each(['EBUSY', 'EPERM'])('heals after any one call that fails with %s', async (code) => {
    for (let at = 1; at <= whole.calls; at++) {
      const table = new TestTable({ at, code });
      const rejections = await live(table);
      expect(table.failed, `call ${at}`).toBe(true);
      expect(rejections, `call ${at}`).toBe(code === 'EBUSY' ? 0 : 1);
      expect(sorted(table.contents), `call ${at}`).toEqual(sorted(contentsOf(after, options)));
    }
  });

  it('looks at no other port for a change of one', async () => {
    const table = new TestTable();
    const writer = newWriter(table);
    await writer.write({ ports: after, changed: 'all', node }, signal);
    const asked: string[] = [];
    const never = (): never => {
      throw new Error('all ports were looked at');
    };
    const ports: ReadonlyMap<string, ProxiedPort> = {
      get: (key) => {
        asked.push(key);
        return undefined;
      },
      has: never,
      size: after.size,
      forEach: never,
      keys: never,
      values: never,
      entries: never,
      [Symbol.iterator]: never,
    };
    const [key = ''] = after.keys();
    const calls = table.calls;
    const report = await writer.write({ ports, changed: new Set([key]), node }, signal);
    expect(report.kind).toBe('partial');
    expect(asked).toEqual([key]);
    expect(table.calls - calls).toBeLessThanOrEqual(3);
  });
});
