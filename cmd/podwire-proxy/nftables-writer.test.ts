/** Convergence: each call into the kernel fails once, and the next write heals what is left. */
import { describe, expect, it } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { TableStructure } from '#pkg/nfnetlink/table-structure.ts';
import { ruleMark, type Chain } from '#pkg/nftables/ruleset.ts';
import { onDemandChain } from '#pkg/proxy/nftables-affinity.ts';
import { proxySkeleton } from '#pkg/proxy/nftables-base.ts';
import type { ElementChange } from '#pkg/proxy/nftables-book.ts';
import { contentsOf } from '#pkg/proxy/nftables-ruleset.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { service, slice } from '#pkg/proxy/testdata/records.ts';
import { sixServices } from '#pkg/proxy/testdata/six-services.ts';
import type { NftablesDriver } from './nftables-driver.ts';
import { createNftablesWriter } from './nftables-writer.ts';
import { nftablesTestOptions, portsOf, quietLog } from './scratch/nftables-inputs.ts';

const options = nftablesTestOptions();
const signal = AbortSignal.timeout(60_000);
const node = undefined;

const commented = ({ name, rules }: Chain): [string, string[]] => [
  name,
  rules.map((rule) => `${rule.why} ${ruleMark(rule)}`),
];
const skeleton = proxySkeleton(options, []);
const coreRules = skeleton.chains.map(commented);

/** A table as the kernel keeps it: a transaction is carried out whole or not at all. */
class TestTable implements NftablesDriver {
  calls = 0;
  failed = false;
  #isThere = false;
  readonly #chains = new Set<string>();
  #sets = new Map<string, Map<string, string>>();
  readonly #failure: { readonly at: number; readonly code: string } | undefined;

  constructor(failure?: { readonly at: number; readonly code: string }) {
    this.#failure = failure;
  }

  get contents(): ReadonlyMap<string, ReadonlyMap<string, string>> {
    return new Map([...this.#sets].filter(([, elements]) => elements.size > 0));
  }

  structure(): TableStructure | undefined {
    this.#call();
    if (!this.#isThere) return undefined;
    const { comment, maps, sets } = skeleton;
    const onDemand = [...this.#chains].map((name) => commented(onDemandChain(name, options)));
    return {
      comment,
      rules: new Map([...coreRules, ...onDemand]),
      sets: new Map([...sets, ...maps].map(({ name }) => [name, this.#sets.get(name)?.size ?? 0])),
    };
  }

  async load(): Promise<void> {
    this.#call();
    this.#isThere = true;
  }

  addChain({ name }: { readonly name: string }): void {
    this.#call();
    this.#chains.add(name);
  }

  edit(changes: readonly ElementChange[]): { messages: number; bytes: number } {
    this.#call();
    const next = new Map([...this.#sets].map(([set, elements]) => [set, new Map(elements)]));
    const elementsOf = (set: string): Map<string, string> => {
      const elements = next.get(set) ?? new Map<string, string>();
      next.set(set, elements);
      return elements;
    };
    for (const { set, key, old } of changes) {
      if (old !== undefined && !elementsOf(set).delete(key)) throw refusal('ENOENT');
    }
    for (const { set, key, new: value } of changes) {
      if (value === undefined) continue;
      if (elementsOf(set).has(key)) throw refusal('EEXIST');
      elementsOf(set).set(key, value);
    }
    this.#sets = next;
    return { messages: changes.length, bytes: 0 };
  }

  *read(set: string): Generator<{ key: string; value: string }[], void, undefined> {
    this.#call();
    yield [...(this.#sets.get(set) ?? [])].map(([key, value]) => ({ key, value }));
  }

  forget(): void {
    this.#call();
  }

  #call(): void {
    this.calls += 1;
    if (this.calls !== this.#failure?.at) return;
    this.failed = true;
    throw refusal(this.#failure.code);
  }
}

function refusal(code: string): AgentError {
  return new AgentError(code, `Cannot change a table: ${code}`);
}

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

/** Start, a change, a doubt: all that a daemon does, trying again what failed. */
async function live(table: TestTable): Promise<number> {
  const writer = createNftablesWriter({
    family: 'ip',
    driver: table,
    options: () => options,
    log: quietLog,
  });
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
});
