/**
 * Which test shows which behaviour of CNI. Behaviours have numbers (test-e2e/cni/scenarios.yaml),
 * and the title of a test starts with those it shows: `it('69. gives each interface its own', …)`,
 * `it('143. 144. …')`. This writes the table, test-e2e/cni/SCENARIOS.md; with `--check` it fails
 * when that is not what it would write, or when a behaviour has neither test nor reason.
 */
import { globSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

export interface Scenario {
  readonly number: number;
  /** What happens, in a few words. */
  readonly behaviour: string;
  /** Why no test shows it. */
  readonly reason: string | undefined;
}

/** A test's title, as its source has it. */
export interface NumberedTest {
  readonly file: string;
  readonly numbers: readonly number[];
}

/** Reads the list: `1: words`, or `1: { is: words, out: why there is no test }`. */
export function parseScenarios(text: string): readonly Scenario[] {
  const entries = parse(text) as Readonly<Record<string, string | { is: string; out: string }>>;
  return Object.entries(entries).map(([number, entry]) => ({
    number: Number(number),
    ...(typeof entry === 'string'
      ? { behaviour: entry, reason: undefined }
      : { behaviour: entry.is, reason: entry.out }),
  }));
}

/** Every title in the source of a test file, or row of a table of titles, that starts with numbers. */
export function numberedTests(file: string, source: string): readonly NumberedTest[] {
  return [...source.matchAll(/[([]\s*['"`]((?:\d{1,3}\.(?: |(?=['"`])))+)/g)].map(
    ([, numbers = '']) => ({
      file,
      numbers: numbers.trim().split(' ').map(Number.parseFloat),
    }),
  );
}

/** A sentence for each number that is not in order; empty when all is well. */
export function scenarioProblems(
  scenarios: readonly Scenario[],
  tests: readonly NumberedTest[],
): readonly string[] {
  const known = new Set(scenarios.map(({ number }) => number));
  const shown = new Set(tests.flatMap(({ numbers }) => numbers));
  const unknown = tests.flatMap(({ file, numbers }) =>
    numbers
      .filter((number) => !known.has(number))
      .map((number) => `${file}: there is no scenario ${number}`),
  );
  const open = scenarios.flatMap(({ number, behaviour, reason }) => {
    if (shown.has(number)) {
      return reason === undefined
        ? []
        : [`${number}. ${behaviour}: is tested, and has a reason not to be`];
    }
    return reason === undefined ? [`${number}. ${behaviour}: has neither a test nor a reason`] : [];
  });
  return [...unknown, ...open];
}

/** The table as Markdown. */
export function formatScenarios(
  scenarios: readonly Scenario[],
  tests: readonly NumberedTest[],
): string {
  const rows = scenarios.map(({ number, behaviour, reason }) => {
    const files = new Map<string, number>();
    for (const { file, numbers } of tests) {
      if (numbers.includes(number)) files.set(file, (files.get(file) ?? 0) + 1);
    }
    const links = [...files].map(
      ([file, count]) => `[${file}](../../${file})${count === 1 ? '' : ` (${count})`}`,
    );
    return `| ${number} | ${behaviour} | ${links.join(', ')} | ${reason ?? ''} |`;
  });
  const shown = new Set(tests.flatMap(({ numbers }) => numbers));
  const tested = scenarios.filter(({ number }) => shown.has(number)).length;
  return `# Behaviours of CNI and the tests that show them

Written by \`node hack/scenario-map.ts\`; do not edit. The title of a test starts with the numbers of
the behaviours it shows, so \`npm test -- -t '69\\.'\` runs those of number 69.
${tested} of ${scenarios.length} have tests; the last column says why the others have none.

| No. | Behaviour | Tests | Left out because |
| --- | --- | --- | --- |
${rows.join('\n')}
`;
}

const root = join(import.meta.dirname, '..');
const table = 'test-e2e/cni/SCENARIOS.md';

function readTests(): readonly NumberedTest[] {
  const files = globSync('{cmd,hack,pkg,plugins,test-e2e}/**/*.test.ts', { cwd: root });
  return (
    files
      // This one's own test has titles that are data.
      .filter((file) => file !== 'hack/scenario-map.test.ts')
      .toSorted()
      .flatMap((file) => numberedTests(file, readFileSync(join(root, file), 'utf8')))
  );
}

if (import.meta.main) {
  const scenarios = parseScenarios(readFileSync(join(root, 'test-e2e/cni/scenarios.yaml'), 'utf8'));
  const tests = readTests();
  const text = formatScenarios(scenarios, tests);
  const problems = [...scenarioProblems(scenarios, tests)];
  if (!process.argv.includes('--check')) writeFileSync(join(root, table), text);
  else if (readFileSync(join(root, table), 'utf8') !== text) {
    problems.push(`${table} is not what the tests say: run node hack/scenario-map.ts`);
  }
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) process.exitCode = 1;
}
