import { describe, expect, test } from 'vitest';
import { planNftables } from './plan.ts';
import { renderSteps, renderTable } from './render.ts';
import { observedOf, type Rule, type Table } from './ruleset.ts';

const accept: Rule = { text: 'ip daddr vmap @services', why: 'services first' };

function table(fields: Partial<Table> = {}): Table {
  return {
    family: 'inet',
    name: 'podwire-test',
    sets: [{ name: 'pods', type: 'ipv4_addr', interval: true, elements: new Set(['10.0.0.0/24']) }],
    maps: [
      {
        name: 'services',
        type: 'ipv4_addr',
        valueType: 'verdict',
        interval: false,
        elements: new Map([['10.1.0.1', 'goto web']]),
      },
    ],
    chains: [
      { name: 'web', rules: [] },
      {
        name: 'pre',
        base: { type: 'filter', hook: 'prerouting', priority: -5, policy: 'accept' },
        rules: [accept],
      },
    ],
    ...fields,
  };
}

/** What nft would be told to get from one table to another. */
function script(want: Table, have: Table): string {
  return renderSteps(planNftables({ tables: [want] }, [observedOf(have)]));
}

function withElements(pods: string[], services: [string, string][]): Table {
  const [set, map] = [table().sets[0], table().maps[0]];
  if (set === undefined || map === undefined) throw new Error('the table has one of each');
  return table({
    sets: [{ ...set, elements: new Set(pods) }],
    maps: [{ ...map, elements: new Map(services) }],
  });
}

describe('planNftables()', () => {
  test('nothing differs: nothing to do', () => {
    expect(script(table(), table())).toBe('');
  });

  test('a missing table is written whole, in one transaction', () => {
    const steps = planNftables({ tables: [table()] }, []);
    expect(renderSteps(steps)).toBe(
      'add table inet podwire-test\ndelete table inet podwire-test\n' + renderTable(table()),
    );
  });

  test('changed elements are deleted, then added, and nothing else is touched', () => {
    const want = withElements(
      ['10.0.0.0/16'],
      [
        ['10.1.0.1', 'goto other'],
        ['10.1.0.2', 'goto web'],
      ],
    );
    expect(script(want, table())).toBe(
      `delete element inet podwire-test pods { 10.0.0.0/24 }
delete element inet podwire-test services { 10.1.0.1 }
add element inet podwire-test pods { 10.0.0.0/16 }
add element inet podwire-test services {
			10.1.0.1 : goto other,
			10.1.0.2 : goto web,
		}
`,
    );
  });

  test.each<[string, Table]>([
    [
      'a rule',
      table({
        chains: [
          { name: 'web', rules: [] },
          { name: 'pre', rules: [] },
        ],
      }),
    ],
    ["a chain's priority", table({ chains: table().chains.map(lower) })],
    ['a chain more', table({ chains: [...table().chains, { name: 'more', rules: [] }] })],
    ['a set less', table({ sets: [] })],
    ["a set's type", table({ sets: table().sets.map((s) => ({ ...s, type: 'ipv6_addr' })) })],
  ])('replaces the table when it differs by %s', (_, have) => {
    const ops = planNftables({ tables: [table()] }, [observedOf(have)]).map(({ op }) => op);
    expect(ops).toEqual(['replaceTable']);
  });

  test('the order of rules matters, that of chains and sets does not', () => {
    const other: Rule = { text: 'accept', why: 'the rest' };
    const chain = (...rules: Rule[]): Table => table({ chains: [{ name: 'c', rules }] });
    expect(script(chain(accept, other), chain(other, accept))).not.toBe('');
    expect(script(table(), table({ chains: table().chains.toReversed() }))).toBe('');
  });

  test('a table of ours that is not wanted any more is deleted', () => {
    const steps = planNftables({ tables: [] }, [observedOf(table())]);
    expect(renderSteps(steps)).toBe(
      'add table inet podwire-test\ndelete table inet podwire-test\n',
    );
  });
});

function lower(chain: Table['chains'][number]): Table['chains'][number] {
  return chain.base === undefined ? chain : { ...chain, base: { ...chain.base, priority: -6 } };
}
