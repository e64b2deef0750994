import { describe, expect, test } from 'vitest';
import { encodeVtyCommand, takeVtyReply } from './vty-codec.ts';

const bytes = (text: string): Buffer => Buffer.from(text, 'latin1');

describe('FRR’s vty protocol', () => {
  test('a command ends with a NUL', () => {
    expect(Buffer.from(encodeVtyCommand('show version'))).toEqual(bytes('show version\0'));
  });

  test.each(['', 'a\nb', 'a\0b', 'a\r'])('%j is no command', (command) => {
    expect(() => encodeVtyCommand(command)).toThrow('expected one line of text');
  });

  test.each([
    ['nothing but a status', '\0\0\0\0', { status: 0, text: '' }, 4],
    ['text', 'one\ntwo\n\0\0\0\0', { status: 0, text: 'one\ntwo\n' }, 12],
    ['a refusal', '% Unknown command\n\0\0\0\x02', { status: 2, text: '% Unknown command\n' }, 22],
    ['the next one behind it', 'one\0\0\0\x0dtwo\0\0\0\0', { status: 13, text: 'one' }, 7],
    ['a status of zero before more zeros', 'a\0\0\0\0\0\0\0\x01', { status: 0, text: 'a' }, 5],
  ])('reads %s', (_, text, reply, length) => {
    expect(takeVtyReply(bytes(text))).toEqual({ reply, length });
  });

  test.each(['', 'text', 'text\0', 'text\0\0', 'text\0\0\0'])('%j is not all of it', (text) => {
    expect(takeVtyReply(bytes(text))).toBeUndefined();
  });
});
