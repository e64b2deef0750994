/** Dividing a large write for iptables-nft-restore, whose time grows with the square of its input. */
import type { Parts } from '#pkg/reconcile/parts.ts';
import type { Step } from './plan.ts';
import { targetOf, type Rules, type TableName } from './ruleset.ts';

/**
 * iptables-nft 1.8.9 keeps the names of a transaction's chains in a sorted list, which it reads from
 * the start for each line (`cache_chain_list_insert` in its nft-cache.c): 60,000 chains in one take
 * minutes. Each transaction has costs of its own. Of 125, 250, 500 and 1,000 chains, with 8,000
 * Services, 250 and 500 took least processor time.
 */
const chainsPerSection = 500;

/**
 * The steps as transactions to be made one after the other. After each of them every chain that has
 * been written is complete, and leads only to chains that are; deletions come last.
 *
 * @param size how many steps a section may have
 */
export function* sectionsOf(
  steps: readonly Step[],
  size: number = chainsPerSection,
): Parts<(readonly Step[])[]> {
  const sections: (readonly Step[])[] = [];
  for (const ofTable of Map.groupBy(steps, ({ table }) => table).values()) {
    if (ofTable.length <= size) {
      sections.push(ofTable);
      continue;
    }
    const deletions = ofTable.filter(({ op }) => op === 'delete-chain');
    const ordered = [...(yield* byReference(ofTable)), ...ofTable.filter(isEdit)];
    sections.push(...cut(ordered, size));
    // Empty first: chains that go may lead to each other.
    if (deletions.length > size) sections.push(...cut(deletions.map(emptied), size));
    sections.push(...cut(deletions, size));
  }
  return sections;
}

/** Chains before those that lead to them. */
function* byReference(steps: readonly Step[]): Parts<Step[]> {
  const left = new Map<string, Step & { readonly op: 'put-chain' }>();
  for (const step of steps) if (step.op === 'put-chain') left.set(step.chain, step);
  const ordered: Step[] = [];
  function visit(chain: string): void {
    const step = left.get(chain);
    if (step === undefined) return;
    left.delete(chain);
    for (const target of targetsOf(step.rules)) visit(target);
    ordered.push(step);
  }
  for (const chain of left.keys()) {
    visit(chain);
    yield;
  }
  return ordered;
}

function targetsOf(rules: Rules): string[] {
  return rules.flatMap((rule) => targetOf(rule) ?? []);
}

function isEdit({ op }: Step): boolean {
  return op === 'edit-chain';
}

function emptied({ chain, table }: { readonly chain: string; readonly table: TableName }): Step {
  return { op: 'put-chain', table, chain, rules: [] };
}

function* cut<T>(items: readonly T[], size: number): Iterable<readonly T[]> {
  for (let at = 0; at < items.length; at += size) yield items.slice(at, at + size);
}
