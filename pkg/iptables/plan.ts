/** The difference between wanted and present rules, as steps that can be printed and applied. */
import { commentOf } from './rule.ts';
import {
  isServiceChain,
  targetOf,
  type ObservedRuleset,
  type ObservedTable,
  type Rules,
  type Ruleset,
  type Table,
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
  /** Takes our jumps out of a built-in chain and puts them at its head, in one go. */
  | {
      readonly op: 'put-jumps';
      readonly table: TableName;
      readonly chain: string;
      readonly remove: Rules;
      readonly insert: Rules;
    }
  | { readonly op: 'delete-chain'; readonly table: TableName; readonly chain: string };

/**
 * Steps that turn `have` into `want`, table by table: chains first, then jumps to them, deletions
 * last. Chains nobody wants are deleted only when they are per-service chains; all other foreign
 * content stays as it is.
 */
export function planIptables(want: Ruleset, have: ObservedRuleset): Step[] {
  return want.tables.flatMap((table) => planTable(table, tableOf(have, table.name)));
}

/** What the kernel holds once the steps from `have` to `want` are applied. */
export function afterApply(want: Ruleset, have: ObservedRuleset): ObservedRuleset {
  const tables = want.tables.map((table): ObservedTable => {
    const present = tableOf(have, table.name);
    const pinned = pinnedChains(table, present);
    const emptied = [...staleChains(table, present)]
      .filter((chain) => pinned.has(chain))
      .map((chain): [string, Rules] => [chain, []]);
    return { ...table, chains: new Map([...emptied, ...table.chains]), pinned };
  });
  return { family: want.family, tables };
}

function planTable(want: Table, have: ObservedTable): Step[] {
  const table = want.name;
  const puts: Step[] = [];
  for (const [chain, rules] of want.chains) {
    const present = have.chains.get(chain);
    if (present === undefined || !sameRules(rules, present)) {
      puts.push({ op: 'put-chain', table, chain, rules });
    }
  }
  const deletions: Step[] = [];
  const pinned = pinnedChains(want, have);
  for (const chain of staleChains(want, have)) {
    if (!pinned.has(chain)) deletions.push({ op: 'delete-chain', table, chain });
    // Somebody else's rule holds the chain: an empty one does no harm.
    else if (have.chains.get(chain)?.length !== 0)
      puts.push({ op: 'put-chain', table, chain, rules: [] });
  }
  return [...puts, ...planJumps(want, have), ...deletions];
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
    steps.push({ op: 'put-jumps', table: want.name, chain, remove: present, insert: rules });
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

function sameRules(a: Rules, b: Rules): boolean {
  return a.length === b.length && a.every((rule, i) => rule === b[i]);
}
