import { expect, it } from 'vitest';
import { secondLook } from './second-look.ts';

it('runs the files that failed by the command that ran them', () => {
  expect(
    secondLook([
      { command: ['vitest', 'run'], files: ['/a.test.ts', '/b.test.ts'] },
      { command: ['vm', '--quick'], files: ['c.vm.test.ts'] },
    ]),
  ).toEqual([
    ['vitest', 'run', '/a.test.ts', '/b.test.ts'],
    ['vm', '--quick', 'c.vm.test.ts'],
  ]);
});

it.each([
  ['nothing failed', []],
  ['something failed outside of a file', [{ command: ['vitest'] as const, files: undefined }]],
  ['no file failed', [{ command: ['vitest'] as const, files: [] }]],
  [
    'one of two did not tell',
    [
      { command: ['vitest'] as const, files: ['/a.test.ts'] },
      { command: ['vm'] as const, files: undefined },
    ],
  ],
  [
    'many failed',
    [
      { command: ['vitest'] as const, files: ['/a.test.ts', '/b.test.ts'] },
      { command: ['vm'] as const, files: ['/c.test.ts', '/d.test.ts'] },
    ],
  ],
])('runs nothing when %s', (_, failed) => {
  expect(secondLook(failed)).toBeUndefined();
});
