/** A table of mode nftables in memory, which fails and refuses what a test wants it to. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { TableStructure } from '#pkg/nfnetlink/table-structure.ts';
import { ruleMark, type Chain } from '#pkg/nftables/ruleset.ts';
import { onDemandChain } from '#pkg/proxy/nftables-affinity.ts';
import { proxySkeleton } from '#pkg/proxy/nftables-base.ts';
import type { ElementChange } from '#pkg/proxy/nftables-book.ts';
import type { NftablesDriver } from '#cmd/podwire-proxy/nftables-driver.ts';
import { nftablesTestOptions } from './nftables-inputs.ts';

const options = nftablesTestOptions();

const commented = ({ name, rules }: Chain): [string, string[]] => [
  name,
  rules.map((rule) => `${rule.why} ${ruleMark(rule)}`),
];
const skeleton = proxySkeleton(options, []);
const coreRules = skeleton.chains.map(commented);

/** A table as the kernel keeps it: a transaction is carried out whole or not at all. */
export class TestTable implements NftablesDriver {
  calls = 0;
  failed = false;
  /** Whether an element cannot be, whatever else there is. */
  refuses: (change: ElementChange) => boolean = () => false;
  /** Transactions that were carried out. */
  transactions = 0;
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

  /** Somebody else deletes it. */
  remove(): void {
    this.#isThere = false;
    this.#chains.clear();
    this.#sets.clear();
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

  async check(): Promise<void> {
    this.#call();
  }

  addChain({ name }: { readonly name: string }): void {
    this.#call();
    this.#chains.add(name);
  }

  edit(changes: readonly ElementChange[]): { messages: number; bytes: number } {
    this.#call();
    if (changes.some((change) => change.new !== undefined && this.refuses(change))) {
      throw refusal('EINVAL');
    }
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
    this.transactions += 1;
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
