/**
 * Writes planned steps as one nft script, which `nft -f -` applies as one transaction: all of it
 * or nothing. Pure, and equal steps give equal text.
 */
import { elementText, entriesOf, type NftStep } from './plan.ts';
import {
  ruleMark,
  type Chain,
  type ElementMap,
  type ElementSet,
  type Rule,
  type Table,
  type TableName,
} from './ruleset.ts';

/** The script for these steps. */
export function renderSteps(steps: readonly NftStep[]): string {
  return steps.map(renderStep).join('');
}

function renderStep(step: NftStep): string {
  switch (step.op) {
    case 'replaceTable':
      // Add, delete, add: `delete` alone fails where there is none, and `flush` keeps elements.
      return `${removal(step.table)}${renderTable(step.table)}`;
    case 'deleteTable':
      return removal(step.table);
    case 'addElements':
      return `add element ${path(step.table)} ${step.set} ${braces(step.elements)}\n`;
    case 'deleteElements':
      return `delete element ${path(step.table)} ${step.set} ${braces(step.elements)}\n`;
  }
}

/** One table as nft lists it: what goldens hold and `diff` prints. */
export function renderTable(table: Table): string {
  const blocks = [
    ...table.sets.map((set) => renderSet('set', set, set.type)),
    ...table.maps.map((map) => renderSet('map', map, `${map.type} : ${map.valueType}`)),
    ...table.chains.map(renderChain),
  ];
  const comment = table.comment === undefined ? '' : `\tcomment "${table.comment}"\n\n`;
  return `table ${path(table)} {\n${comment}${blocks.join('\n')}}\n`;
}

function removal(table: TableName): string {
  return `add table ${path(table)}\ndelete table ${path(table)}\n`;
}

function renderSet(keyword: 'set' | 'map', set: ElementSet | ElementMap, type: string): string {
  const { declaration } = set;
  const lines = [
    declaration?.typeof === undefined ? `type ${type}` : `typeof ${declaration.typeof}`,
  ];
  if (declaration?.dynamic !== undefined) {
    lines.push(`size ${declaration.dynamic.size}`, 'flags dynamic,timeout');
  }
  if (set.interval) lines.push('flags interval');
  if (declaration?.counter === true) lines.push('counter');
  const elements = [...entriesOf(set.elements)].map(([key, value]) => elementText(key, value));
  if (elements.length > 0) lines.push(`elements = ${braces(elements)}`);
  return block(`${keyword} ${set.name}`, lines);
}

function renderChain(chain: Chain): string {
  const lines: string[] = [];
  if (chain.base !== undefined) {
    const { type, hook, priority, policy } = chain.base;
    lines.push(`type ${type} hook ${hook} priority ${priority}; policy ${policy};`);
  }
  return block(`chain ${chain.name}`, [...lines, ...chain.rules.map(renderRule)]);
}

function renderRule(rule: Rule): string {
  return `${rule.text} comment "${rule.why} ${ruleMark(rule)}"`;
}

function block(head: string, lines: readonly string[]): string {
  return `\t${head} {\n${lines.map((line) => `\t\t${line}\n`).join('')}\t}\n`;
}

function braces(elements: readonly string[]): string {
  if (elements.length === 1) return `{ ${elements[0]} }`;
  return `{\n${elements.map((element) => `\t\t\t${element},\n`).join('')}\t\t}`;
}

function path(table: TableName): string {
  return `${table.family} ${table.name}`;
}
