/** The demo's result for people. */
import { families, type Family } from '#pkg/ip/address.ts';
import { countHolds, type PhaseResult } from './phase.ts';
import { rows, sourceOf } from './probe-list.ts';

const rowWidth = 33;
const cellWidth = 6;
const gap = '  ';

/** One line a row, two columns a phase; below it what does not hold, one line each. */
export function resultTable(results: readonly PhaseResult[]): string {
  const width = (cellWidth + 1) * families.length - 1;
  const header = results.map(({ phase }) => phase.title.padEnd(width)).join(gap);
  const versions = results.map(() => ['IPv4', 'IPv6'].map(cell).join(' ')).join(gap);
  const lines = [
    `${''.padEnd(rowWidth)}${header}`,
    `${''.padEnd(rowWidth)}${versions}${gap}source the server sees`,
    ...Object.values(rows).map((row) => line(row, results, probeCell) + gap + sourceOf[row]),
    '',
    `${'on the wire (tcpdump)'.padEnd(rowWidth)}`.trimEnd(),
    ...countNames(results).map((row) => line(row, results, countCell)),
  ];
  return [...lines, ...problems(results)].map((text) => text.trimEnd()).join('\n');
}

type CellText = (result: PhaseResult, row: string, family: Family) => string;

function line(row: string, results: readonly PhaseResult[], text: CellText): string {
  const cells = results.map((result) =>
    families.map((family) => cell(text(result, row, family))).join(' '),
  );
  return `${row.padEnd(rowWidth)}${cells.join(gap)}`;
}

function probeCell({ probes }: PhaseResult, row: string, family: Family): string {
  const own = probes.filter(({ probe }) => probe.row === row && probe.family === family);
  if (own.length === 0) return '-';
  return own.every(({ problem }) => problem === undefined) ? 'ok' : 'FAILED';
}

function countCell({ counts }: PhaseResult, row: string, family: Family): string {
  const own = counts.find((count) => count.row === row && count.family === family);
  if (own === undefined) return '-';
  return countHolds(own) ? String(own.count) : `${own.count} !`;
}

function countNames(results: readonly PhaseResult[]): string[] {
  return [...new Set(results.flatMap(({ counts }) => counts.map(({ row }) => row)))];
}

function problems(results: readonly PhaseResult[]): string[] {
  const found = results.flatMap(({ phase, probes, counts }) => [
    ...probes.flatMap(({ probe, problem }) =>
      problem === undefined ? [] : [`${phase.title}: ${probe.row}: ${problem}`],
    ),
    ...counts
      .filter((count) => !countHolds(count))
      .map(({ row, family, count, expected }) => {
        const version = family === 'ip' ? 'IPv4' : 'IPv6';
        return `${phase.title}: ${row}, ${version}: ${count}, expected ${expected}`;
      }),
  ]);
  return found.length === 0 ? [] : ['', ...found];
}

function cell(text: string): string {
  return text.padEnd(cellWidth);
}
