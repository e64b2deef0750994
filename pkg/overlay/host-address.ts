/** Which addresses can be a node's, as others send to it. */
import type { Address } from '#pkg/ip/address.ts';
import { containsAddress, parsePrefix } from '#pkg/ip/prefix.ts';

/**
 * Not those of everybody's own (unspecified, loopback), of many (multicast, broadcast), of one link
 * whose name is not told (RFC 4291 §2.5.6), nor IPv4 in the form of IPv6 (§2.5.5.2), which no packet
 * carries. The kernel refuses some of them, and with others a packet goes where it should not.
 */
const unusable = [
  '0.0.0.0/8',
  '127.0.0.0/8',
  '224.0.0.0/4',
  '255.255.255.255/32',
  '::/127',
  '::ffff:0:0/96',
  'fe80::/10',
  'ff00::/8',
].map(parsePrefix);

/** Whether packets to this address get to one host, from anywhere in its network. */
export function isHostAddress(address: Address): boolean {
  return !unusable.some((prefix) => containsAddress(prefix, address));
}
