/** How large a packet may be, so that it still fits the underlay with what the overlay adds. */
import type { Family } from '#pkg/ip/address.ts';

/**
 * What VXLAN adds to a packet (RFC 7348 §5): outer IP (20 or 40), UDP 8, VXLAN 8, inner Ethernet
 * 14. The underlay's own Ethernet header is outside its MTU.
 */
export const vxlanOverheadBytes: Readonly<Record<Family, number>> = { ip: 50, ip6: 70 };

/** What IP in IP adds: the outer header (RFC 2003, RFC 2473 without options). */
export const tunnelOverheadBytes: Readonly<Record<Family, number>> = { ip: 20, ip6: 40 };

/** What the userspace forwarder adds: outer IP and UDP. */
export const udpOverheadBytes: Readonly<Record<Family, number>> = { ip: 28, ip6: 48 };

/**
 * What WireGuard adds over IPv6: 40, UDP 8, header 16, tag 16. Over IPv4 it would be 20 less; as
 * `wg-quick` and flannel have it, the larger one always, since an endpoint may be either.
 */
export const wireguardOverheadBytes = 80;

/**
 * The smallest MTU a family works with: IPv4 by RFC 791, IPv6 by RFC 8200 §5. Below it the kernel
 * takes IPv6 off the device without a word.
 */
export const leastMtuBytes: Readonly<Record<Family, number>> = { ip: 68, ip6: 1280 };

/** The smaller of what fits and what is wished for. */
export function limitMtuBytes(fitsBytes: number, wishBytes: number | undefined): number {
  return Math.min(fitsBytes, wishBytes ?? fitsBytes);
}
