/** Steps and rulesets as text that `iptables-restore --noflush` reads. */
import { atOnce, type Parts } from '#pkg/reconcile/parts.ts';
import type { Step } from './plan.ts';
import type { Ruleset, TableName } from './ruleset.ts';

/**
 * The steps as one input, each table one transaction. A chain declaration makes the chain or, with
 * --noflush, empties just that chain, so the new rules replace the old ones at COMMIT.
 */
export function renderRestore(steps: readonly Step[]): string {
  return atOnce(renderInParts(steps));
}

/**
 * The same, for who has other things to do: 20,000 Services take some 300 ms.
 *
 * @param order of chains. iptables-nft-save sorts them by a method that is slow when they are.
 */
export function* renderInParts(
  steps: readonly Step[],
  order: 'sorted' | 'as given' = 'sorted',
): Parts<string> {
  const tables = new Map<TableName, Step[]>();
  for (const step of steps) {
    const ofTable = tables.get(step.table);
    if (ofTable === undefined) tables.set(step.table, [step]);
    else ofTable.push(step);
  }
  let text = '';
  for (const [table, ofTable] of tables) text += yield* renderTable(table, ofTable, order);
  return text;
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

function* renderTable(
  table: TableName,
  steps: readonly Step[],
  order: 'sorted' | 'as given',
): Parts<string> {
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
        for (const rule of step.append ?? []) rules.push(append(step.chain, rule));
        break;
      case 'delete-chain':
        // Declaring it first empties it: only an empty chain can go.
        declarations.push(declare(step.chain));
        deletions.push(`-X ${step.chain}`);
        break;
    }
    yield;
  }
  const sorted = order === 'sorted' ? yield* sortInParts(declarations) : declarations;
  return `*${table}\n${yield* linesInParts(sorted)}${yield* linesInParts(rules)}${yield* linesInParts(deletions)}COMMIT\n`;
}

/** Names of chains differ from the eleventh character on: ":KUBE-SEP-A". */
const differsAt = 11;

function* sortInParts(lines: readonly string[]): Parts<string[]> {
  const groups = Map.groupBy(lines, (line) => line.slice(0, differsAt));
  const sorted: string[] = [];
  for (const start of [...groups.keys()].toSorted()) {
    for (const line of groups.get(start)?.toSorted() ?? []) sorted.push(line);
    yield;
  }
  return sorted;
}

const linesPerPart = 1_000;

function* linesInParts(lines: readonly string[]): Parts<string> {
  let text = '';
  for (let at = 0; at < lines.length; at += linesPerPart) {
    text += `${lines.slice(at, at + linesPerPart).join('\n')}\n`;
    yield;
  }
  return text;
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
