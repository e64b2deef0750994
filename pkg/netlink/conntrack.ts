/**
 * Connection tracking entries: flows the kernel remembers, and what it translates them to. A UDP
 * flow that goes on keeps its old translation for as long as it goes on, whatever the rules say.
 */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { addressFromBytes, type Address, type Family } from '#pkg/ip/address.ts';
import {
  attribute,
  attributeAddress,
  attributeBe16,
  attributeU32,
  attributeU8,
  findAttribute,
  nested,
  readBe16,
  readU8,
} from './attribute.ts';
import { familyNumber } from './family.ts';
import type { Message } from './message.ts';
import type { NetlinkRequest, NetlinkSocket } from './socket.ts';
import {
  CTA_TUPLE_ORIG,
  CTA_TUPLE_REPLY,
  CTA_ID,
  CTA_TUPLE_IP,
  CTA_TUPLE_PROTO,
  CTA_IP_V4_SRC,
  CTA_IP_V4_DST,
  CTA_IP_V6_SRC,
  CTA_IP_V6_DST,
  CTA_PROTO_NUM,
  CTA_PROTO_SRC_PORT,
  CTA_PROTO_DST_PORT,
  IPCTNL_MSG_CT_DELETE,
  IPCTNL_MSG_CT_GET,
  IPCTNL_MSG_CT_NEW,
} from './conntrack-constants.ts';

/** include/uapi/linux/netfilter/nfnetlink_conntrack.h */
const CTA_ZONE = 18;
const CTA_FILTER = 25;
const CTA_FILTER_ORIG_FLAGS = 1;
const CTA_FILTER_REPLY_FLAGS = 2;
/** net/netfilter/nf_conntrack_netlink.c */
const CTA_FILTER_F_CTA_IP_DST = 1 << 1;
const CTA_FILTER_F_CTA_PROTO_NUM = 1 << 3;
const CTA_FILTER_F_CTA_PROTO_DST_PORT = 1 << 5;

/** One direction of a flow. */
export interface ConntrackTuple {
  readonly source: Address;
  readonly destination: Address;
  /** IPPROTO_*. */
  readonly protocol: number | undefined;
  /** Undefined, as is the other, for protocols without ports. */
  readonly sourcePort: number | undefined;
  readonly destinationPort: number | undefined;
}

/** A flow as its first packet came in, and as its answers do: other addresses if translated. */
export interface ConntrackEntry {
  readonly original: ConntrackTuple;
  readonly reply: ConntrackTuple;
}

/** What the kernel is asked to pick out of its table, by the packets of one direction. */
export interface ConntrackQuery {
  readonly family: Family;
  readonly direction: 'original' | 'reply';
  /** IPPROTO_*. */
  readonly protocol: number;
  /** Undefined = any, as with the address. */
  readonly destinationPort: number | undefined;
  /**
   * IPv4 only: by an IPv6 address kernels list all other entries (ctnetlink_filter_match_tuple has
   * the comparison the wrong way round, seen in 6.18).
   */
  readonly destination?: Address | undefined;
}

export interface ConntrackFilter extends ConntrackQuery {
  readonly destinationPort: number;
  readonly matches: (entry: ConntrackEntry) => boolean;
}

/**
 * Forgets the flows of one destination port that `matches` says yes to: their next packet is
 * looked at anew. A kernel without this interface remembers nothing we could delete.
 *
 * @param socket of protocol NETLINK_NETFILTER
 */
export function deleteConntrack(socket: NetlinkSocket, filter: ConntrackFilter): void {
  const requests = listMessages(socket, filter).flatMap((message) => {
    const entry = readConntrack(message);
    if (entry === undefined) return [];
    // Kernels before 5.8 do not know the filter and list everything.
    const { protocol, destinationPort } = entry[filter.direction];
    if (protocol !== filter.protocol || destinationPort !== filter.destinationPort) return [];
    return filter.matches(entry) ? [conntrackDeletion(filter.family, message)] : [];
  });
  for (const { error } of socket.batch(requests)) {
    // It may have ended by itself meanwhile.
    if (error !== undefined && !isErrno(error, 'ENOENT')) throw error;
  }
}

function listMessages(socket: NetlinkSocket, query: ConntrackQuery): readonly Message[] {
  try {
    return socket.dump(conntrackDump(query));
  } catch (error) {
    // The module nf_conntrack_netlink is not there.
    if (isErrno(error, 'EINVAL') || isErrno(error, 'EOPNOTSUPP')) return [];
    throw error;
  }
}

/**
 * The dump of the entries a query asks for. Kernels filter since 5.8 (CTA_FILTER) and compare for
 * equality only; older ones ignore the query and list the family's whole table.
 */
export function conntrackDump(query: ConntrackQuery): NetlinkRequest {
  const { destinationPort, family, protocol } = query;
  const destination = family === 'ip' ? query.destination : undefined;
  const isOriginal = query.direction === 'original';
  const flags =
    CTA_FILTER_F_CTA_PROTO_NUM |
    (destinationPort === undefined ? 0 : CTA_FILTER_F_CTA_PROTO_DST_PORT) |
    (destination === undefined ? 0 : CTA_FILTER_F_CTA_IP_DST);
  return {
    type: IPCTNL_MSG_CT_GET,
    body: [
      nfgenmsg(family),
      nested(isOriginal ? CTA_TUPLE_ORIG : CTA_TUPLE_REPLY, [
        ...(destination === undefined
          ? []
          : [nested(CTA_TUPLE_IP, [attributeAddress(CTA_IP_V4_DST, destination)])]),
        nested(CTA_TUPLE_PROTO, [
          attributeU8(CTA_PROTO_NUM, protocol),
          ...(destinationPort === undefined
            ? []
            : [attributeBe16(CTA_PROTO_DST_PORT, destinationPort)]),
        ]),
      ]),
      nested(CTA_FILTER, [
        attributeU32(CTA_FILTER_ORIG_FLAGS, isOriginal ? flags : 0),
        attributeU32(CTA_FILTER_REPLY_FLAGS, isOriginal ? 0 : flags),
      ]),
    ],
    what: 'list tracked connections',
  };
}

/**
 * The deletion of an entry that a dump listed. By its identity it hardly ever hits one that took its
 * place since: identities are made from the entry's place in memory, which the kernel uses again.
 */
export function conntrackDeletion(family: Family, listed: Message): NetlinkRequest {
  const attributes = attributesOf(listed);
  const copy = (type: number): Uint8Array[] => {
    const payload = findAttribute(attributes, type);
    return payload === undefined ? [] : [attribute(type, payload)];
  };
  const original = findAttribute(attributes, CTA_TUPLE_ORIG) ?? new Uint8Array();
  return {
    type: IPCTNL_MSG_CT_DELETE,
    body: [
      nfgenmsg(family),
      nested(CTA_TUPLE_ORIG, [original]),
      ...copy(CTA_ID),
      ...copy(CTA_ZONE),
    ],
    what: 'delete a tracked connection',
  };
}

/** An entry that a dump listed; undefined for any other message. */
export function readConntrack(message: Message): ConntrackEntry | undefined {
  if (message.type !== IPCTNL_MSG_CT_NEW) return undefined;
  const attributes = attributesOf(message);
  const original = readTuple(findAttribute(attributes, CTA_TUPLE_ORIG));
  const reply = readTuple(findAttribute(attributes, CTA_TUPLE_REPLY));
  return original === undefined || reply === undefined ? undefined : { original, reply };
}

/** One end of a listed flow, undecoded: most of a million entries are not worth more. */
export interface RawEndpoint {
  readonly protocol: number | undefined;
  readonly port: number | undefined;
  /** 4 or 16 bytes, in the message that listed it; undefined where there is none. */
  readonly address: Uint8Array | undefined;
}

/** Where a listed entry's first packet went; undefined for any other message. */
export function peekDestination(message: Message): RawEndpoint | undefined {
  if (message.type !== IPCTNL_MSG_CT_NEW) return undefined;
  return readEnd(message, CTA_TUPLE_ORIG, 'destination');
}

/** Who answers a listed entry. */
export function peekServer(message: Message): RawEndpoint {
  return readEnd(message, CTA_TUPLE_REPLY, 'source');
}

function readEnd(message: Message, type: number, end: 'source' | 'destination'): RawEndpoint {
  const tuple = findAttribute(attributesOf(message), type) ?? nothing;
  const ip = findAttribute(tuple, CTA_TUPLE_IP) ?? nothing;
  const proto = findAttribute(tuple, CTA_TUPLE_PROTO) ?? nothing;
  const isSource = end === 'source';
  return {
    protocol: readU8(findAttribute(proto, CTA_PROTO_NUM)),
    port: readBe16(findAttribute(proto, isSource ? CTA_PROTO_SRC_PORT : CTA_PROTO_DST_PORT)),
    address:
      findAttribute(ip, isSource ? CTA_IP_V4_SRC : CTA_IP_V4_DST) ??
      findAttribute(ip, isSource ? CTA_IP_V6_SRC : CTA_IP_V6_DST),
  };
}

function readTuple(tuple: Uint8Array = nothing): ConntrackTuple | undefined {
  const ip = findAttribute(tuple, CTA_TUPLE_IP) ?? nothing;
  const proto = findAttribute(tuple, CTA_TUPLE_PROTO) ?? nothing;
  const address = (v4: number, v6: number): Address | undefined =>
    readAddress(findAttribute(ip, v4) ?? findAttribute(ip, v6));
  const source = address(CTA_IP_V4_SRC, CTA_IP_V6_SRC);
  const destination = address(CTA_IP_V4_DST, CTA_IP_V6_DST);
  if (source === undefined || destination === undefined) return undefined;
  return {
    source,
    destination,
    protocol: readU8(findAttribute(proto, CTA_PROTO_NUM)),
    sourcePort: readBe16(findAttribute(proto, CTA_PROTO_SRC_PORT)),
    destinationPort: readBe16(findAttribute(proto, CTA_PROTO_DST_PORT)),
  };
}

function readAddress(bytes: Uint8Array | undefined): Address | undefined {
  return bytes?.byteLength === 4 || bytes?.byteLength === 16 ? addressFromBytes(bytes) : undefined;
}

function attributesOf(message: Message): Uint8Array {
  return message.body.subarray(nfgenmsgBytes);
}

/** struct nfgenmsg { u8 family; u8 version; be16 res_id; } (include/uapi/linux/netfilter/nfnetlink.h) */
function nfgenmsg(family: Family): Uint8Array {
  return Uint8Array.of(familyNumber(family), 0, 0, 0);
}

const nothing = new Uint8Array();
const nfgenmsgBytes = 4;
