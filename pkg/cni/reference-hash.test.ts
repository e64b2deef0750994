import { expect, it } from 'vitest';
import { referenceHash } from './reference-hash.ts';

it('is SHA-512, so that names are those of the reference plugins', () => {
  // From `printf netabc | sha512sum`.
  expect(referenceHash('netabc')).toMatch(/^3ce8a0924fde[0-9a-f]{116}$/);
});
