/**
 * Names and MAC addresses of an attachment's links, derived and not random: DEL needs no memory of
 * ADD, and people find the host's end of a pod from the container's ID.
 */
import { addressBytes, formatAddress, type Address } from '#pkg/ip/address.ts';
import type { Attachment } from '#pkg/cni/environment.ts';
import { shortHash } from '#pkg/cni/short-hash.ts';
import { podwireAlias } from '#pkg/host-network/object.ts';

/** The host's end: "veth" and 11 hex digits fill the 15 bytes of an interface name. */
export function hostLinkName({ containerId, ifName }: Attachment): string {
  return `veth${shortHash(`${containerId}:${ifName}`).slice(0, 11)}`;
}

/**
 * The MAC of the host's end. Set when the link is made: systemd-udevd gives interfaces whose address
 * is random another one a little later (MACAddressPolicy=persistent).
 */
export function hostLinkMac({ containerId, ifName }: Attachment): string {
  return localMac([0x0e, ...hashBytes(`host:${containerId}:${ifName}`, 5)]);
}

/**
 * The MAC of an interface with this address: the same whenever the address is given out again, so
 * that no neighbour has an old entry for it. "0a:58" and the IPv4 address, as kubenet began it.
 */
export function addressMac(address: Address): string {
  const bytes =
    address.family === 'ip' ? addressBytes(address) : hashBytes(formatAddress(address), 4);
  return localMac([0x0a, 0x58, ...bytes]);
}

/** Marks the host's end as ours and says whose it is: `ip link` shows it, GC finds it. */
export function hostLinkAlias(network: string, { containerId, ifName }: Attachment): string {
  return `${networkAlias(network)}${containerId} ${ifName}`.slice(0, maxAliasBytes);
}

/** How the alias of every link of this network starts. */
export function networkAlias(network: string): string {
  return `${podwireAlias} ${network} `;
}

/** IFALIASZ (include/uapi/linux/if.h) counts the terminating zero. */
const maxAliasBytes = 255;

function hashBytes(text: string, count: number): number[] {
  const hash = shortHash(text);
  const bytes: number[] = [];
  for (let at = 0; bytes.length < count; at += 2) {
    bytes.push(Number.parseInt(hash.slice(at, at + 2), 16));
  }
  return bytes;
}

function localMac(bytes: readonly number[]): string {
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}
