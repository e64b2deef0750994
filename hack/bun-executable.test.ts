import { expect, test } from 'vitest';
import { removeSwitches, setAllocatorOption } from './bun-executable.ts';

/** A file of one segment, from offset 0 at address 0x200000, with a table of two options. */
function executable(): Buffer {
  const bytes = Buffer.alloc(512);
  bytes.writeBigUInt64LE(64n, 32); // e_phoff
  bytes.writeUInt16LE(56, 54); // e_phentsize
  bytes.writeUInt16LE(1, 56); // e_phnum
  bytes.writeUInt32LE(1, 64); // PT_LOAD
  bytes.writeBigUInt64LE(0x200000n, 64 + 16);
  bytes.writeBigUInt64LE(512n, 64 + 32);
  bytes.write('\0allow_thp\0mi-scavenger\0', 200, 'latin1');
  for (const [i, [value, nameAt]] of [[0n, 201] as const, [1n, 214] as const].entries()) {
    const at = 300 + 32 * i;
    bytes.writeBigInt64LE(value, at);
    bytes.writeUInt32LE(40 + i, at + 12);
    bytes.writeBigUInt64LE(0x200000n + BigInt(nameAt), at + 16);
  }
  return bytes;
}

test('sets the default of one option and nothing else', () => {
  const bytes = executable();
  setAllocatorOption(bytes, 'scavenger', { was: 1, value: 0 });
  const expected = executable();
  expected.writeBigInt64LE(0n, 332);
  expect(bytes).toEqual(expected);
});

test.each([
  ['no_such', 0, "Cannot find mimalloc's option no_such with default 0"],
  ['allow_thp', 1, "Cannot find mimalloc's option allow_thp with default 1"],
])('refuses %s with default %i', (name, was, message) => {
  expect(() => setAllocatorOption(executable(), name, { was, value: 2 })).toThrow(message);
});

test('no environment has the switches any more', () => {
  const text = 'a\0BUN_BE_BUN\0BUN_OPTIONS\0BUN_BYTECODE_ORDER_OUT\0BUN_BE_BUN\0';
  const bytes = Buffer.from(text, 'latin1');
  removeSwitches(bytes);
  expect(bytes.toString('latin1')).toBe(text.replaceAll(/BUN_\w+/g, (n) => '='.repeat(n.length)));
  expect(() => removeSwitches(bytes)).toThrow('Cannot find BUN_BE_BUN in the executable');
});
