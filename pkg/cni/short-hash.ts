/**
 * Names derived from a container's ID. Not for secrets. `node:crypto` would do, but loading it costs
 * the CNI executable 2.5 ms, a quarter of a whole ADD.
 */

const offsetBasis = 0xcbf29ce484222325n;
const prime = 0x100000001b3n;
// Not Buffer, nor an iterator of bytes: the first use of each costs the executable 0.1 to 0.3 ms.
const encoder = new TextEncoder();

/** 64 bits as 16 hex digits: FNV-1a, then MurmurHash3's finalizer so that any part may be cut out. */
export function shortHash(text: string): string {
  let hash = offsetBasis;
  const bytes = encoder.encode(text);
  for (let i = 0; i < bytes.byteLength; i++) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(bytes[i] ?? 0)) * prime);
  }
  hash = BigInt.asUintN(64, (hash ^ (hash >> 33n)) * 0xff51afd7ed558ccdn);
  hash = BigInt.asUintN(64, (hash ^ (hash >> 33n)) * 0xc4ceb9fe1a85ec53n);
  return (hash ^ (hash >> 33n)).toString(16).padStart(16, '0');
}
