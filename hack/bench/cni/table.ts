/** Figures of contestants that took turns, and the table of their ratios. */

/** What one contestant did in one turn, in milliseconds. */
export interface Sample {
  readonly wallMs: number;
  readonly cpuMs: number;
}

export interface Row {
  readonly name: string;
  readonly samples: readonly Sample[];
  /** Of wall time to that of the first row; undefined where none is promised. */
  readonly goal?: number | undefined;
}

/**
 * One line for each row: the median of the ratios to the first row, turn by turn, since what else
 * the machine does slows both of a turn; then medians in milliseconds, for orientation.
 */
export function ratioTable(title: string, rows: readonly Row[]): string {
  const [base] = rows;
  const lines = rows.map(({ name, samples, goal }) => {
    const ratio = (of: (sample: Sample) => number): number =>
      median(samples.map((sample, i) => of(sample) / of(base?.samples[i] ?? sample)));
    const wall = ratio((sample) => sample.wallMs);
    return [
      name.padEnd(44),
      wall.toFixed(2).padStart(6),
      (goal === undefined ? '' : `${wall <= goal ? 'ok' : 'MISSED'} ${goal}`).padStart(12),
      ratio((sample) => sample.cpuMs)
        .toFixed(2)
        .padStart(7),
      median(samples.map((sample) => sample.wallMs))
        .toFixed(1)
        .padStart(9),
      median(samples.map((sample) => sample.cpuMs))
        .toFixed(1)
        .padStart(8),
    ].join('');
  });
  const head = `${title.padEnd(44)}  wall        goal    cpu  wall ms  cpu ms`;
  return [head, ...lines].join('\n');
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}
