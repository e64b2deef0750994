import { describe, expect, test } from 'vitest';
import {
  formatKey,
  generatePrivateKey,
  parseKey,
  presharedKeyName,
  publicKeyOf,
} from './wireguard-key.ts';

describe('WireGuard keys', () => {
  test('the public key is what `wg pubkey` makes of the private one', () => {
    const key = parseKey('4D6aMXkyQhAOlija+oEg9NvwXSm9q6FoJ9RKCt2pa0g=');
    expect(key && publicKeyOf(key)).toBe('YO+WN+LAya145b1p2PBUaaFJ+NUgpML8PAaeclypkEc=');
  });

  test('each new key is another one, of 32 bytes', () => {
    const [a, b] = [generatePrivateKey(), generatePrivateKey()];
    expect([a.byteLength, b.byteLength]).toEqual([32, 32]);
    expect(formatKey(a)).not.toBe(formatKey(b));
    expect(parseKey(formatKey(a))).toEqual(a);
  });

  test.each(['', 'AAAA', 'A'.repeat(44), `${'A'.repeat(42)}B=`, `${'A'.repeat(43)}= `])(
    'refuses %j',
    (text) => expect(parseKey(text)).toBeUndefined(),
  );

  test('a preshared key’s name tells keys apart and holds nothing of them', () => {
    const key = new Uint8Array(32).fill(7);
    expect(presharedKeyName(key)).toMatch(/^[0-9a-f]{16}$/);
    expect(presharedKeyName(key)).not.toBe(presharedKeyName(new Uint8Array(32).fill(8)));
  });
});
