/** How much a write of iptables is. */
import type { Step } from '#pkg/iptables/plan.ts';
import type { TableName } from '#pkg/iptables/ruleset.ts';
import type { ProxyMetrics } from '#pkg/metrics/proxy-metrics.ts';

/** What metrics tell of a write: rules there are, and rules it put, by table. */
export function countRules(
  totals: ReadonlyMap<TableName, number>,
  steps: readonly Step[],
): Parameters<ProxyMetrics['iptablesRules']>[1] {
  return new Map(
    [...totals].map(([name, total]) => {
      const ofTable = steps.filter(({ table }) => table === name);
      return [name, { total, written: sum(ofTable.map((step) => rulesIn(step).length)) }];
    }),
  );
}

/** The rules a step puts. */
export function rulesIn(step: Step): readonly string[] {
  switch (step.op) {
    case 'put-chain':
      return step.rules;
    case 'edit-chain':
      return step.insert;
    case 'delete-chain':
      return [];
  }
}

/** How many lines steps are, with what they take away. */
export function linesIn(steps: readonly Step[]): number {
  return sum(steps.map(linesOf));
}

function linesOf(step: Step): number {
  return step.op === 'edit-chain'
    ? step.insert.length + step.remove.length
    : 1 + rulesIn(step).length;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, n) => total + n, 0);
}
