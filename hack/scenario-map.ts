/**
 * Which test shows which behaviour. Behaviours have numbers, in one list a subject: CNI
 * (test-e2e/cni/scenarios.yaml) and Services (test-e2e/services/scenarios.yaml, numbers with an S).
 * The title of a test starts with those it shows: `it('69. gives each interface its own', …)`,
 * `it('S143. S144. …')`. This writes the table beside each list, SCENARIOS.md; with `--check` it
 * fails when that is not what it would write, or when a behaviour has neither test nor reason.
 */
import { globSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

export interface ScenarioList {
  /** Holds scenarios.yaml and SCENARIOS.md. */
  readonly folder: string;
  /** What the numbers of the list start with in titles of tests. */
  readonly prefix: '' | 'S';
  readonly heading: string;
  /** A number of the list, for the sentence that says how to run its tests. */
  readonly example: string;
}

const scenarioLists: readonly ScenarioList[] = [
  {
    folder: 'test-e2e/cni',
    prefix: '',
    heading: 'Behaviours of CNI and the tests that show them',
    example: '69',
  },
  {
    folder: 'test-e2e/services',
    prefix: 'S',
    heading: 'Behaviours of Services and the tests that show them',
    example: 'S69',
  },
];

export interface Scenario {
  /** "69", "S123b". */
  readonly id: string;
  /** What happens, in a few words. */
  readonly behaviour: string;
  /** Tests whose titles do not carry the number: "file > part of the title". */
  readonly by: readonly string[];
  /** Why no test shows it. */
  readonly reason: string | undefined;
}

/** A test's title, as its source has it. */
export interface NumberedTest {
  readonly file: string;
  readonly ids: readonly string[];
}

interface Entry {
  readonly is: string;
  readonly by?: string | readonly string[];
  readonly out?: string;
}

/**
 * Reads a list: `1: words`, `1: { is: words, out: why there is no test }`, or with `by: file >
 * part of a title` for a test that does not carry the number.
 */
export function parseScenarios(text: string, prefix: ScenarioList['prefix']): readonly Scenario[] {
  const entries = parse(text, { mapAsMap: true }) as ReadonlyMap<
    string | number,
    string | ReadonlyMap<string, unknown>
  >;
  return [...entries].map(([number, value]) => {
    const entry: Entry =
      typeof value === 'string' ? { is: value } : (Object.fromEntries(value) as unknown as Entry);
    const by = typeof entry.by === 'string' ? [entry.by] : (entry.by ?? []);
    return { id: `${prefix}${number}`, behaviour: entry.is, by, reason: entry.out };
  });
}

/** Every title in the source of a test file, or row or `title` of a table, that starts with numbers. */
export function numberedTests(file: string, source: string): readonly NumberedTest[] {
  return [
    ...source.matchAll(
      /(?:[([]|\btitle:)\s*['"`]((?:(?:\d{1,3}|S\d{1,3}[a-z]?)\.(?: |(?=['"`])))+)/g,
    ),
  ].map(([, ids = '']) => ({ file, ids: ids.trim().replaceAll('.', '').split(' ') }));
}

/** A sentence for each title whose numbers do not count, since they stand in one: '134, 137. …'. */
export function uncountedTitles(file: string, source: string): readonly string[] {
  const titles = source.matchAll(/[([]\s*['"`]((?:S?\d{1,3}[a-z]?, ?)+S?\d{1,3}[a-z]?\.) /g);
  return [...titles].map(
    ([, numbers = '']) => `${file}: "${numbers}" counts for none, each number has a point`,
  );
}

/** The tests that scenarios name themselves, and a sentence for each that is not there. */
export function namedTests(
  scenarios: readonly Scenario[],
  sourceOf: (file: string) => string | undefined,
): { readonly tests: readonly NumberedTest[]; readonly problems: readonly string[] } {
  const tests: NumberedTest[] = [];
  const problems: string[] = [];
  for (const { id, by } of scenarios) {
    for (const name of by) {
      const [file = '', title = ''] = name.split(' > ', 2);
      if (title !== '' && sourceOf(file)?.includes(title) === true) tests.push({ file, ids: [id] });
      else problems.push(`${id}: there is no test ${name}`);
    }
  }
  return { tests, problems };
}

/** A sentence for each number that is not in order; empty when all is well. */
export function scenarioProblems(
  scenarios: readonly Scenario[],
  tests: readonly NumberedTest[],
): readonly string[] {
  const known = new Set(scenarios.map(({ id }) => id));
  const shown = new Set(tests.flatMap(({ ids }) => ids));
  const unknown = tests.flatMap(({ file, ids }) =>
    ids.filter((id) => !known.has(id)).map((id) => `${file}: there is no scenario ${id}`),
  );
  const open = scenarios.flatMap(({ id, behaviour, reason }) => {
    if (shown.has(id)) {
      return reason === undefined
        ? []
        : [`${id}. ${behaviour}: is tested, and has a reason not to be`];
    }
    return reason === undefined ? [`${id}. ${behaviour}: has neither a test nor a reason`] : [];
  });
  return [...unknown, ...open];
}

/** The table as Markdown. */
export function formatScenarios(
  list: ScenarioList,
  scenarios: readonly Scenario[],
  tests: readonly NumberedTest[],
): string {
  const rows = scenarios.map(({ id, behaviour, reason }) => {
    const files = new Map<string, number>();
    for (const { file, ids } of tests) {
      if (ids.includes(id)) files.set(file, (files.get(file) ?? 0) + 1);
    }
    const links = [...files].map(
      ([file, count]) => `[${file}](../../${file})${count === 1 ? '' : ` (${count})`}`,
    );
    return `| ${id} | ${behaviour} | ${links.join(', ')} | ${reason ?? ''} |`;
  });
  const shown = new Set(tests.flatMap(({ ids }) => ids));
  const tested = scenarios.filter(({ id }) => shown.has(id)).length;
  return `# ${list.heading}

Written by \`node hack/scenario-map.ts\`; do not edit. The title of a test starts with the numbers of
the behaviours it shows, so \`npm test -- -t '${list.example}\\.'\` runs those of number ${list.example}.
${tested} of ${scenarios.length} have tests; the last column says why the others have none.

| No. | Behaviour | Tests | Left out because |
| --- | --- | --- | --- |
${rows.join('\n')}
`;
}

const root = join(import.meta.dirname, '..');

function readTests(): ReadonlyMap<string, string> {
  const files = globSync(
    '{cmd,hack,pkg,plugins,test-e2e}/**/{*.test,testdata/service-packets,scratch/ipvs-changes}.ts',
    { cwd: root },
  );
  return new Map(
    files
      // This one's own test has titles that are data.
      .filter((file) => file !== 'hack/scenario-map.test.ts')
      .toSorted()
      .map((file) => [file, readFileSync(join(root, file), 'utf8')]),
  );
}

/** Writes or checks the table of one list; a sentence for each thing that is not in order. */
function updateList(list: ScenarioList, check: boolean): readonly string[] {
  const sources = readTests();
  const path = join(root, list.folder, 'scenarios.yaml');
  const scenarios = parseScenarios(readFileSync(path, 'utf8'), list.prefix);
  const ofList = (id: string): boolean => id.startsWith('S') === (list.prefix === 'S');
  const titled = [...sources]
    .flatMap(([file, source]) => numberedTests(file, source))
    .map(({ file, ids }) => ({ file, ids: ids.filter(ofList) }));
  const named = namedTests(scenarios, (file) => sources.get(file));
  const tests = [...titled, ...named.tests];
  const text = formatScenarios(list, scenarios, tests);
  const table = join(list.folder, 'SCENARIOS.md');
  if (!check) writeFileSync(join(root, table), text);
  const stale = check && readFileSync(join(root, table), 'utf8') !== text;
  return [
    ...[...sources].flatMap(([file, source]) => uncountedTitles(file, source)),
    ...named.problems,
    ...scenarioProblems(scenarios, tests),
    ...(stale ? [`${table} is not what the tests say: run node hack/scenario-map.ts`] : []),
  ];
}

if (import.meta.main) {
  const check = process.argv.includes('--check');
  const problems = scenarioLists.flatMap((list) => updateList(list, check));
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) process.exitCode = 1;
}
