/** All that a write would do, as steps that print as nft text: for `diff`. */
import type { TableStructure } from '#pkg/nfnetlink/table-structure.ts';
import type { NftStep } from '#pkg/nftables/plan.ts';
import { proxySkeleton } from './nftables-base.ts';
import { Changes, ElementBook } from './nftables-book.ts';
import type { NftablesOptions } from './nftables-options.ts';
import { elementSteps, reconcile, type SetContents } from './nftables-reconcile.ts';
import { nftablesTable } from './nftables-ruleset.ts';
import { compareStructure, onDemandChainsOf } from './nftables-structure.ts';
import type { ProxiedPort } from './proxied-port.ts';

/** What the kernel has of one family's table. */
export interface ObservedProxyTable {
  /** Undefined when there is no table. */
  readonly structure: TableStructure | undefined;
  readonly contents: SetContents;
}

/** Empty when nothing differs. A chain that elements lead to is added with them, and no step. */
export function planProxyTable(
  ports: ReadonlyMap<string, ProxiedPort>,
  options: NftablesOptions,
  { structure, contents }: ObservedProxyTable,
): readonly NftStep[] {
  const skeleton = proxySkeleton(options, onDemandChainsOf(structure));
  if (compareStructure(skeleton, structure).kind === 'replace') {
    return [{ op: 'replaceTable', table: nftablesTable(ports, options) }];
  }
  const changes = new Changes();
  const left = new Map([...contents].map(([set, elements]) => [set, new Map(elements)]));
  for (const unit of reconcile(new ElementBook(options), ports, left)) {
    for (const change of unit) changes.put(change);
  }
  return elementSteps(options.family, changes.list());
}
