/** Reads what the pod network needs to know of this host's links. */
import { families } from '#pkg/ip/address.ts';
import type { Prefix } from '#pkg/ip/prefix.ts';
import { listAddresses } from '#pkg/netlink/address.ts';
import { listLinks } from '#pkg/netlink/link.ts';
import { listRoutes } from '#pkg/netlink/route.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import type { HostLink } from '#pkg/overlay/underlay.ts';

/** Every link with its addresses and what the main table reaches on it without a gateway. */
export function observeHostLinks(socket: NetlinkSocket): readonly HostLink[] {
  const addresses = new Map<number, Prefix[]>();
  const onLinkPrefixes = new Map<number, Prefix[]>();
  for (const { linkIndex, prefix, dadFailed } of listAddresses(socket)) {
    if (!dadFailed) append(addresses, linkIndex, prefix);
  }
  for (const family of families) {
    for (const { destination, gateway, linkIndex } of listRoutes(socket, { family })) {
      // A default route without a gateway is a point-to-point line: it says nothing of neighbours.
      if (gateway !== undefined || linkIndex === undefined || destination.length === 0) continue;
      append(onLinkPrefixes, linkIndex, destination);
    }
  }
  return listLinks(socket).map(({ index, name, mtuBytes }) => ({
    name,
    mtuBytes,
    addresses: addresses.get(index) ?? [],
    onLinkPrefixes: onLinkPrefixes.get(index) ?? [],
  }));
}

function append(map: Map<number, Prefix[]>, key: number, prefix: Prefix): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [prefix]);
  else list.push(prefix);
}
