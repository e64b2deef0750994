/**
 * Connection tracking entries: flows the kernel remembers, and what it translates them to. A UDP
 * flow that goes on keeps its old translation for as long as it goes on, whatever the rules say.
 */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { addressFromBytes, type Address, type Family } from '#pkg/ip/address.ts';
import {
  attribute,
  attributeBe16,
  attributeU32,
  attributeU8,
  nested,
  readAttributes,
  readBe16,
  readNested,
  readU8,
  type Attributes,
} from './attribute.ts';
import { familyNumber } from './family.ts';
import type { Message } from './message.ts';
import type { NetlinkRequest, NetlinkSocket } from './socket.ts';

/** include/uapi/linux/netfilter/nfnetlink.h: NFNL_SUBSYS_CTNETLINK << 8, and the message */
const IPCTNL_MSG_CT_NEW = 0x100;
const IPCTNL_MSG_CT_GET = 0x101;
const IPCTNL_MSG_CT_DELETE = 0x102;

/** include/uapi/linux/netfilter/nfnetlink_conntrack.h */
const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_ZONE = 18;
const CTA_FILTER = 25;
const CTA_FILTER_ORIG_FLAGS = 1;
const CTA_FILTER_REPLY_FLAGS = 2;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_IP_V4_SRC = 1;
const CTA_IP_V4_DST = 2;
const CTA_IP_V6_SRC = 3;
const CTA_IP_V6_DST = 4;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_DST_PORT = 3;
/** net/netfilter/nf_conntrack_netlink.c */
const CTA_FILTER_F_CTA_PROTO_NUM = 1 << 3;
const CTA_FILTER_F_CTA_PROTO_DST_PORT = 1 << 5;

/** The addresses of one direction of a flow. */
export interface ConntrackTuple {
  readonly source: Address;
  readonly destination: Address;
}

/** A flow as its first packet came in, and as its answers do: other addresses if translated. */
export interface ConntrackEntry {
  readonly original: ConntrackTuple;
  readonly reply: ConntrackTuple;
}

export interface ConntrackFilter {
  readonly family: Family;
  /** IPPROTO_*. */
  readonly protocol: number;
  /** Of packets in `direction`. */
  readonly destinationPort: number;
  readonly direction: 'original' | 'reply';
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
    const attributes = readAttributes(message.body.subarray(nfgenmsgBytes));
    const original = readTuple(attributes.get(CTA_TUPLE_ORIG));
    const reply = readTuple(attributes.get(CTA_TUPLE_REPLY));
    if (original === undefined || reply === undefined) return [];
    // Kernels before 5.8 do not know the filter and list everything.
    const { protocol, destinationPort } = filter.direction === 'original' ? original : reply;
    if (protocol !== filter.protocol || destinationPort !== filter.destinationPort) return [];
    return filter.matches({ original, reply }) ? [deleteRequest(filter.family, attributes)] : [];
  });
  for (const { error } of socket.batch(requests)) {
    // It may have ended by itself meanwhile.
    if (error !== undefined && !isErrno(error, 'ENOENT')) throw error;
  }
}

function listMessages(socket: NetlinkSocket, filter: ConntrackFilter): readonly Message[] {
  const flags = CTA_FILTER_F_CTA_PROTO_NUM | CTA_FILTER_F_CTA_PROTO_DST_PORT;
  const isOriginal = filter.direction === 'original';
  try {
    return socket
      .dump({
        type: IPCTNL_MSG_CT_GET,
        body: [
          nfgenmsg(filter.family),
          nested(isOriginal ? CTA_TUPLE_ORIG : CTA_TUPLE_REPLY, [
            nested(CTA_TUPLE_PROTO, [
              attributeU8(CTA_PROTO_NUM, filter.protocol),
              attributeBe16(CTA_PROTO_DST_PORT, filter.destinationPort),
            ]),
          ]),
          nested(CTA_FILTER, [
            attributeU32(CTA_FILTER_ORIG_FLAGS, isOriginal ? flags : 0),
            attributeU32(CTA_FILTER_REPLY_FLAGS, isOriginal ? 0 : flags),
          ]),
        ],
        what: 'list tracked connections',
      })
      .filter(({ type }) => type === IPCTNL_MSG_CT_NEW);
  } catch (error) {
    // The module nf_conntrack_netlink is not there.
    if (isErrno(error, 'EINVAL') || isErrno(error, 'EOPNOTSUPP')) return [];
    throw error;
  }
}

function deleteRequest(family: Family, attributes: Attributes): NetlinkRequest {
  const original = attributes.get(CTA_TUPLE_ORIG) ?? new Uint8Array();
  const zone = attributes.get(CTA_ZONE);
  return {
    type: IPCTNL_MSG_CT_DELETE,
    body: [
      nfgenmsg(family),
      nested(CTA_TUPLE_ORIG, [original]),
      ...(zone === undefined ? [] : [attribute(CTA_ZONE, zone)]),
    ],
    what: 'delete a tracked connection',
  };
}

interface Tuple extends ConntrackTuple {
  readonly protocol: number | undefined;
  readonly destinationPort: number | undefined;
}

function readTuple(payload: Uint8Array | undefined): Tuple | undefined {
  const tuple = readNested(payload);
  const ip = readNested(tuple.get(CTA_TUPLE_IP));
  const proto = readNested(tuple.get(CTA_TUPLE_PROTO));
  const source = readAddress(ip.get(CTA_IP_V4_SRC) ?? ip.get(CTA_IP_V6_SRC));
  const destination = readAddress(ip.get(CTA_IP_V4_DST) ?? ip.get(CTA_IP_V6_DST));
  if (source === undefined || destination === undefined) return undefined;
  return {
    source,
    destination,
    protocol: readU8(proto.get(CTA_PROTO_NUM)),
    destinationPort: readBe16(proto.get(CTA_PROTO_DST_PORT)),
  };
}

function readAddress(bytes: Uint8Array | undefined): Address | undefined {
  return bytes?.byteLength === 4 || bytes?.byteLength === 16 ? addressFromBytes(bytes) : undefined;
}

/** struct nfgenmsg { u8 family; u8 version; be16 res_id; } (include/uapi/linux/netfilter/nfnetlink.h) */
function nfgenmsg(family: Family): Uint8Array {
  return Uint8Array.of(familyNumber(family), 0, 0, 0);
}

const nfgenmsgBytes = 4;
