/**
 * What connection tracking has counted of translated flows: packets and bytes in both directions,
 * where the sysctl net/netfilter/nf_conntrack_acct is on (Documentation/networking/
 * nf_conntrack-sysctl.rst). A packet that the kernel has merged of several (GRO) counts as one.
 */
import { attributeU32, findAttribute, littleEndian, readBe16, viewOf } from './attribute.ts';
import { NLA_TYPE_MASK } from './constants.ts';
import type { Message } from './message.ts';
import type { NetlinkRequest } from './socket.ts';
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

/** include/uapi/linux/netfilter/nfnetlink_compat.h */
export const NFNLGRP_CONNTRACK_DESTROY = 3;

/** include/uapi/linux/netfilter/nfnetlink_conntrack.h */
const CTA_STATUS = 3;
const CTA_COUNTERS_ORIG = 9;
const CTA_COUNTERS_REPLY = 10;
const CTA_STATUS_MASK = 26;
const CTA_COUNTERS_PACKETS = 1;
const CTA_COUNTERS_BYTES = 2;

/** enum ip_conntrack_status, include/uapi/linux/netfilter/nf_conntrack_common.h */
const IPS_DST_NAT = 1 << 5;

/** struct nfgenmsg { u8 family; u8 version; be16 res_id; } */
const headerBytes = 4;

/** A flow whose destination was translated, as one message tells of it. */
export interface CountedFlow {
  /** Of this flow and, as good as surely, of no other that is in the table. */
  readonly id: number;
  /** It is gone, and these are its last numbers. */
  readonly ended: boolean;
  /** IPPROTO_*. */
  readonly protocol: number;
  /** Where its first packet went; 4 or 16 bytes, in the message. */
  readonly address: Uint8Array;
  readonly port: number;
  /** Who answers. */
  readonly server: Uint8Array;
  readonly serverPort: number;
  /** IP packets with their headers, from the client and to it. */
  readonly packetsIn: number;
  readonly bytesIn: number;
  readonly packetsOut: number;
  readonly bytesOut: number;
}

/**
 * The dump of translated flows of both families. Kernels pick them out since 5.15 (CTA_STATUS_MASK);
 * older ones list all, of which {@link readCountedFlow} leaves out the others.
 */
export function countedFlowsDump(): NetlinkRequest {
  const isTranslated = bigEndian32(IPS_DST_NAT);
  return {
    type: IPCTNL_MSG_CT_GET,
    body: [
      new Uint8Array(headerBytes),
      attributeU32(CTA_STATUS, isTranslated),
      attributeU32(CTA_STATUS_MASK, isTranslated),
    ],
    what: 'list what tracked connections have counted',
  };
}

/**
 * What a message of a dump or of {@link NFNLGRP_CONNTRACK_DESTROY} tells; undefined when the flow is
 * not translated, has no ports, or was not counted: it began before counting was switched on.
 */
export function readCountedFlow({ body, type }: Message): CountedFlow | undefined {
  if (type !== IPCTNL_MSG_CT_NEW && type !== IPCTNL_MSG_CT_DELETE) return undefined;
  // One way through all: these come by the hundred thousand.
  const view = viewOf(body);
  const found: (Uint8Array | undefined)[] = [];
  for (let at = headerBytes; at + 4 <= body.byteLength;) {
    const length = view.getUint16(at, littleEndian);
    if (length < 4 || at + length > body.byteLength) break;
    const attribute = view.getUint16(at + 2, littleEndian) & NLA_TYPE_MASK;
    if (attribute <= CTA_ID) found[attribute] = body.subarray(at + 4, at + length);
    at += (length + 3) & ~3;
  }
  const original = found[CTA_TUPLE_ORIG];
  const reply = found[CTA_TUPLE_REPLY];
  const status = readBe32(found[CTA_STATUS]) ?? 0;
  const countedIn = found[CTA_COUNTERS_ORIG];
  const countedOut = found[CTA_COUNTERS_REPLY];
  if ((status & IPS_DST_NAT) === 0 || original === undefined || reply === undefined) {
    return undefined;
  }
  if (countedIn === undefined || countedOut === undefined) return undefined;
  const proto = findAttribute(original, CTA_TUPLE_PROTO) ?? nothing;
  const sourcePort = readBe16(findAttribute(proto, CTA_PROTO_SRC_PORT));
  const port = readBe16(findAttribute(proto, CTA_PROTO_DST_PORT));
  const protocol = findAttribute(proto, CTA_PROTO_NUM)?.[0];
  const ip = findAttribute(original, CTA_TUPLE_IP) ?? nothing;
  const address = findAttribute(ip, CTA_IP_V4_DST) ?? findAttribute(ip, CTA_IP_V6_DST);
  const answering = findAttribute(reply, CTA_TUPLE_IP) ?? nothing;
  const server = findAttribute(answering, CTA_IP_V4_SRC) ?? findAttribute(answering, CTA_IP_V6_SRC);
  const replyProto = findAttribute(reply, CTA_TUPLE_PROTO) ?? nothing;
  const serverPort = readBe16(findAttribute(replyProto, CTA_PROTO_SRC_PORT));
  if (protocol === undefined || port === undefined || sourcePort === undefined) return undefined;
  if (address === undefined || server === undefined || serverPort === undefined) return undefined;
  return {
    // The kernel's is a hash of 32 bits: of a million, some hundred would be alike.
    id: (readBe32(found[CTA_ID]) ?? 0) * 65_536 + sourcePort,
    ended: type === IPCTNL_MSG_CT_DELETE,
    protocol,
    address,
    port,
    server,
    serverPort,
    packetsIn: readBe64(findAttribute(countedIn, CTA_COUNTERS_PACKETS)),
    bytesIn: readBe64(findAttribute(countedIn, CTA_COUNTERS_BYTES)),
    packetsOut: readBe64(findAttribute(countedOut, CTA_COUNTERS_PACKETS)),
    bytesOut: readBe64(findAttribute(countedOut, CTA_COUNTERS_BYTES)),
  };
}

function readBe32(payload: Uint8Array | undefined): number | undefined {
  if (payload === undefined || payload.byteLength < 4) return undefined;
  return viewOf(payload).getUint32(0);
}

/** Exact up to 2^53. */
function readBe64(payload: Uint8Array | undefined): number {
  if (payload === undefined || payload.byteLength < 8) return 0;
  const view = viewOf(payload);
  return view.getUint32(0) * 2 ** 32 + view.getUint32(4);
}

/** In the machine's order what reads as `value` in network order. */
function bigEndian32(value: number): number {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value);
  return viewOf(bytes).getUint32(0, littleEndian);
}

const nothing = new Uint8Array();
