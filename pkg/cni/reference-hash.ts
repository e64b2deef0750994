/**
 * Names as the reference plugins derive them: the start of a SHA-512. Only for what must be found
 * under the very name a reference plugin gave it; our own names use `shortHash`.
 */

/** The hash as 128 hex digits. */
export function referenceHash(text: string): string {
  // Under Bun `node:crypto` takes 5 ms to load, half a whole ADD, and this one is always there.
  const { Bun } = globalThis as { readonly Bun?: { readonly CryptoHasher: HasherClass } };
  if (Bun !== undefined) return new Bun.CryptoHasher('sha512').update(text).digest('hex');
  return process.getBuiltinModule('node:crypto').createHash('sha512').update(text).digest('hex');
}

type HasherClass = new (algorithm: 'sha512') => Hasher;

interface Hasher {
  update(text: string): this;
  digest(encoding: 'hex'): string;
}
