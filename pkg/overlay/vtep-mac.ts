/**
 * The MAC address of a VXLAN device. Derived from the Node, not random: a device that has to be
 * made again gets the address its peers already hold, so no packet waits for their update. And
 * because it is set at creation, udev's MACAddressPolicy leaves it alone.
 */
import { createHash } from 'node:crypto';
import type { Address, Family } from '#pkg/ip/address.ts';

/** A locally administered unicast address (IEEE 802-2014 §8.4), lower case with colons. */
export function vtepMac(nodeUid: string, vni: number, family: Family): string {
  const bytes = createHash('sha256').update(`${nodeUid}|${vni}|${family}`).digest().subarray(0, 6);
  const first = ((bytes[0] ?? 0) & 0b1111_1100) | 0b10;
  return [first, ...bytes.subarray(1)].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

const macPattern = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/;

/** Whether lower-case text is a unicast MAC address other than zero. */
export function isMacAddress(text: string): boolean {
  if (!macPattern.test(text) || text === '00:00:00:00:00:00') return false;
  return (Number.parseInt(text.slice(0, 2), 16) & 1) === 0;
}

/** The IPv6 link-local address made of a MAC address (RFC 4291 §2.5.6, appendix A). */
export function linkLocalAddress(mac: string): Address {
  const [first = 0, ...rest] = mac.split(':').map((byte) => BigInt(Number.parseInt(byte, 16)));
  const bytes = [BigInt(first) ^ 0b10n, ...rest.slice(0, 2), 0xffn, 0xfen, ...rest.slice(2)];
  const identifier = bytes.reduce((value, byte) => (value << 8n) | byte, 0n);
  return { family: 'ip6', value: (0xfe80n << 112n) | identifier };
}
