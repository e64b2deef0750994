/** How large a packet may be, so that it still fits the underlay with what the overlay adds. */
import type { Family } from '#pkg/ip/address.ts';

/**
 * What VXLAN adds to a packet (RFC 7348 §5): outer IP (20 or 40), UDP 8, VXLAN 8, inner Ethernet
 * 14. The underlay's own Ethernet header is outside its MTU.
 */
export const vxlanOverheadBytes: Readonly<Record<Family, number>> = { ip: 50, ip6: 70 };

/**
 * The smallest MTU a family works with: IPv4 by RFC 791, IPv6 by RFC 8200 §5. Below it the kernel
 * takes IPv6 off the device without a word.
 */
export const leastMtuBytes: Readonly<Record<Family, number>> = { ip: 68, ip6: 1280 };

/** The smaller of what fits and what is wished for. */
export function limitMtuBytes(fitsBytes: number, wishBytes: number | undefined): number {
  return Math.min(fitsBytes, wishBytes ?? fitsBytes);
}
