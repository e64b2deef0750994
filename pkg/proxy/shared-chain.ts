/** A chain to which many ports add rules of their own, whose order among each other means nothing. */
import { difference, isWorthIt } from '#pkg/iptables/plan.ts';
import type { RuleEdit, Rules } from '#pkg/iptables/ruleset.ts';

export class SharedChain {
  /** By port; ports without rules here are not in it. */
  readonly #rules = new Map<string, Rules>();
  #removed: string[] = [];
  #inserted: string[] = [];
  #length = 0;

  /** How many rules there are. */
  get length(): number {
    return this.#length;
  }

  /** Any of its rules. */
  get some(): Rules {
    const [rules = []] = this.#rules.values();
    return rules.slice(0, 1);
  }

  /** Puts a port's rules in the place of those it had. */
  put(key: string, rules: Rules): void {
    const before = this.#rules.get(key) ?? [];
    const { insert, remove } = difference(before, rules);
    this.#removed.push(...remove);
    this.#inserted.push(...insert);
    this.#length += rules.length - before.length;
    if (rules.length === 0) this.#rules.delete(key);
    else this.#rules.set(key, rules);
  }

  /** What was put since the last call; undefined when it is cheaper to write the chain anew. */
  takeEdit(): RuleEdit | undefined {
    const edit = { remove: this.#removed, insert: this.#inserted };
    this.#removed = [];
    this.#inserted = [];
    return isWorthIt(edit, this.#length) ? edit : undefined;
  }

  /** All rules, port by port in the order given. */
  inOrder(keys: Iterable<string>): string[] {
    return [...keys].flatMap((key) => this.#rules.get(key) ?? []);
  }
}
