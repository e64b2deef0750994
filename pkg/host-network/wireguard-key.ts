/** WireGuard keys as values: X25519 (RFC 7748), base64 as `wg` prints them. */
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';

const keyBytes = 32;

/** What precedes the 32 bytes of an X25519 private key in PKCS #8 (RFC 8410 §7). */
const pkcs8Start = Buffer.from('302e020100300506032b656e04220420', 'hex');

/** A new private key. */
export function generatePrivateKey(): Uint8Array {
  const { privateKey } = generateKeyPairSync('x25519');
  const der = privateKey.export({ format: 'der', type: 'pkcs8' });
  return Uint8Array.from(der.subarray(pkcs8Start.byteLength));
}

/** The public key of a private one. */
export function publicKeyOf(privateKey: Uint8Array): string {
  const der = Buffer.concat([pkcs8Start, privateKey]);
  const key = createPublicKey(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }));
  const spki = key.export({ format: 'der', type: 'spki' });
  return Buffer.from(spki.subarray(spki.byteLength - keyBytes)).toString('base64');
}

/** 32 bytes in base64; undefined for anything else. */
export function parseKey(text: string): Uint8Array | undefined {
  if (!/^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/.test(text)) return undefined;
  return Uint8Array.from(Buffer.from(text, 'base64'));
}

/** Base64, as `wg` prints keys. */
export function formatKey(key: Uint8Array): string {
  return Buffer.from(key).toString('base64');
}

/** How plans and logs call a preshared key: it tells two apart and gives none away. */
export function presharedKeyName(key: Uint8Array): string {
  return createHash('sha256')
    .update('podwire preshared key')
    .update(key)
    .digest('hex')
    .slice(0, 16);
}
