/** Taking a family of chains out of a packet filter: for cleaning up, where nothing is wanted. */
import type { Step } from './plan.ts';
import { targetOf, type TableName } from './ruleset.ts';

/** What to do to one packet filter of one family. */
export interface Removal {
  readonly steps: readonly Step[];
  /** "filter KUBE-X": chains that rules of others lead into; they are emptied, and stay. */
  readonly held: readonly string[];
}

/** Which chains are to go, and which of them stay as they are once rules of others need them. */
export interface Removable {
  readonly isOurs: (table: TableName, chain: string) => boolean;
  readonly isShared: (table: TableName, chain: string) => boolean;
  /** Jumps from built-in chains that are to go, though the chain they lead to stays. */
  readonly isStray: (table: TableName, chain: string, target: string) => boolean;
}

const tables: readonly TableName[] = ['filter', 'nat', 'mangle'];

/**
 * Reads what `iptables-save` prints and plans to delete the chains that are ours and every jump from
 * a built-in chain into them. Rules of others are not touched.
 */
export function planRemoval(save: string, removable: Removable): Removal {
  const steps: Step[] = [];
  const held: string[] = [];
  for (const table of tables) {
    const found = readTable(save, table);
    const held1 = planTable(table, found, removable, steps);
    for (const chain of held1) held.push(`${table} ${chain}`);
  }
  return { steps, held };
}

interface SavedTable {
  readonly builtIn: ReadonlySet<string>;
  readonly chains: readonly string[];
  readonly rules: readonly { readonly chain: string; readonly rule: string }[];
}

function planTable(
  table: TableName,
  { builtIn, chains, rules }: SavedTable,
  { isOurs, isShared, isStray }: Removable,
  steps: Step[],
): readonly string[] {
  const candidates = new Set(chains.filter((chain) => isOurs(table, chain)));
  const targets = (of: (chain: string) => boolean): Set<string> =>
    new Set(rules.filter(({ chain }) => of(chain)).flatMap(({ rule }) => targetOf(rule) ?? []));
  const fromOthers = targets((chain) => !builtIn.has(chain) && !candidates.has(chain));
  const isNeeded = [...candidates].some((c) => isShared(table, c) && fromOthers.has(c));
  const ours = [...candidates].filter((chain) => !(isNeeded && isShared(table, chain)));
  for (const from of builtIn) {
    const isToGo = (target: string): boolean =>
      ours.includes(target) || isStray(table, from, target);
    const remove = rules
      .filter(({ chain, rule }) => chain === from && isToGo(targetOf(rule) ?? ''))
      .map(({ rule }) => rule);
    if (remove.length > 0) steps.push({ op: 'edit-chain', table, chain: from, remove, insert: [] });
  }
  const held = ours.filter((chain) => fromOthers.has(chain));
  for (const chain of ours) {
    if (held.includes(chain)) steps.push({ op: 'put-chain', table, chain, rules: [] });
    else steps.push({ op: 'delete-chain', table, chain });
  }
  return held;
}

function readTable(save: string, name: TableName): SavedTable {
  const builtIn = new Set<string>();
  const chains: string[] = [];
  const rules: { chain: string; rule: string }[] = [];
  let isInside = false;
  for (const line of save.split('\n')) {
    if (line.startsWith('*')) isInside = line.slice(1) === name;
    if (!isInside) continue;
    const [, declared, policy] = /^:(\S+) (\S+)/.exec(line) ?? [];
    if (declared !== undefined) {
      if (policy === '-') chains.push(declared);
      else builtIn.add(declared);
    }
    const [, chain, rule = ''] = /^-A (\S+) ?(.*)$/.exec(line) ?? [];
    if (chain !== undefined) rules.push({ chain, rule });
  }
  return { builtIn, chains, rules };
}
