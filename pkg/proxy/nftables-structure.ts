/** Whether the kernel's table is built as ours is: chains, rules and sets, without elements. */
import type { TableStructure } from '#pkg/nfnetlink/table-structure.ts';
import { ruleMark, type Chain, type Table } from '#pkg/nftables/ruleset.ts';
import { isOnDemand } from './nftables-affinity.ts';

export type StructureVerdict =
  /** Not there, or not as we would build it: it must be replaced, in one transaction. */
  | { readonly kind: 'replace' }
  /** As it should be, but for on-demand chains that are still to be added. */
  | { readonly kind: 'extend'; readonly chains: readonly Chain[] };

/** Whether the table can be used as it is, but for its elements. */
export function compareStructure(want: Table, have: TableStructure | undefined): StructureVerdict {
  if (have === undefined || have.comment !== want.comment) return { kind: 'replace' };
  if ([...want.sets, ...want.maps].some(({ name }) => !have.sets.has(name))) {
    return { kind: 'replace' };
  }
  const missing: Chain[] = [];
  for (const chain of want.chains) {
    const comments = have.rules.get(chain.name);
    if (comments === undefined && isOnDemand(chain.name)) missing.push(chain);
    else if (!sameRules(chain, comments ?? [])) return { kind: 'replace' };
  }
  const known = new Set(want.chains.map(({ name }) => name));
  const foreign = [...have.rules.keys()].some((name) => !known.has(name) && !isOnDemand(name));
  return foreign ? { kind: 'replace' } : { kind: 'extend', chains: missing };
}

/** On-demand chains of the kernel's table: they stay, an element may have led to them just now. */
export function onDemandChainsOf(have: TableStructure | undefined): string[] {
  return [...(have?.rules.keys() ?? [])].filter(isOnDemand);
}

function sameRules(chain: Chain, comments: readonly string[]): boolean {
  return (
    comments.length === chain.rules.length &&
    chain.rules.every((rule, i) => comments[i]?.endsWith(ruleMark(rule)) === true)
  );
}
