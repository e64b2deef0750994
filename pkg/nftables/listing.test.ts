import { describe, expect, test } from 'vitest';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { parseTable } from './listing.ts';

const name = { family: 'inet', name: 't' } as const;

function set(elem: unknown[]): { set: Record<string, unknown> } {
  return { set: { family: 'inet', name: 's', table: 't', type: 'ipv4_addr', elem } };
}

describe('parseTable()', () => {
  test('spells elements as nft reads them', () => {
    const table = parseTable(name, [
      set([
        '10.0.0.1',
        { prefix: { addr: '10.1.0.0', len: 16 } },
        { range: ['10.2.0.1', '10.2.0.9'] },
        { elem: { val: '10.3.0.1', comment: 'why' } },
        { concat: ['10.4.0.1', 'tcp', 80] },
      ]),
    ]);
    expect([...(table.sets[0]?.elements ?? [])]).toEqual([
      '10.0.0.1',
      '10.1.0.0/16',
      '10.2.0.1-10.2.0.9',
      '10.3.0.1',
      '10.4.0.1 . tcp . 80',
    ]);
  });

  test('spells a map’s values, verdicts too', () => {
    const elem = [
      ['10.0.0.1', { goto: { target: 'web' } }],
      ['10.0.0.2', { drop: null }],
      [{ concat: ['10.0.0.3', 'udp', 53] }, { concat: ['10.1.1.1', 5353] }],
    ];
    const map = { name: 'm', type: ['ipv4_addr', 'inet_proto'], map: 'verdict', elem };
    expect(parseTable(name, [{ map }]).maps).toEqual([
      {
        name: 'm',
        type: 'ipv4_addr . inet_proto',
        valueType: 'verdict',
        interval: false,
        elements: new Map([
          ['10.0.0.1', 'goto web'],
          ['10.0.0.2', 'drop'],
          ['10.0.0.3 . udp . 53', '10.1.1.1 . 5353'],
        ]),
      },
    ]);
  });

  test('knows our rules by the mark in their comment, and strange ones by having none', () => {
    const rules = ['why #0123456789', 'somebody else’s', undefined].map((comment) => ({
      rule: { chain: 'c', comment },
    }));
    const table = parseTable(name, [{ chain: { name: 'c' } }, ...rules]);
    expect(table.chains).toEqual([{ name: 'c', ruleMarks: ['#0123456789', '', ''] }]);
  });

  test('refuses an element it cannot spell rather than losing it', () => {
    let thrown: unknown;
    try {
      parseTable(name, [set([{ surprise: 1 }])]);
    } catch (error) {
      thrown = error;
    }
    expect(isErrno(thrown, 'UnreadableListing')).toBe(true);
  });
});
