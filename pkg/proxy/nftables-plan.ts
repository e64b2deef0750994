/** All that a write would do, as steps that print as nft text: for `diff`. */
import type { TableStructure } from '#pkg/nfnetlink/table-structure.ts';
import type { NftStep } from '#pkg/nftables/plan.ts';
import { renderSteps } from '#pkg/nftables/render.ts';
import { ruleMark } from '#pkg/nftables/ruleset.ts';
import { onDemandChain } from './nftables-affinity.ts';
import { proxySkeleton } from './nftables-base.ts';
import { Changes, ElementBook } from './nftables-book.ts';
import type { NftablesOptions } from './nftables-options.ts';
import { elementSteps, reconcile, type SetContents } from './nftables-reconcile.ts';
import { chainsIn, contentsOf, nftablesTable } from './nftables-ruleset.ts';
import { proxyTableName } from './nftables-sets.ts';
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

/**
 * The same as a script for nft; empty when nothing differs. Chains that elements lead to are in it,
 * which the proxy itself adds by netlink: nft before 1.0.7 cannot read their rule in IPv6.
 */
export function proxyTableScript(
  ports: ReadonlyMap<string, ProxiedPort>,
  options: NftablesOptions,
  have: ObservedProxyTable,
): string {
  const steps = planProxyTable(ports, options, have);
  if (steps.some(({ op }) => op === 'replaceTable')) return renderSteps(steps);
  const known = new Set(have.structure?.rules.keys());
  const missing = [...chainsIn(contentsOf(ports, options))].filter((name) => !known.has(name));
  const at = `${options.family} ${proxyTableName}`;
  const chains = missing.toSorted().flatMap((name) => [
    `add chain ${at} ${name}\n`,
    ...onDemandChain(name, options).rules.map((rule) => {
      return `add rule ${at} ${name} ${rule.text} comment "${rule.why} ${ruleMark(rule)}"\n`;
    }),
  ]);
  return `${chains.join('')}${renderSteps(steps)}`;
}
