/** Steps and rulesets as text that `iptables-restore --noflush` reads. */
import type { Step } from './plan.ts';
import type { Ruleset, TableName } from './ruleset.ts';

/**
 * The steps as one input, each table one transaction. A chain declaration makes the chain or, with
 * --noflush, empties just that chain, so the new rules replace the old ones at COMMIT.
 */
export function renderRestore(steps: readonly Step[]): string {
  const tables = new Map<TableName, Step[]>();
  for (const step of steps) {
    const ofTable = tables.get(step.table);
    if (ofTable === undefined) tables.set(step.table, [step]);
    else ofTable.push(step);
  }
  return [...tables].map(([table, ofTable]) => renderTable(table, ofTable)).join('');
}

/** The whole ruleset as iptables-save would print it, without built-in policies and counters. */
export function renderSave(ruleset: Ruleset): string {
  return ruleset.tables
    .map(({ name, chains, jumps }) => {
      const names = [...chains.keys()].toSorted();
      const lines = [
        ...[...jumps].flatMap(([chain, rules]) => rules.map((rule) => append(chain, rule))),
        ...names.flatMap((chain) => (chains.get(chain) ?? []).map((rule) => append(chain, rule))),
      ];
      return frame(name, [...names.map(declare), ...lines]);
    })
    .join('');
}

function renderTable(table: TableName, steps: readonly Step[]): string {
  const declarations: string[] = [];
  const rules: string[] = [];
  const deletions: string[] = [];
  for (const step of steps) {
    switch (step.op) {
      case 'put-chain':
        declarations.push(declare(step.chain));
        for (const rule of step.rules) rules.push(append(step.chain, rule));
        break;
      case 'edit-chain':
        for (const rule of step.remove) rules.push(`-D ${step.chain} ${rule}`);
        // Each goes to the head, so the last one inserted ends up first.
        for (const rule of step.insert.toReversed()) rules.push(`-I ${step.chain} ${rule}`);
        break;
      case 'delete-chain':
        // Declaring it first empties it: only an empty chain can go.
        declarations.push(declare(step.chain));
        deletions.push(`-X ${step.chain}`);
        break;
    }
  }
  // Sorted, since iptables-nft 1.8.9 loads 12,000 chains so in a quarter of the processor time that
  // it needs for the same chains in another order.
  return frame(table, [...declarations.toSorted(), ...rules, ...deletions]);
}

function frame(table: TableName, lines: readonly string[]): string {
  return `${[`*${table}`, ...lines, 'COMMIT'].join('\n')}\n`;
}

function declare(chain: string): string {
  return `:${chain} - [0:0]`;
}

function append(chain: string, rule: string): string {
  return rule === '' ? `-A ${chain}` : `-A ${chain} ${rule}`;
}
