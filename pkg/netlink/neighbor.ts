/** Neighbour entries (ARP, NDP) and the forwarding entries (FDB) of VXLAN devices. */
import { addressFromBytes, formatAddress, type Address, type Family } from '#pkg/ip/address.ts';
import {
  attributeAddress,
  attributeMac,
  attributeU32,
  littleEndian,
  readAttributes,
  readMac,
  viewOf,
} from './attribute.ts';
import {
  AF_BRIDGE,
  NDA_DST,
  NDA_IFINDEX,
  NDA_LLADDR,
  NLM_F_CREATE,
  NLM_F_REPLACE,
  NTF_SELF,
  NUD_NOARP,
  NUD_PERMANENT,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from './constants.ts';
import { familyNumber } from './family.ts';
import type { Message } from './message.ts';
import type { NetlinkRequest, NetlinkSocket } from './socket.ts';

/** `address` on the link has the MAC address `mac`. */
export interface NeighborEntry {
  readonly linkIndex: number;
  readonly address: Address;
  readonly mac: string;
}

/** Frames to `mac` go to the VTEP at `remote` (RFC 7348). */
export interface ForwardingEntry {
  readonly linkIndex: number;
  readonly mac: string;
  readonly remote: Address;
}

/** A neighbour the kernel reports. */
export interface NeighborRecord {
  readonly linkIndex: number;
  readonly address: Address;
  /** Undefined while unresolved. */
  readonly mac: string | undefined;
  /** Configured, not resolved: never expires. */
  readonly permanent: boolean;
}

/** A forwarding entry the kernel reports. */
export interface ForwardingRecord extends ForwardingEntry {
  readonly permanent: boolean;
}

/** Neighbours of a family, on one link or all. */
export function listNeighbors(
  socket: NetlinkSocket,
  filter: { readonly family: Family; readonly linkIndex?: number },
): NeighborRecord[] {
  return dumpNeighbors(socket, familyNumber(filter.family), filter.linkIndex).flatMap((message) => {
    const entry = parseNeighbor(message);
    if (entry?.address === undefined || entry.address.family !== filter.family) return [];
    const { linkIndex, address, mac, permanent } = entry;
    return [{ linkIndex, address, mac, permanent }];
  });
}

/** The forwarding entries of a VXLAN device. */
export function listForwarding(socket: NetlinkSocket, linkIndex: number): ForwardingRecord[] {
  return dumpNeighbors(socket, AF_BRIDGE, linkIndex).flatMap((message) => {
    const entry = parseNeighbor(message);
    if (entry?.address === undefined || entry.mac === undefined) return [];
    return [{ linkIndex, mac: entry.mac, remote: entry.address, permanent: entry.permanent }];
  });
}

/** Sets a permanent neighbour, whatever the kernel knew of the address before. */
export function putNeighborRequest(neighbor: NeighborEntry): NetlinkRequest {
  const { linkIndex, address, mac } = neighbor;
  return {
    type: RTM_NEWNEIGH,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: [
      neighborHeader(familyNumber(address.family), linkIndex, NUD_PERMANENT),
      attributeAddress(NDA_DST, address),
      attributeMac(NDA_LLADDR, mac),
    ],
    what: `set neighbor ${formatAddress(address)} at ${mac} on link ${linkIndex}`,
  };
}

/** Deletes a neighbour; ENOENT when there is none. */
export function deleteNeighborRequest(
  neighbor: Pick<NeighborEntry, 'linkIndex' | 'address'>,
): NetlinkRequest {
  const { linkIndex, address } = neighbor;
  return {
    type: RTM_DELNEIGH,
    body: [
      neighborHeader(familyNumber(address.family), linkIndex),
      attributeAddress(NDA_DST, address),
    ],
    what: `delete neighbor ${formatAddress(address)} on link ${linkIndex}`,
  };
}

/** Sets a permanent forwarding entry of a VXLAN device; its remote changes without a gap. */
export function putForwardingRequest(entry: ForwardingEntry): NetlinkRequest {
  return {
    type: RTM_NEWNEIGH,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: forwardingBody(entry),
    what: `set forwarding entry ${describeForwarding(entry)}`,
  };
}

/** Deletes a forwarding entry; ENOENT when there is none. */
export function deleteForwardingRequest(entry: ForwardingEntry): NetlinkRequest {
  return {
    type: RTM_DELNEIGH,
    body: forwardingBody(entry),
    what: `delete forwarding entry ${describeForwarding(entry)}`,
  };
}

function forwardingBody({ linkIndex, mac, remote }: ForwardingEntry): Uint8Array[] {
  return [
    neighborHeader(AF_BRIDGE, linkIndex, NUD_PERMANENT | NUD_NOARP, NTF_SELF),
    attributeMac(NDA_LLADDR, mac),
    attributeAddress(NDA_DST, remote),
  ];
}

function describeForwarding({ linkIndex, mac, remote }: ForwardingEntry): string {
  return `${mac} to ${formatAddress(remote)} on link ${linkIndex}`;
}

function dumpNeighbors(
  socket: NetlinkSocket,
  family: number,
  linkIndex: number | undefined,
): Message[] {
  const messages = socket.dump({
    type: RTM_GETNEIGH,
    body: [
      neighborHeader(family, 0),
      ...(linkIndex === undefined ? [] : [attributeU32(NDA_IFINDEX, linkIndex)]),
    ],
    what: family === AF_BRIDGE ? 'list forwarding entries' : 'list neighbors',
  });
  if (linkIndex === undefined) return [...messages];
  // Kernels without NETLINK_GET_STRICT_CHK do not filter.
  return messages.filter((message) => parseNeighbor(message)?.linkIndex === linkIndex);
}

interface ParsedNeighbor {
  readonly linkIndex: number;
  readonly address: Address | undefined;
  readonly mac: string | undefined;
  readonly permanent: boolean;
}

function parseNeighbor(message: Message): ParsedNeighbor | undefined {
  if (message.type !== RTM_NEWNEIGH || message.body.byteLength < 12) return undefined;
  const view = viewOf(message.body);
  const attributes = readAttributes(message.body.subarray(12));
  const destination = attributes.get(NDA_DST);
  return {
    linkIndex: view.getInt32(4, littleEndian),
    address:
      destination?.byteLength === 4 || destination?.byteLength === 16
        ? addressFromBytes(destination)
        : undefined,
    mac: readMac(attributes.get(NDA_LLADDR)),
    permanent: (view.getUint16(8, littleEndian) & NUD_PERMANENT) !== 0,
  };
}

/** struct ndmsg (include/uapi/linux/neighbour.h) */
function neighborHeader(family: number, linkIndex: number, state = 0, flags = 0): Uint8Array {
  const bytes = new Uint8Array(12);
  const view = viewOf(bytes);
  bytes[0] = family;
  view.setInt32(4, linkIndex, littleEndian);
  view.setUint16(8, state, littleEndian);
  bytes[10] = flags;
  return bytes;
}
