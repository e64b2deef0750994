import { describe, expect, it } from 'vitest';
import { jsonPatch } from './patch-json.ts';

const document = { a: { b: [1, 2, 3] }, 'x/y': { 'm~n': 0 }, n: null };

it.each([
  ['add a key', [{ op: 'add', path: '/a/c', value: 4 }], { a: { b: [1, 2, 3], c: 4 } }],
  ['add into a list', [{ op: 'add', path: '/a/b/1', value: 9 }], { a: { b: [1, 9, 2, 3] } }],
  ['add at the end', [{ op: 'add', path: '/a/b/-', value: 9 }], { a: { b: [1, 2, 3, 9] } }],
  [
    'add at the index after the last',
    [{ op: 'add', path: '/a/b/3', value: 9 }],
    { a: { b: [1, 2, 3, 9] } },
  ],
  ['remove', [{ op: 'remove', path: '/a/b/0' }], { a: { b: [2, 3] } }],
  ['replace', [{ op: 'replace', path: '/a/b/2', value: 7 }], { a: { b: [1, 2, 7] } }],
  ['replace with null', [{ op: 'replace', path: '/a', value: null }], { a: null }],
  ['move', [{ op: 'move', from: '/a/b/0', path: '/first' }], { a: { b: [2, 3] }, first: 1 }],
  ['copy', [{ op: 'copy', from: '/a/b/0', path: '/first' }], { a: { b: [1, 2, 3] }, first: 1 }],
  ['escaped keys', [{ op: 'replace', path: '/x~1y/m~0n', value: 1 }], { 'x/y': { 'm~n': 1 } }],
  [
    'test then act',
    [
      { op: 'test', path: '/a/b', value: [1, 2, 3] },
      { op: 'remove', path: '/a' },
    ],
    { a: undefined },
  ],
])('jsonPatch() can %s', (_name, patch, changed) => {
  const { a, ...rest } = { ...document, ...changed };
  expect(jsonPatch(document, patch)).toEqual(a === undefined ? rest : { a, ...rest });
});

describe('jsonPatch() refuses', () => {
  it.each([
    ['a failed test', [{ op: 'test', path: '/a/b/0', value: 2 }], 422],
    ['a missing path', [{ op: 'replace', path: '/nope', value: 1 }], 422],
    ['removing what is not there', [{ op: 'remove', path: '/a/c' }], 422],
    ['an index past the end', [{ op: 'add', path: '/a/b/4', value: 1 }], 422],
    ['a leading zero', [{ op: 'remove', path: '/a/b/01' }], 422],
    ['a parent that is no container', [{ op: 'add', path: '/n/x', value: 1 }], 422],
    ['an unknown operation', [{ op: 'merge', path: '/a' }], 400],
    ['a missing value', [{ op: 'add', path: '/q' }], 400],
    ['no pointer', [{ op: 'remove', path: 'a' }], 400],
  ])('%s', (_name, patch, httpCode) => {
    expect(() => jsonPatch(document, patch)).toThrow(expect.objectContaining({ httpCode }));
  });

  it('all of a patch when one operation fails', () => {
    const patch = [
      { op: 'remove', path: '/a' },
      { op: 'test', path: '/n', value: 1 },
    ];
    expect(() => jsonPatch(document, patch)).toThrow();
    expect(document.a.b).toEqual([1, 2, 3]);
  });
});
