import { describe, expect, it } from 'vitest';
import {
  formatScenarios,
  namedTests,
  numberedTests,
  parseScenarios,
  scenarioProblems,
  uncountedTitles,
} from './scenario-map.ts';

const scenarios = parseScenarios(
  `
1: first
2: { is: second, out: no such kernel }
`,
  '',
);

describe('numberedTests()', () => {
  it.each([
    [`it('1. works', () => {});`, [['1']]],
    [`it.each([1, 2])(\n  "1. works %i", f);`, [['1']]],
    ['it(`1. 12. mode ${mode}`, f);', [['1', '12']]],
    [`it.each([['1.', 'a'], ['10.1.2.3', 'b']])('%s refuses %s', f);`, [['1']]],
    [`it('S1. S123b. works', f);`, [['S1', 'S123b']]],
    [`[{ title: 'S1. works' }, { subtitle: 'S2. works' }]`, [['S1']]],
    [`it('works 1. ', f); it('1.5 times', f); call(1. + 2); it('S. x'); it('s1. x');`, []],
  ])('of %s', (source, ids) => {
    expect(numberedTests('a.test.ts', source).map((test) => test.ids)).toEqual(ids);
  });
});

it('parseScenarios() keeps the order of the list, whatever its numbers look like', () => {
  const list = parseScenarios('1: one\n1b: { is: more, by: a > b }\n2: two', 'S');
  expect(list.map(({ id, by }) => [id, ...by])).toEqual([['S1'], ['S1b', 'a > b'], ['S2']]);
});

describe('namedTests()', () => {
  const named = (by: string): ReturnType<typeof namedTests> =>
    namedTests([{ id: '7', behaviour: 'x', by: [by], reason: undefined }], (file) =>
      file === 'a.test.ts' ? `it('does it', f)` : undefined,
    );

  it('finds a test by its title', () => {
    const tests = [{ file: 'a.test.ts', ids: ['7'] }];
    expect(named('a.test.ts > does it')).toEqual({ tests, problems: [] });
  });
  it.each(['a.test.ts > did it', 'b.test.ts > does it', 'a.test.ts'])('has no %j', (by) => {
    expect(named(by)).toEqual({ tests: [], problems: [`7: there is no test ${by}`] });
  });
});

describe('scenarioProblems()', () => {
  const problems = (...ids: string[]): readonly string[] =>
    scenarioProblems(scenarios, [{ file: 'a.test.ts', ids }]);

  it('has none when each number has a test or a reason', () => {
    expect(problems('1')).toEqual([]);
  });
  it('names a number without either', () => {
    expect(problems()).toEqual(['1. first: has neither a test nor a reason']);
  });
  it('names a reason that is out of date', () => {
    expect(problems('1', '2')).toEqual(['2. second: is tested, and has a reason not to be']);
  });
  it('names a number that is none', () => {
    expect(problems('1', '3')).toEqual(['a.test.ts: there is no scenario 3']);
  });
});

it('formatScenarios() links to the tests, with how many there are, or gives the reason', () => {
  const tests = [
    { file: 'a.test.ts', ids: ['1'] },
    { file: 'a.test.ts', ids: ['1'] },
    { file: 'b.test.ts', ids: ['1'] },
  ];
  const list = { folder: 'x', prefix: '', heading: 'Things', example: '1' } as const;
  const lines = formatScenarios(list, scenarios, tests).split('\n');
  expect(lines.filter((line) => /^\| \d/.test(line))).toEqual([
    '| 1 | first | [a.test.ts](../../a.test.ts) (2), [b.test.ts](../../b.test.ts) |  |',
    '| 2 | second |  | no such kernel |',
  ]);
});

it('numbers that stand in one count for none, and that is told', () => {
  const source = `it('134, 137. one that comes back', () => {}); it('134. 137. so it is right')`;
  expect(uncountedTitles('a.test.ts', source)).toEqual([
    'a.test.ts: "134, 137." counts for none, each number has a point',
  ]);
});
