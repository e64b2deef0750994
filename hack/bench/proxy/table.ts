/** The figures as a table, one line a contestant. */
import type { Figures } from './measure.ts';

interface Column {
  readonly head: string;
  readonly value: (figures: Figures, first: Figures) => string;
}

const columns: readonly Column[] = [
  { head: 'start s', value: (f) => (f.startMs / 1000).toFixed(1) },
  { head: 'healthz max', value: (f) => ms(Math.max(...f.healthMicros) / 1000) },
  { head: 'change p50', value: (f) => ms(quantile(f.changeMs, 0.5)) },
  { head: 'p99 ms', value: (f) => ms(quantile(f.changeMs, 0.99)) },
  { head: 'ratio', value: (f, first) => ratio(f.changeMs, first.changeMs) },
  { head: '20/s p50', value: (f) => ms(quantile(f.busyMs, 0.5)) },
  { head: 'p99 ms', value: (f) => ms(quantile(f.busyMs, 0.99)) },
  { head: 'kernel p50', value: (f) => kernel(f, 0.5) },
  { head: 'p99 ms', value: (f) => kernel(f, 0.99) },
  { head: 'add ms', value: (f) => ms(quantile(f.addMs, 0.5)) },
  { head: 'delete ms', value: (f) => ms(quantile(f.deleteMs, 0.5)) },
  { head: 'cpu ms', value: (f) => ms(f.cpuMsPerChange) },
  { head: 'bytes chg/add/del', value: (f) => inputs(f, 'bytes') },
  { head: 'rules', value: (f) => inputs(f, 'parts') },
  { head: 'RSS MB', value: (f) => f.memoryMB.now.toFixed(0) },
  { head: 'connect p50', value: (f) => quantile(f.serviceMicros, 0.5).toFixed(0) },
  { head: 'p99 us', value: (f) => quantile(f.serviceMicros, 0.99).toFixed(0) },
  { head: 'pod p50', value: (f) => quantile(f.podMicros, 0.5).toFixed(0) },
  { head: 'p99 us', value: (f) => quantile(f.podMicros, 0.99).toFixed(0) },
  { head: 'conn/s', value: (f) => f.serviceRate.toFixed(0) },
  { head: 'pod', value: (f) => f.podRate.toFixed(0) },
];

/** Ratios are to the first row. */
export function figuresTable(rows: readonly (readonly [string, Figures])[]): string {
  const [, first] = rows[0] ?? [];
  if (first === undefined) return 'nothing was measured';
  const lines = [
    ['', ...columns.map(({ head }) => head)],
    ...rows.map(([name, figures]) => [name, ...columns.map(({ value }) => value(figures, first))]),
  ];
  const widths = lines[0]?.map((_, i) => Math.max(...lines.map((line) => line[i]?.length ?? 0)));
  return lines
    .map((line) =>
      line
        .map((cell, i) =>
          i === 0 ? cell.padEnd(widths?.[i] ?? 0) : cell.padStart(widths?.[i] ?? 0),
        )
        .join('  '),
    )
    .join('\n');
}

export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

function inputs({ inputs: all }: Figures, what: 'bytes' | 'parts'): string {
  return all.length === 0 ? '-' : all.map((one) => one[what].toFixed(0)).join('/');
}

function ms(value: number): string {
  return value.toFixed(value < 100 ? 1 : 0);
}

function ratio(values: readonly number[], first: readonly number[]): string {
  return (quantile(values, 0.5) / quantile(first, 0.5)).toFixed(2);
}

function kernel({ kernelMs }: Figures, q: number): string {
  return kernelMs.length === 0 ? '-' : quantile(kernelMs, q).toFixed(2);
}
