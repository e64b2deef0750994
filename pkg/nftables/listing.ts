/** Understands `nft -j list table`: the JSON of libnftables-json(5) as our nouns. Pure. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import type {
  BaseChain,
  ElementMap,
  ElementSet,
  ObservedChain,
  ObservedTable,
  TableName,
} from './ruleset.ts';

type Item = Readonly<Record<string, unknown>>;

/** @throws {AgentError} UnreadableListing for an element of a kind we never write */
export function parseTable(table: TableName, items: readonly Item[]): ObservedTable {
  const sets: ElementSet[] = [];
  const maps: ElementMap[] = [];
  const chains = new Map<string, { base?: BaseChain; ruleMarks: string[] }>();
  for (const item of items) {
    if (isItem(item['set'])) sets.push(parseSet(item['set']));
    if (isItem(item['map'])) maps.push(parseMap(item['map']));
    if (isItem(item['chain'])) {
      const base = parseBase(item['chain']);
      const name = String(item['chain']['name']);
      chains.set(name, { ...(base === undefined ? {} : { base }), ruleMarks: [] });
    }
    // nft lists a table's chains before its rules.
    if (isItem(item['rule'])) {
      chains.get(String(item['rule']['chain']))?.ruleMarks.push(markOf(item['rule']));
    }
  }
  return {
    family: table.family,
    name: table.name,
    sets,
    maps,
    chains: [...chains].map(([name, chain]): ObservedChain => ({ name, ...chain })),
  };
}

function parseSet(item: Item): ElementSet {
  return { ...declarationOf(item), elements: new Set(elementsOf(item).map(elementKey)) };
}

function parseMap(item: Item): ElementMap {
  const elements = new Map<string, string>();
  for (const pair of elementsOf(item)) {
    if (!Array.isArray(pair)) throw unreadable(pair);
    elements.set(elementKey(pair[0]), valueText(pair[1]));
  }
  return { ...declarationOf(item), valueType: typeText(item['map']), elements };
}

function declarationOf(item: Item): { name: string; type: string; interval: boolean } {
  const flags = Array.isArray(item['flags']) ? item['flags'] : [];
  return {
    name: String(item['name']),
    type: typeText(item['type']),
    interval: flags.includes('interval'),
  };
}

function elementsOf(item: Item): readonly unknown[] {
  return Array.isArray(item['elem']) ? item['elem'] : [];
}

function typeText(type: unknown): string {
  return Array.isArray(type) ? type.join(' . ') : String(type);
}

/** An element's key, out of its wrapper when it carries a comment or a counter. */
function elementKey(element: unknown): string {
  if (isItem(element) && isItem(element['elem'])) return valueText(element['elem']['val']);
  return valueText(element);
}

function valueText(value: unknown): string {
  if (typeof value === 'string' || typeof value === 'number') return String(value);
  if (!isItem(value)) throw unreadable(value);
  if (isItem(value['prefix'])) {
    return `${String(value['prefix']['addr'])}/${String(value['prefix']['len'])}`;
  }
  if (Array.isArray(value['range'])) return value['range'].map(valueText).join('-');
  if (Array.isArray(value['concat'])) return value['concat'].map(valueText).join(' . ');
  for (const verdict of ['accept', 'drop', 'return', 'continue']) {
    if (verdict in value) return verdict;
  }
  for (const verdict of ['goto', 'jump']) {
    const target = value[verdict];
    if (isItem(target)) return `${verdict} ${String(target['target'])}`;
  }
  throw unreadable(value);
}

function parseBase(item: Item): BaseChain | undefined {
  if (item['hook'] === undefined) return undefined;
  return {
    type: item['type'] as BaseChain['type'],
    hook: item['hook'] as BaseChain['hook'],
    priority: Number(item['prio']),
    policy: item['policy'] as BaseChain['policy'],
  };
}

function markOf(rule: Item): string {
  const { comment } = rule as { readonly comment?: unknown };
  return typeof comment === 'string' ? (/#[0-9a-f]{10}$/.exec(comment)?.[0] ?? '') : '';
}

function isItem(value: unknown): value is Item {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function unreadable(value: unknown): AgentError {
  return new AgentError(
    'UnreadableListing',
    `Cannot read nft listing: unexpected element ${JSON.stringify(value)}`,
  );
}
