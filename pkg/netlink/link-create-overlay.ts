/** Making the devices that carry packets between nodes, but for VXLAN (link-create.ts). */
import { formatAddress, type Address } from '#pkg/ip/address.ts';
import { attribute, attributeAddress, attributeU8 } from './attribute.ts';
import {
  IFLA_IPTUN_COLLECT_METADATA,
  IFLA_IPTUN_LOCAL,
  IFLA_IPTUN_PROTO,
  IPPROTO_IPV6,
} from './constants.ts';
import { createLink, createLinkRequest } from './link-create.ts';
import type { Link } from './link.ts';
import type { NetlinkRequest, NetlinkSocket } from './socket.ts';

export interface NewTunnel {
  readonly name: string;
  readonly mtuBytes: number;
  readonly alias?: string;
  /**
   * Source of outer packets of an IPv4 device: their destination is the gateway of the route taken.
   * Undefined: an IPv6 device, where a route says both (`encap` in route.ts). The kernel refuses an
   * IPv6 gateway on a device when it knows a way to that address by another one, and here it does.
   */
  readonly local: Address | undefined;
}

/**
 * Makes an IP-in-IP device without a remote end, administratively up.
 *
 * @throws {NetlinkError} EEXIST when the name is taken, or another such device has this address, or
 *   is by route too; EOPNOTSUPP without CONFIG_NET_IPIP or CONFIG_IPV6_TUNNEL
 */
export function createTunnel(socket: NetlinkSocket, tunnel: NewTunnel): Link {
  return createLink(socket, tunnelRequest(tunnel), tunnel);
}

/** The message of {@link createTunnel} that makes the device. */
function tunnelRequest(tunnel: NewTunnel): NetlinkRequest {
  const { local } = tunnel;
  if (local === undefined) {
    const data = [
      attributeU8(IFLA_IPTUN_PROTO, IPPROTO_IPV6),
      attribute(IFLA_IPTUN_COLLECT_METADATA, new Uint8Array()),
    ];
    return createLinkRequest('ip6tnl', tunnel, [], data);
  }
  const create = createLinkRequest('ipip', tunnel, [], [attributeAddress(IFLA_IPTUN_LOCAL, local)]);
  return { ...create, what: `${create.what} (from ${formatAddress(local)})` };
}

/**
 * Makes a WireGuard device, administratively up, without a key.
 *
 * @throws {NetlinkError} EEXIST when the name is taken; EOPNOTSUPP without CONFIG_WIREGUARD
 */
export function createWireguard(
  socket: NetlinkSocket,
  device: { readonly name: string; readonly mtuBytes: number; readonly alias?: string },
): Link {
  return createLink(socket, createLinkRequest('wireguard', device, []), device);
}
