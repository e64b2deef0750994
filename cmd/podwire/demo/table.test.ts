import { describe, expect, it } from 'vitest';
import { countRows, phaseHolds, phases, type PhaseResult } from './phase.ts';
import { rows } from './probe-list.ts';
import type { ProbeResult } from './prober.ts';
import { resultTable } from './table.ts';

function probe(family: 'ip' | 'ip6', problem?: string): ProbeResult {
  const expect_ = { kind: 'refused' } as const;
  const target = { from: 'node1', address: '10.96.0.1', port: 80 };
  return { probe: { row: rows.sameNode, family, ...target, expect: expect_ }, problem };
}

function result(problem: string | undefined, count: number): PhaseResult {
  const counts = [{ row: countRows.plain, family: 'ip', count, expected: 'none' }] as const;
  return { phase: phases[0], probes: [probe('ip'), probe('ip6', problem)], counts };
}

describe('resultTable()', () => {
  it('says ok, FAILED and what was not probed, and repeats what failed below', () => {
    const text = resultTable([result('tcp node1 → 10.96.0.1: ETIMEDOUT', 0)]);
    expect(text).toMatch(/^pod → pod on its node +ok +FAILED +pod's own$/m);
    expect(text).toMatch(/^pod → its own address +- +- /m);
    expect(text).toContain('vxlan: pod → pod on its node: tcp node1 → 10.96.0.1: ETIMEDOUT');
  });

  it('marks packets that travelled the wrong way', () => {
    expect(resultTable([result(undefined, 3)])).toMatch(/^pod packets not in VXLAN +3 ! +-$/m);
  });
});

describe('phaseHolds()', () => {
  it.each([
    [undefined, 0, true],
    ['no answer', 0, false],
    [undefined, 3, false],
  ])('with problem %s and %i wrong packets: %s', (problem, count, holds) => {
    expect(phaseHolds(result(problem, count))).toBe(holds);
  });
});
