import { describe, expect, it } from 'vitest';
import {
  formatScenarios,
  numberedTests,
  parseScenarios,
  scenarioProblems,
} from './scenario-map.ts';

const scenarios = parseScenarios(`
1: first
2: { is: second, out: no such kernel }
`);

describe('numberedTests()', () => {
  it.each([
    [`it('1. works', () => {});`, [[1]]],
    [`it.each([1, 2])(\n  "1. works %i", f);`, [[1]]],
    ['it(`1. 12. mode ${mode}`, f);', [[1, 12]]],
    [`it.each([['1.', 'a'], ['10.1.2.3', 'b']])('%s refuses %s', f);`, [[1]]],
    [`it('works 1. ', f); it('1.5 times', f); call(1. + 2);`, []],
  ])('of %s', (source, numbers) => {
    expect(numberedTests('a.test.ts', source).map((test) => test.numbers)).toEqual(numbers);
  });
});

describe('scenarioProblems()', () => {
  const problems = (...numbers: number[]): readonly string[] =>
    scenarioProblems(scenarios, [{ file: 'a.test.ts', numbers }]);

  it('has none when each number has a test or a reason', () => {
    expect(problems(1)).toEqual([]);
  });
  it('names a number without either', () => {
    expect(problems()).toEqual(['1. first: has neither a test nor a reason']);
  });
  it('names a reason that is out of date', () => {
    expect(problems(1, 2)).toEqual(['2. second: is tested, and has a reason not to be']);
  });
  it('names a number that is none', () => {
    expect(problems(1, 3)).toEqual(['a.test.ts: there is no scenario 3']);
  });
});

it('formatScenarios() links to the tests, with how many there are, or gives the reason', () => {
  const tests = [
    { file: 'a.test.ts', numbers: [1] },
    { file: 'a.test.ts', numbers: [1] },
    { file: 'b.test.ts', numbers: [1] },
  ];
  const lines = formatScenarios(scenarios, tests).split('\n');
  expect(lines.filter((line) => /^\| \d/.test(line))).toEqual([
    '| 1 | first | [a.test.ts](../../a.test.ts) (2), [b.test.ts](../../b.test.ts) |  |',
    '| 2 | second |  | no such kernel |',
  ]);
});
