import { expect, test } from 'vitest';
import { createLineSplitter } from './line-splitter.ts';

const text = '{"a":"ü😀"}\n\n{"b":2}\r\n{"c":"\\n"}\n';
const lines = ['{"a":"ü😀"}', '{"b":2}', '{"c":"\\n"}'];

function split(chunks: readonly Uint8Array[]): string[] {
  const found: string[] = [];
  const splitter = createLineSplitter((line) => found.push(line));
  for (const chunk of chunks) splitter.write(chunk);
  splitter.finish();
  return found;
}

test('lines are the same cut at every two bytes', () => {
  const bytes = Buffer.from(text);
  for (let a = 0; a <= bytes.length; a++) {
    for (let b = a; b <= bytes.length; b++) {
      expect(split([bytes.subarray(0, a), bytes.subarray(a, b), bytes.subarray(b)])).toEqual(lines);
    }
  }
});

test('a body that ends inside a line is an error', () => {
  expect(() => split([Buffer.from('{"a":1}\n{"b"')])).toThrow(/ended inside a line/);
});

test('a part that waits does not follow the buffer it came in', () => {
  const found: string[] = [];
  const splitter = createLineSplitter((line) => found.push(line));
  const buffer = Buffer.from('half');
  splitter.write(buffer);
  buffer.fill(0x21);
  splitter.write(Buffer.from(' line\n'));
  expect(found).toEqual(['half line']);
});
