/**
 * Draws over the number of Services how long a change takes from the API to the kernel, or what two
 * layouts cost:
 *
 *     node hack/bench/proxy/plot.ts RESULTS.jsonl PLOT.svg
 *
 * RESULTS is what `main.ts --results` or `layouts.ts --results` wrote; of equal rows the last counts.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import type { LayoutResult } from './layouts-result.ts';
import type { Result } from './results.ts';

interface Line {
  readonly label: string;
  readonly className: string;
  readonly points: readonly (readonly [services: number, ms: number])[];
}

const [width, height] = [780, 420];
const area = { left: 70, right: 545, top: 46, bottom: 360 };
/** Colours that can be told apart on white and on black, and by most who do not see all of them. */
const colours = ['#0072b2', '#d55e00', '#009e73', '#b8860b', '#cc79a7'];

interface Plot {
  readonly head: string;
  readonly title: string;
  readonly lines: readonly Line[];
}

function plotOf(path: string): Plot {
  const rows = readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Result | LayoutResult);
  const layouts = rows.filter((row) => 'loadMs' in row);
  if (layouts.length > 0) {
    return {
      head: 'Writing to the kernel: all Services, and new endpoints of one',
      title: 'Time to load all Services into nf_tables and to change one, in two layouts',
      lines: layoutLines(last(layouts)),
    };
  }
  const results = rows.filter((row) => 'family' in row);
  const drawn = results.filter(({ endpoints, family }) => endpoints === 2 && family === 'ip');
  return {
    head: 'One change of endpoints: API write to first packet that follows it',
    title:
      'Time from a change in the API to the first packet that follows it, over the number of Services',
    lines: linesOf(last(drawn)),
  };
}

function last<T extends { readonly name: string; readonly services: number }>(
  rows: readonly T[],
): T[] {
  return [...new Map(rows.map((row) => [`${row.name} ${row.services}`, row])).values()];
}

function layoutLines(results: readonly LayoutResult[]): Line[] {
  const names = [...new Set(results.map(({ name }) => name))];
  return names.flatMap((name, i): Line[] => {
    const own = results.filter((r) => r.name === name).toSorted((a, b) => a.services - b.services);
    const line = (
      label: string,
      style: string,
      value: (r: LayoutResult) => number | undefined,
    ) => ({
      label: `${name.split(' by ')[0]}, ${label}`,
      className: `c${i % colours.length} ${style}`,
      points: own.flatMap((r): [number, number][] => {
        const ms = value(r);
        return ms === undefined ? [] : [[r.services, ms]];
      }),
    });
    const all = [
      line('all', 'solid', ({ loadMs }) => loadMs.toSorted((a, b) => a - b)[loadMs.length >> 1]),
      line('one', 'dashed', ({ changeMs }) => changeMs?.[0]),
    ];
    return all.filter(({ points }) => points.length > 0);
  });
}

/** For each contestant a line at rest; under load as well where rounds do not wait for each other. */
function linesOf(results: readonly Result[]): Line[] {
  const names = [...new Set(results.map(({ name }) => name))];
  return names.flatMap((name, i): Line[] => {
    const own = results.filter((r) => r.name === name).toSorted((a, b) => a.services - b.services);
    const line = (label: string, style: string, value: (r: Result) => number): Line => ({
      label: `${name}, ${label}`,
      className: `c${i % colours.length} ${style}`,
      points: own.map((r) => [r.services, value(r)]),
    });
    const atRest = [
      line('p50', 'solid', (r) => r.change[0]),
      line('p99', 'dashed', (r) => r.change[1]),
    ];
    if (!name.includes('nftables')) return atRest;
    return [...atRest, line('20 changes/s, p50', 'dotted', (r) => r.busy[0])];
  });
}

function draw({ head, lines, title }: Plot): string {
  const points = lines.flatMap((line) => line.points);
  const sizes = [...new Set(points.map(([services]) => services))].toSorted((a, b) => a - b);
  const times = points.map(([, ms]) => ms);
  const [low, high] = [
    decade(Math.min(...times), Math.floor),
    decade(Math.max(...times), Math.ceil),
  ];
  const x = scale([sizes[0] ?? 1, sizes.at(-1) ?? 1], [area.left + 25, area.right - 25]);
  const y = scale([low, high], [area.bottom, area.top]);
  const grid = ticks(low, high).map(
    (ms) =>
      `<path class="grid" d="M${area.left} ${y(ms)}H${area.right}"/>` +
      `<text class="end" x="${area.left - 8}" y="${y(ms) + 4}">${ms}</text>`,
  );
  const columns = sizes.map(
    (n) =>
      `<path class="grid" d="M${x(n)} ${area.top}V${area.bottom}"/>` +
      `<text class="middle" x="${x(n)}" y="${area.bottom + 20}">${n.toLocaleString('en')}</text>`,
  );
  const ends = spread(lines.map((line) => y(line.points.at(-1)?.[1] ?? low)));
  const drawn = lines.map((line, i) => {
    const at = line.points.map(([services, ms]) => [x(services), y(ms)] as const);
    const path = at.map(([px, py], n) => `${n === 0 ? 'M' : 'L'}${px} ${py}`).join('');
    const dots = at.map(([px, py]) => `<circle cx="${px}" cy="${py}" r="3"/>`).join('');
    const label = `<text x="${area.right + 4}" y="${(ends[i] ?? 0) + 4}">${line.label}</text>`;
    return `<g class="${line.className}"><path class="line" d="${path}"/>${dots}${label}</g>`;
  });
  const middle = (area.top + area.bottom) / 2;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img">
<title>${title}</title>
<style>
text { font: 12px sans-serif; fill: #333 }
.head { font-size: 14px; font-weight: bold }
.middle { text-anchor: middle }
.end { text-anchor: end }
.grid { stroke: #8886; stroke-width: 1; fill: none }
.line { stroke-width: 2; fill: none }
.dashed .line { stroke-dasharray: 7 4 }
.dotted .line { stroke-dasharray: 2 3 }
${colours.map((c, i) => `.c${i} .line { stroke: ${c} } .c${i} circle { fill: ${c} }`).join('\n')}
@media (prefers-color-scheme: dark) { text { fill: #ddd } }
</style>
<text class="head" x="${area.left}" y="22">${head}</text>
${grid.join('\n')}
${columns.join('\n')}
<text class="middle" x="${(area.left + area.right) / 2}" y="${area.bottom + 44}">Services, 2 endpoints each</text>
<text class="middle" transform="translate(22 ${middle}) rotate(-90)">milliseconds</text>
${drawn.join('\n')}
</svg>
`;
}

/** A logarithmic scale, rounded to tenths of a pixel. */
function scale(
  [from, to]: readonly [number, number],
  [start, end]: readonly [number, number],
): (value: number) => number {
  const span = Math.log(to / from) || 1;
  return (value) => Math.round((start + ((end - start) * Math.log(value / from)) / span) * 10) / 10;
}

function decade(value: number, round: (exponent: number) => number): number {
  return 10 ** round(Math.log10(value));
}

function ticks(low: number, high: number): number[] {
  const count = Math.round(Math.log10(high / low)) + 1;
  return Array.from({ length: count }, (_, i) => Number((low * 10 ** i).toPrecision(1)));
}

/** Labels at the ends of lines, moved so far apart that all can be read. */
function spread(wanted: readonly number[]): number[] {
  const order = wanted.map((at, i) => ({ at, i })).toSorted((a, b) => a.at - b.at);
  const placed: number[] = [];
  let last = Number.NEGATIVE_INFINITY;
  for (const { at, i } of order) {
    last = Math.max(at, last + 14);
    placed[i] = last;
  }
  return placed;
}

const [from, to] = process.argv.slice(2);
if (from === undefined || to === undefined) {
  console.error('usage: plot.ts RESULTS.jsonl PLOT.svg');
  process.exitCode = 2;
} else writeFileSync(to, draw(plotOf(from)));
