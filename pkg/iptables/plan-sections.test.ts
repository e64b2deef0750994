import { describe, expect, it } from 'vitest';
import { options, ruleset } from '#pkg/proxy/testdata/records.ts';
import { sixServices } from '#pkg/proxy/testdata/six-services.ts';
import { atOnce } from '#pkg/reconcile/parts.ts';
import { planIptables, type Step } from './plan.ts';
import { sectionsOf } from './plan-sections.ts';
import { targetOf } from './ruleset.ts';

const put = (chain: string, ...rules: string[]): Step => ({
  op: 'put-chain',
  table: 'nat',
  chain,
  rules,
});
const remove = (chain: string): Step => ({ op: 'delete-chain', table: 'nat', chain });
const edit = (chain: string, insert: string[]): Step => ({
  op: 'edit-chain',
  table: 'nat',
  chain,
  remove: [],
  insert,
});

const shown = (steps: readonly Step[], size: number): string[] =>
  atOnce(sectionsOf(steps, size)).map((section) =>
    section
      .map((s) => `${{ 'put-chain': '', 'edit-chain': '+', 'delete-chain': '-' }[s.op]}${s.chain}`)
      .join(' '),
  );

describe('sectionsOf()', () => {
  it('leaves small tables whole, in their order', () => {
    const steps = [put('A', '-j B'), put('B'), remove('C'), edit('INPUT', ['-j A'])];
    const other: Step = { ...put('F'), table: 'filter' };
    expect(atOnce(sectionsOf([...steps, other]))).toEqual([steps, [other]]);
    expect(atOnce(sectionsOf([]))).toEqual([]);
  });

  it('writes chains before those that lead to them, then edits, and deletes last', () => {
    const steps = [
      edit('OUTPUT', ['-j TOP']),
      put('TOP', '-j ONE', '-j TWO'),
      remove('OLD'),
      put('ONE', '-s 10.0.0.1/32 -j MARK', '-j LEAF'),
      put('TWO', '-g LEAF', '-j ACCEPT'),
      put('LEAF', '-j ELSEWHERE'),
      put('MARK'),
    ];
    expect(shown(steps, 2)).toEqual(['MARK LEAF', 'ONE TWO', 'TOP +OUTPUT', '-OLD']);
  });

  it('empties many chains that go before the first goes: they may lead to each other', () => {
    const steps = [remove('A'), remove('B'), remove('C')];
    expect(shown(steps, 2)).toEqual(['A B', 'C', '-A -B', '-C']);
    expect(atOnce(sectionsOf(steps, 2))[0]).toEqual([put('A'), put('B')]);
  });

  it.each(['compatible', 'tree'] as const)(
    'of Services of each kind, layout %s, is whole after every section',
    (layout) => {
      const want = ruleset(sixServices, options({ layout }));
      const steps = planIptables(want, { family: 'ip', tables: [] });
      const sections = atOnce(sectionsOf(steps, 3));
      expect(sections.length).toBeGreaterThan(10);
      expect(sections.flat()).toHaveLength(steps.length);
      expect(new Set(sections.flat())).toEqual(new Set(steps));
      const written = new Set<string>();
      const later = new Set(steps.map((s) => `${s.table} ${s.chain}`));
      for (const section of sections) {
        for (const { chain, table } of section) written.add(`${table} ${chain}`);
        for (const step of section) {
          const rules =
            step.op === 'put-chain' ? step.rules : step.op === 'edit-chain' ? step.insert : [];
          for (const rule of rules) {
            const target = `${step.table} ${targetOf(rule)}`;
            if (later.has(target)) expect(written).toContain(target);
          }
        }
      }
    },
  );
});
