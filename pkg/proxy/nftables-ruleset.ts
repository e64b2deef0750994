/** The nftables mode's table as a whole: for the first load, goldens, `diff` and the tracer. */
import type { Table } from '#pkg/nftables/ruleset.ts';
import { proxySkeleton } from './nftables-base.ts';
import { ElementBook } from './nftables-book.ts';
import { isOnDemand } from './nftables-affinity.ts';
import { chainOf } from './nftables-elements.ts';
import type { NftablesOptions } from './nftables-options.ts';
import { reconcile, type SetContents } from './nftables-reconcile.ts';
import type { ProxiedPort } from './proxied-port.ts';

/** All of one family. Equal input gives equal text, whatever the order of the ports. */
export function nftablesTable(
  ports: ReadonlyMap<string, ProxiedPort>,
  options: NftablesOptions,
): Table {
  const contents = contentsOf(ports, options);
  return fillTable(proxySkeleton(options, chainsIn(contents)), contents);
}

/** Every element that these ports make. */
export function contentsOf(
  ports: ReadonlyMap<string, ProxiedPort>,
  options: NftablesOptions,
): SetContents {
  const contents = new Map<string, Map<string, string>>();
  for (const unit of reconcile(new ElementBook(options), ports, new Map())) {
    for (const { set, key, new: value } of unit) {
      if (value === undefined) continue;
      let elements = contents.get(set);
      if (elements === undefined) contents.set(set, (elements = new Map<string, string>()));
      elements.set(key, value);
    }
  }
  return contents;
}

/** On-demand chains that elements lead to. */
export function chainsIn(contents: SetContents): Set<string> {
  const chains = new Set<string>();
  for (const elements of contents.values()) {
    for (const value of elements.values()) {
      const chain = chainOf({ value });
      if (chain !== undefined && isOnDemand(chain)) chains.add(chain);
    }
  }
  return chains;
}

/** A skeleton with elements in it. */
export function fillTable(skeleton: Table, contents: SetContents): Table {
  return {
    ...skeleton,
    sets: skeleton.sets.map((set) => ({
      ...set,
      elements: new Set(contents.get(set.name)?.keys() ?? set.elements),
    })),
    maps: skeleton.maps.map((map) => ({
      ...map,
      elements: contents.get(map.name) ?? map.elements,
    })),
  };
}
