/** Neighbour entries (ARP, NDP) and the forwarding entries (FDB) of VXLAN devices. */
import { addressFromBytes, formatAddress, type Address, type Family } from '#pkg/ip/address.ts';
import { attributeU32, getU16, getU32, readAttributes, readMac } from './attribute.ts';
import {
  AF_BRIDGE,
  NDA_DST,
  NDA_IFINDEX,
  NDA_LLADDR,
  NDA_PORT,
  NDA_VNI,
  NLM_F_CREATE,
  NLM_F_REPLACE,
  NTF_SELF,
  NUD_NOARP,
  NUD_PERMANENT,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from './constants.ts';
import { BodyWriter } from './body-writer.ts';
import { DescribedRequest } from './described-request.ts';
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
  /** Frames leave with another UDP port, VNI or link than the device's own. */
  readonly special: boolean;
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
    const { mac, address: remote, permanent, special } = entry;
    return [{ linkIndex, mac, remote, permanent, special }];
  });
}

/** Sets a permanent neighbour, whatever the kernel knew of the address before. */
export function putNeighborRequest(neighbor: NeighborEntry): NetlinkRequest {
  const { linkIndex, address, mac } = neighbor;
  const body = neighborBody(familyNumber(address.family), linkIndex, address, mac);
  return new DescribedRequest(
    RTM_NEWNEIGH,
    put,
    body,
    () => `set neighbor ${formatAddress(address)} at ${mac} on link ${linkIndex}`,
  );
}

/** Deletes a neighbour; ENOENT when there is none. */
export function deleteNeighborRequest(
  neighbor: Pick<NeighborEntry, 'linkIndex' | 'address'>,
): NetlinkRequest {
  const { linkIndex, address } = neighbor;
  const body = neighborHeader(familyNumber(address.family), linkIndex);
  body.addAddress(NDA_DST, address);
  const describe = (): string => `delete neighbor ${formatAddress(address)} on link ${linkIndex}`;
  return new DescribedRequest(RTM_DELNEIGH, 0, body.finish(), describe);
}

const put = NLM_F_CREATE | NLM_F_REPLACE;

/** Sets a permanent forwarding entry of a VXLAN device; its remote changes without a gap. */
export function putForwardingRequest(entry: ForwardingEntry): NetlinkRequest {
  const body = forwardingBody(entry);
  return new DescribedRequest(
    RTM_NEWNEIGH,
    put,
    body,
    () => `set forwarding entry ${describeForwarding(entry)}`,
  );
}

/**
 * Deletes what there is for a MAC address, wherever it leads: by its remote the kernel finds only one
 * with the device's own port. ENOENT when there is none.
 */
export function deleteForwardingRequest(entry: ForwardingEntry): NetlinkRequest {
  const body = forwardingHeader(entry);
  return new DescribedRequest(
    RTM_DELNEIGH,
    0,
    body.finish(),
    () => `delete forwarding entry ${describeForwarding(entry)}`,
  );
}

function neighborBody(
  ...[family, linkIndex, address, mac]: [number, number, Address, string]
): Uint8Array {
  const body = neighborHeader(family, linkIndex, NUD_PERMANENT);
  body.addAddress(NDA_DST, address);
  body.addMac(NDA_LLADDR, mac);
  return body.finish();
}

function forwardingBody(entry: ForwardingEntry): Uint8Array {
  const body = forwardingHeader(entry);
  body.addAddress(NDA_DST, entry.remote);
  return body.finish();
}

function forwardingHeader({ linkIndex, mac }: ForwardingEntry): BodyWriter {
  const body = neighborHeader(AF_BRIDGE, linkIndex, NUD_PERMANENT | NUD_NOARP, NTF_SELF);
  body.addMac(NDA_LLADDR, mac);
  return body;
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
      neighborHeader(family, 0).finish(),
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
  readonly special: boolean;
}

function parseNeighbor(message: Message): ParsedNeighbor | undefined {
  if (message.type !== RTM_NEWNEIGH || message.body.byteLength < 12) return undefined;
  const attributes = readAttributes(message.body.subarray(12));
  const destination = attributes.get(NDA_DST);
  return {
    linkIndex: getU32(message.body, 4),
    address:
      destination?.byteLength === 4 || destination?.byteLength === 16
        ? addressFromBytes(destination)
        : undefined,
    mac: readMac(attributes.get(NDA_LLADDR)),
    permanent: (getU16(message.body, 8) & NUD_PERMANENT) !== 0,
    special: [NDA_PORT, NDA_VNI, NDA_IFINDEX].some((type) => attributes.has(type)),
  };
}

/** struct ndmsg (include/uapi/linux/neighbour.h) */
function neighborHeader(family: number, linkIndex: number, state = 0, flags = 0): BodyWriter {
  const body = new BodyWriter(12);
  body.setU8(0, family);
  body.setU32(4, linkIndex);
  body.setU16(8, state);
  body.setU8(10, flags);
  return body;
}
