/** The difference between wanted and present rules, as steps that can be printed and applied. */
import { atOnce, type Parts } from '#pkg/reconcile/parts.ts';
import { commentOf } from './rule.ts';
import {
  isServiceChain,
  targetOf,
  type ObservedRuleset,
  type ObservedTable,
  type RuleEdit,
  type Rules,
  type Ruleset,
  type Table,
  type TableChange,
  type TableName,
} from './ruleset.ts';

export type Step =
  /** Makes a chain if need be and replaces its rules; other chains do not notice. */
  | {
      readonly op: 'put-chain';
      readonly table: TableName;
      readonly chain: string;
      readonly rules: Rules;
    }
  /** Takes single rules out of a chain and puts others at its head or end, in their order. */
  | {
      readonly op: 'edit-chain';
      readonly table: TableName;
      readonly chain: string;
      readonly remove: Rules;
      readonly insert: Rules;
      readonly append?: Rules;
    }
  | { readonly op: 'delete-chain'; readonly table: TableName; readonly chain: string };

/**
 * Steps that turn `have` into `want`, table by table: chains first, then jumps to them, deletions
 * last. Chains nobody wants are deleted only when they are per-service chains; all other foreign
 * content stays as it is.
 */
export function planIptables(want: Ruleset, have: ObservedRuleset): Step[] {
  return atOnce(planInParts(want, have));
}

/** The same, for who has other things to do: 20,000 Services take some 200 ms. */
export function* planInParts(want: Ruleset, have: ObservedRuleset): Parts<Step[]> {
  const steps: Step[] = [];
  for (const table of want.tables) {
    for (const step of yield* planTable(table, tableOf(have, table.name))) steps.push(step);
  }
  return steps;
}

/**
 * Steps for a change of what was written before, at the cost of the change: the kernel is taken to
 * hold what it held then. `pinned` are the chains that cannot be deleted, by table.
 */
export function planChange(
  changes: readonly TableChange[],
  pinned: ReadonlyMap<TableName, ReadonlySet<string>>,
): Step[] {
  return changes.flatMap(({ edits, gone, name: table, put }): Step[] => [
    ...[...put].map(([chain, rules]): Step => ({ op: 'put-chain', table, chain, rules })),
    ...[...edits].map(([chain, edit]): Step => ({ op: 'edit-chain', table, chain, ...edit })),
    ...[...gone].map((chain) => removal(table, chain, pinned.get(table)?.has(chain) === true)),
  ]);
}

/** Chains that stay referenced whatever we write, by table. */
export function pinnedBy(
  want: Ruleset,
  have: ObservedRuleset,
): ReadonlyMap<TableName, ReadonlySet<string>> {
  return new Map(
    want.tables.map((table) => [table.name, pinnedChains(table, tableOf(have, table.name))]),
  );
}

function* planTable(want: Table, have: ObservedTable): Parts<Step[]> {
  const table = want.name;
  const steps: Step[] = [];
  for (const [chain, rules] of want.chains) {
    const step = planChain(want, chain, rules, have.chains.get(chain));
    if (step !== undefined) steps.push(step);
    yield;
  }
  steps.push(...planJumps(want, have));
  const pinned = pinnedChains(want, have);
  for (const chain of staleChains(want, have)) {
    const isPinned = pinned.has(chain);
    if (isPinned && have.chains.get(chain)?.length === 0) continue;
    steps.push(removal(table, chain, isPinned));
    yield;
  }
  return steps;
}

/** A chain that a rule of somebody else's holds is emptied: so it does no harm. */
function removal(table: TableName, chain: string, isPinned: boolean): Step {
  return isPinned
    ? { op: 'put-chain', table, chain, rules: [] }
    : { op: 'delete-chain', table, chain };
}

function planChain(
  { name: table, unordered }: Table,
  chain: string,
  rules: Rules,
  present: Rules | undefined,
): Step | undefined {
  if (present !== undefined && sameRules(rules, present)) return undefined;
  const put: Step = { op: 'put-chain', table, chain, rules };
  const fixed = unordered?.get(chain);
  if (present === undefined || fixed === undefined) return put;
  const edit = editOf(present, rules, fixed);
  if (edit === undefined || !isWorthIt(edit, rules.length)) return put;
  if (edit.remove.length + edit.insert.length === 0) return undefined;
  return { op: 'edit-chain', table, chain, ...edit };
}

/**
 * Whether editing a chain costs less than writing it: iptables finds each rule to remove by reading
 * the chain and comparing (iptables-nft 1.8.9: about 15 us a rule).
 */
export function isWorthIt({ insert, remove }: RuleEdit, chainLength: number): boolean {
  return remove.length <= 32 && remove.length + insert.length <= 8 + chainLength / 2;
}

/** What to take out of a chain whose order means nothing; undefined when its end is another. */
function editOf(from: Rules, to: Rules, fixed: number): RuleEdit | undefined {
  const headOf = (rules: Rules): Rules => rules.slice(0, Math.max(0, rules.length - fixed));
  if (!sameRules(from.slice(headOf(from).length), to.slice(headOf(to).length))) return undefined;
  return difference(headOf(from), headOf(to));
}

/** Which rules to take and to put so that the one list becomes the other, but for their order. */
export function difference(from: Rules, to: Rules): RuleEdit {
  return { remove: without(from, to), insert: without(to, from) };
}

/** The rules of `a` that are not in `b`, each as often as it is there more often. */
function without(a: Rules, b: Rules): Rules {
  if (a.length === 0 || b.length === 0) return a;
  const counts = new Map<string, number>();
  for (const rule of b) counts.set(rule, (counts.get(rule) ?? 0) + 1);
  return a.filter((rule) => {
    const count = counts.get(rule) ?? 0;
    if (count > 0) counts.set(rule, count - 1);
    return count === 0;
  });
}

/**
 * Missing jumps go to the head, before rules of others. When our own jumps are out of order all of
 * them are put anew; their place among the rules of others is not ours to fight about.
 */
function planJumps(want: Table, have: ObservedTable): Step[] {
  const steps: Step[] = [];
  for (const [chain, rules] of want.jumps) {
    const present = (have.jumps.get(chain) ?? []).filter((rule) => isOurJump(rule, rules));
    const firsts = [...new Set(present)];
    if (sameRules(rules, firsts)) continue;
    steps.push({ op: 'edit-chain', table: want.name, chain, remove: present, insert: rules });
  }
  for (const [chain, rules] of want.tails ?? []) {
    const present = (have.jumps.get(chain) ?? []).filter((rule) => isOurJump(rule, rules));
    if (sameRules(rules, [...new Set(present)])) continue;
    const edit = { remove: present, insert: [], append: rules };
    steps.push({ op: 'edit-chain', table: want.name, chain, ...edit });
  }
  return steps;
}

/**
 * A rule that says our comment and leads where ours does is ours, though another version of iptables
 * should print it otherwise: taken for a stranger's, it would be joined by one more in every round.
 */
function isOurJump(rule: string, ours: Rules): boolean {
  if (ours.includes(rule)) return true;
  const mark = commentOf(rule);
  return (
    mark !== undefined &&
    ours.some((own) => commentOf(own) === mark && targetOf(own) === targetOf(rule))
  );
}

/**
 * Chains that stay referenced whatever we write: by rules in chains of others, or in those of the
 * KUBE- family that we neither write nor delete. To delete one would fail the whole table.
 */
function pinnedChains(want: Table, have: ObservedTable): ReadonlySet<string> {
  const pinned = new Set(have.pinned);
  for (const [chain, rules] of have.chains) {
    if (want.chains.has(chain) || isServiceChain(chain)) continue;
    for (const rule of rules) {
      const target = targetOf(rule);
      if (target !== undefined) pinned.add(target);
    }
  }
  return pinned;
}

function* staleChains(want: Table, have: ObservedTable): Iterable<string> {
  for (const chain of have.chains.keys()) {
    if (isServiceChain(chain) && !want.chains.has(chain)) yield chain;
  }
}

function tableOf(have: ObservedRuleset, name: TableName): ObservedTable {
  const found = have.tables.find((table) => table.name === name);
  return found ?? { name, chains: new Map(), jumps: new Map(), pinned: new Set() };
}

/** Whether two lists say the same in the same order. */
export function sameRules(a: Rules, b: Rules): boolean {
  return a.length === b.length && a.every((rule, i) => rule === b[i]);
}
