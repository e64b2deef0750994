import { describe, expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { parseSave } from '#pkg/iptables/parse.ts';
import { planIptables } from '#pkg/iptables/plan.ts';
import { renderRestore } from '#pkg/iptables/render.ts';
import type { ObservedRuleset, Ruleset } from '#pkg/iptables/ruleset.ts';
import { silentLogger, type Logger } from '#pkg/log/logger.ts';
import { ruleset, service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { createRulesWriter, type RulesDriver, type RulesWriter } from './rules-writer.ts';

const tables = ['filter', 'nat', 'mangle'] as const;
const signal = new AbortController().signal;
const one: Cluster = {
  services: [service('ns1/svc1', { clusterIPs: ['172.30.0.41'] })],
  slices: [slice('ns1/svc1', ['10.180.0.1'])],
};
const two: Cluster = { ...one, slices: [slice('ns1/svc1', ['10.180.0.1', '10.180.0.2'])] };

/** iptables without a kernel: reads restore text, answers as save would. */
class FakeIptables implements RulesDriver {
  readonly calls: string[] = [];
  /** Which call fails, counted from 0. */
  failAt = -1;
  /** Called before each call, which is counted after it. */
  before: (call: string) => void = () => undefined;
  /** How it spells a rule that was given. */
  print = (rule: string): string => rule;
  /** Table -> chain -> rules. */
  readonly kernel = new Map(tables.map((t) => [t, new Map<string, string[]>()]));

  observe(): Promise<ObservedRuleset> {
    this.#call('observe');
    const found = tables.map((name) => {
      const lines = [...(this.kernel.get(name) ?? [])].flatMap(([chain, rules]) => [
        `:${chain} ${chain.startsWith('KUBE-') ? '-' : 'ACCEPT'} [0:0]`,
        ...rules.map((rule) => `-A ${chain} ${this.print(rule)}`),
      ]);
      // Declarations come before rules, as in iptables-save.
      const sorted = lines.toSorted(
        (a, b) => Number(b.startsWith(':')) - Number(a.startsWith(':')),
      );
      return parseSave([`*${name}`, ...sorted, 'COMMIT'].join('\n'), name);
    });
    return Promise.resolve({ family: 'ip', tables: found });
  }

  apply(steps: Parameters<RulesDriver['apply']>[0]): Promise<void> {
    if (steps.length === 0) return Promise.resolve();
    this.#call('apply');
    let table = this.kernel.get('filter') ?? new Map<string, string[]>();
    for (const line of renderRestore(steps).split('\n')) {
      const [, op, chain = '', rule = ''] = /^(:|-[AIDX] )(\S+) ?(.*)$/.exec(line) ?? [];
      const rules = table.get(chain) ?? [];
      if (line.startsWith('*')) table = this.kernel.get(line.slice(1) as 'nat') ?? table;
      else if (op === ':') table.set(chain, []);
      else if (op === '-A ') rules.push(rule);
      else if (op === '-I ') table.set(chain, [rule, ...rules]);
      else if (op === '-D ') rules.splice(rules.map(this.print).indexOf(this.print(rule)), 1);
      else if (op === '-X ') table.delete(chain);
    }
    return Promise.resolve();
  }

  /** Empties all chains. */
  flush(): void {
    for (const chains of this.kernel.values())
      for (const rules of chains.values()) rules.length = 0;
  }

  /** How many rules there are. */
  count(): number {
    return [...this.kernel.values()].flatMap((chains) => [...chains.values()].flat()).length;
  }

  #call(name: string): void {
    this.before(name);
    this.calls.push(name);
    if (this.calls.length - 1 === this.failAt) throw new Error(`${name} fails`);
  }
}

function writerOf(driver: RulesDriver, clock = new FakeClock(), log = silentLogger): RulesWriter {
  return createRulesWriter({ family: 'ip', driver, observeIntervalMs: 30_000, clock, log });
}

async function leftToDo(fake: FakeIptables, want: Ruleset): Promise<number> {
  return planIptables(want, await fake.observe()).length;
}

describe('a rules writer', () => {
  it('reads the kernel once, then writes differences only', async () => {
    const fake = new FakeIptables();
    const writer = writerOf(fake);
    expect(await writer.write(ruleset(one), signal)).toMatchObject({ kind: 'full' });
    const { kind, steps } = await writer.write(ruleset(two), signal);
    expect(kind).toBe('partial');
    expect(steps.map(({ chain, op }) => `${op} ${chain.slice(0, 8)}`)).toEqual([
      'put-chain KUBE-SVC',
      'put-chain KUBE-SEP',
    ]);
    expect((await writer.write(ruleset(two), signal)).steps).toEqual([]);
    expect(fake.calls).toEqual(['observe', 'apply', 'observe', 'apply']);
    expect(await leftToDo(fake, ruleset(two))).toBe(0);
  });

  it('reads it again after the interval, heals what others did and says so', async () => {
    const fake = new FakeIptables();
    const clock = new FakeClock();
    const warnings: object[] = [];
    const log: Logger = { ...silentLogger, warn: (fields) => void warnings.push(fields) };
    const writer = writerOf(fake, clock, log);
    await writer.write(ruleset(one), signal);
    fake.kernel.get('nat')?.set('KUBE-POSTROUTING', []);
    await writer.write(ruleset(one), signal);
    expect(await leftToDo(fake, ruleset(one))).toBe(1);
    await clock.advance(30_000);
    expect(await writer.write(ruleset(one), signal)).toMatchObject({ kind: 'full' });
    expect(await leftToDo(fake, ruleset(one))).toBe(0);
    expect(warnings).toEqual([{ family: 'ip', count: 1, chains: ['nat KUBE-POSTROUTING'] }]);
  });

  it('reads it again when in doubt, once', async () => {
    const fake = new FakeIptables();
    const writer = writerOf(fake);
    const want = ruleset(one);
    await writer.write(want, signal);
    expect(writer.written).toBe(want);
    fake.kernel.get('nat')?.set('KUBE-POSTROUTING', []);
    writer.doubt();
    expect(writer.written).toBeUndefined();
    expect(await writer.write(want, signal)).toMatchObject({ kind: 'full' });
    expect(await leftToDo(fake, want)).toBe(0);
    expect(writer.nextKind).toBe('partial');
  });

  it('does not write for ever what iptables prints otherwise, and still heals it', async () => {
    const fake = new FakeIptables();
    const clock = new FakeClock();
    const warnings: string[] = [];
    const log: Logger = { ...silentLogger, warn: (_, message) => void warnings.push(message) };
    const writer = writerOf(fake, clock, log);
    fake.print = (rule) =>
      rule.replace('-j MASQUERADE', '-g MASQUERADE').replace('--ctstate', '-S');
    await writer.write(ruleset(one), signal);
    const rules = fake.count();
    for (let round = 0; round < 5; round++) {
      await clock.advance(30_000);
      expect((await writer.write(ruleset(one), signal)).steps).toEqual([]);
    }
    expect(warnings).toEqual(['iptables prints rules otherwise than they were given']);
    fake.kernel.get('nat')?.set('KUBE-POSTROUTING', []);
    fake.kernel.get('filter')?.set('FORWARD', []);
    writer.doubt();
    expect((await writer.write(ruleset(one), signal)).steps).toHaveLength(2);
    expect(fake.count()).toBe(rules);
  });

  it('heals what others delete while it looks', async () => {
    const fake = new FakeIptables();
    const writer = writerOf(fake);
    fake.before = (call) => {
      // The look after the first write.
      if (call === 'observe' && fake.calls.length === 2) fake.flush();
    };
    await writer.write(ruleset(one), signal);
    expect(await leftToDo(fake, ruleset(one))).toBeGreaterThan(0);
    for (let round = 0; round < 2; round++) {
      writer.doubt();
      await writer.write(ruleset(one), signal);
    }
    expect(await leftToDo(fake, ruleset(one))).toBe(0);
  });

  it('a doubt that comes while the kernel is read stands', async () => {
    const fake = new FakeIptables();
    const writer = writerOf(fake);
    await writer.write(ruleset(one), signal);
    writer.doubt();
    fake.before = () => writer.doubt();
    await writer.write(ruleset(one), signal);
    fake.before = () => undefined;
    expect(writer.nextKind).toBe('full');
  });

  it.each([0, 1, 2, 3, 4])('converges when call %i of the kernel fails once', async (failAt) => {
    const fake = new FakeIptables();
    const clock = new FakeClock();
    const writer = writerOf(fake, clock);
    fake.failAt = failAt;
    let failures = 0;
    for (const want of [one, two, two]) {
      await writer.write(ruleset(want), signal).catch(() => (failures += 1));
      await clock.advance(30_000);
    }
    expect(failures).toBe(1);
    await writer.write(ruleset(two), signal);
    expect(await leftToDo(fake, ruleset(two))).toBe(0);
  });

  it('after a failure reads the kernel first', async () => {
    const fake = new FakeIptables();
    const writer = writerOf(fake);
    await writer.write(ruleset(one), signal);
    fake.failAt = fake.calls.length;
    await expect(writer.write(ruleset(two), signal)).rejects.toThrow('apply fails');
    expect(writer.nextKind).toBe('full');
  });
});
