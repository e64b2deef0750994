/** Names the server makes from `metadata.generateName` (apiserver pkg/storage/names). */
import { randomInt } from 'node:crypto';

const suffixLength = 5;
/** 63 is what a label may hold: generated names often end up in one. */
const maxLength = 63;
/** Without vowels, and digits that look like them: no words come out. */
const alphabet = 'bcdfghjklmnpqrstvwxz2456789';

/** The prefix, cut if it must be, and five random letters. */
export function generatedName(prefix: string): string {
  let suffix = '';
  for (let i = 0; i < suffixLength; i++) suffix += alphabet[randomInt(alphabet.length)] ?? '';
  return prefix.slice(0, maxLength - suffixLength) + suffix;
}
