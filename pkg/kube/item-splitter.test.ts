import { describe, expect, test } from 'vitest';
import { createItemSplitter } from './item-splitter.ts';
import { seededRandom } from './testing/seeded-random.ts';

const trickyItems = [
  { metadata: { name: 'plain' } },
  { metadata: { name: 'quotes " and \\ and }{][ and \\"' }, items: [{ items: [] }] },
  { metadata: { name: 'ünïcödé 😀 \u2028' }, nested: { items: [1, [2, { items: '"items":[' }]] } },
  {},
];

const lists: Readonly<Record<string, string>> = {
  'items last': JSON.stringify({
    kind: 'L',
    metadata: { resourceVersion: '7' },
    items: trickyItems,
  }),
  'items first': JSON.stringify({
    items: trickyItems,
    kind: 'L',
    metadata: { resourceVersion: '7' },
  }),
  'white space': JSON.stringify(
    { metadata: { resourceVersion: '7' }, items: trickyItems, kind: 'L' },
    undefined,
    2,
  ),
  'a decoy in the metadata': `{"metadata":{"resourceVersion":"7","items":[{"no":1}],"x":"\\"items\\":["},"kind":"L","items":${JSON.stringify(trickyItems)}}`,
  'a decoy as a value': `{"a":"items","b":[{"items":[{}]}],"kind":"L","metadata":{"resourceVersion":"7"},"items":${JSON.stringify(trickyItems)}}`,
  'the key in escapes': `{"kind":"L","metadata":{"resourceVersion":"7"},"\\u0069tems":${JSON.stringify(trickyItems)}}`,
};

function split(chunks: readonly Uint8Array[]): {
  items: unknown[];
  list: Record<string, unknown>;
} {
  const items: unknown[] = [];
  const splitter = createItemSplitter((item) => items.push(item));
  for (const chunk of chunks) splitter.write(chunk);
  return { items, list: splitter.finish() };
}

describe('a list', () => {
  test.each(Object.entries(lists))('with %s is the same cut at every byte', (_, text) => {
    const bytes = Buffer.from(text);
    for (let at = 0; at <= bytes.length; at++) {
      const { items, list } = split([bytes.subarray(0, at), bytes.subarray(at)]);
      expect(items).toEqual(trickyItems);
      expect(list).toMatchObject({ kind: 'L', metadata: { resourceVersion: '7' } });
    }
  });

  test.each(Object.entries(lists))('with %s is the same byte by byte', (_, text) => {
    const { items, list } = split([...Buffer.from(text)].map((byte) => Uint8Array.of(byte)));
    expect(items).toEqual(trickyItems);
    expect(list).toMatchObject({ kind: 'L', items: [] });
  });

  test('keeps nothing of a chunk that its writer uses again', () => {
    const bytes = Buffer.from(lists['items first'] ?? '');
    const items: unknown[] = [];
    const splitter = createItemSplitter((item) => items.push(item));
    const buffer = Buffer.alloc(7);
    for (let at = 0; at < bytes.length; at += 7) {
      const length = bytes.copy(buffer, 0, at, at + 7);
      splitter.write(buffer.subarray(0, length));
      buffer.fill(0x21);
    }
    expect(splitter.finish()).toMatchObject({ kind: 'L' });
    expect(items).toEqual(trickyItems);
  });

  test('may be empty, null, or have no items', () => {
    for (const text of ['{"items":[]}', '{"items":null}', '{"items": [ ] , "a":1}', '{}']) {
      expect(split([Buffer.from(text)]).items).toEqual([]);
    }
  });

  test('cut short anywhere is an error, never a shorter list', () => {
    for (const text of Object.values(lists)) {
      const bytes = Buffer.from(text);
      for (let length = 0; length < bytes.length; length++) {
        expect(() => split([bytes.subarray(0, length)])).toThrow(/Cannot read a list/);
      }
    }
  });

  test.each([
    '{"items":[1]}',
    '{"items":["a"]}',
    '{"items":[[]]}',
    '{"items":[{"a":]}]}',
    '{"items":[{"a" 1}]}',
    '{"items":[{}]}{}',
    '{"items":[{}]}]',
    '{"items":[{}]} x',
    '[]',
    '"items"',
    'not JSON',
    '<html>',
  ])('that is %s is an error', (text) => {
    expect(() => split([Buffer.from(text)])).toThrow(/Cannot read a list/);
  });

  test('made at random is split as JSON.parse reads it', () => {
    const random = seededRandom(42);
    for (let round = 0; round < 300; round++) {
      const items = Array.from({ length: Math.floor(random() * 5) }, () => ({
        v: randomValue(random, 4),
      }));
      const rest = { [`k${round}`]: randomValue(random, 3), metadata: { resourceVersion: 'r' } };
      const object = random() < 0.5 ? { items, ...rest } : { ...rest, items };
      const bytes = Buffer.from(JSON.stringify(object, undefined, random() < 0.5 ? 1 : 0));
      const chunks: Buffer[] = [];
      for (let at = 0; at < bytes.length;) {
        const next = at + 1 + Math.floor(random() * 40);
        chunks.push(bytes.subarray(at, next));
        at = next;
      }
      const result = split(chunks);
      expect(result.items).toEqual(items);
      expect(result.list).toEqual({ ...object, items: [] });
    }
  });
});

function randomValue(random: () => number, depth: number): unknown {
  const kind = Math.floor(random() * (depth > 0 ? 7 : 5));
  const strings = ['', 'items', '"', '\\', '\\"', '{', ']', '😀', 'a\n\t', '","items":[{'];
  if (kind === 0) return random() * 1e6;
  if (kind === 1) return null;
  if (kind === 2) return random() < 0.5;
  if (kind <= 4) return strings[Math.floor(random() * strings.length)];
  const length = Math.floor(random() * 4);
  const values = Array.from({ length }, () => randomValue(random, depth - 1));
  if (kind === 5) return values;
  return Object.fromEntries(
    values.map((value, index) => [strings[(index * 3 + depth) % strings.length], value]),
  );
}
