/**
 * What has to change for the kernel's tables to be the wanted ones. A table is replaced as a whole
 * only when its structure differs; otherwise just the elements that differ are added and deleted.
 */
import { isDeepStrictEqual } from 'node:util';
import {
  observedOf,
  sameTable,
  type ElementMap,
  type ElementSet,
  type ObservedTable,
  type Ruleset,
  type Table,
  type TableName,
} from './ruleset.ts';

export type NftStep =
  | { readonly op: 'replaceTable'; readonly table: Table }
  | { readonly op: 'deleteTable'; readonly table: TableName }
  | ElementStep;

export interface ElementStep {
  readonly op: 'addElements' | 'deleteElements';
  readonly table: TableName;
  /** Name of the set or map. */
  readonly set: string;
  /** Elements as nft reads them, a map's with their value when they are added. */
  readonly elements: readonly string[];
}

/**
 * Steps of one transaction, in order. `have` holds only tables we own: one that is not wanted any
 * more is deleted. Empty when nothing differs.
 */
export function planNftables(want: Ruleset, have: readonly ObservedTable[]): readonly NftStep[] {
  const steps: NftStep[] = [];
  for (const table of want.tables) {
    const found = have.find((other) => sameTable(other, table));
    if (found === undefined || !sameStructure(observedOf(table), found)) {
      steps.push({ op: 'replaceTable', table });
    } else {
      steps.push(...elementSteps(table, found));
    }
  }
  for (const { family, name } of have) {
    if (want.tables.some((table) => sameTable(table, { family, name }))) continue;
    steps.push({ op: 'deleteTable', table: { family, name } });
  }
  return steps;
}

function sameStructure(want: ObservedTable, have: ObservedTable): boolean {
  return isDeepStrictEqual(structureOf(want), structureOf(have));
}

/** Everything but elements. The kernel keeps no order between chains or sets, only between rules. */
function structureOf(table: ObservedTable): unknown {
  return {
    sets: byName(table.sets).map(({ name, type, interval }) => ({ name, type, interval })),
    maps: byName(table.maps).map(({ name, type, valueType, interval }) => ({
      name,
      type,
      valueType,
      interval,
    })),
    chains: byName(table.chains),
  };
}

function byName<T extends { readonly name: string }>(items: readonly T[]): readonly T[] {
  return items.toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

/** Deletions first: an interval may only be added once what it overlaps is gone. */
function elementSteps(want: Table, have: ObservedTable): readonly NftStep[] {
  const deletes: NftStep[] = [];
  const adds: NftStep[] = [];
  const table = { family: want.family, name: want.name };
  for (const set of [...want.sets, ...want.maps]) {
    const found = [...have.sets, ...have.maps].find(({ name }) => name === set.name);
    const delta = elementDelta(set, found);
    if (delta.deleted.length > 0) {
      deletes.push({ op: 'deleteElements', table, set: set.name, elements: delta.deleted });
    }
    if (delta.added.length > 0) {
      adds.push({ op: 'addElements', table, set: set.name, elements: delta.added });
    }
  }
  return [...deletes, ...adds];
}

interface ElementDelta {
  readonly added: readonly string[];
  readonly deleted: readonly string[];
}

function elementDelta(
  want: ElementSet | ElementMap,
  have: ElementSet | ElementMap | undefined,
): ElementDelta {
  if (have === undefined || want.elements === have.elements) return { added: [], deleted: [] };
  const added: string[] = [];
  const deleted: string[] = [];
  const wanted = entriesOf(want.elements);
  const found = entriesOf(have.elements);
  for (const [key, value] of wanted) {
    if (!found.has(key) || found.get(key) !== value) added.push(elementText(key, value));
  }
  for (const [key, value] of found) {
    // A changed value is a deletion and an addition: nft refuses a second value for a key.
    if (!wanted.has(key) || wanted.get(key) !== value) deleted.push(key);
  }
  return { added, deleted };
}

/** An element as nft reads it in `add element`. */
export function elementText(key: string, value: string | undefined): string {
  return value === undefined ? key : `${key} : ${value}`;
}

/** A set as a map without values, so that both kinds are compared the same way. */
export function entriesOf(
  elements: ElementSet['elements'] | ElementMap['elements'],
): ReadonlyMap<string, string | undefined> {
  if ('get' in elements) return elements;
  return new Map([...elements].map((key) => [key, undefined]));
}
