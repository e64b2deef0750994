/**
 * A chain that remembers where a translated connection went: it fills a map from what the client
 * asked for and its address to the destination it got. Written expression by expression, since nft
 * before 1.0.7 aborts at `update @map` with a key of more than 16 bytes, which IPv6 needs.
 */
import { addressBits, type Family } from '#pkg/ip/address.ts';
import { attribute, attributeString, nested } from '#pkg/netlink/attribute.ts';
import { NLM_F_APPEND, NLM_F_CREATE } from '#pkg/netlink/constants.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import {
  batchEnd,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
  nfgenmsg,
} from './nf-tables.ts';
import { commentBytes } from './set-element.ts';

export interface RememberChain {
  readonly family: Family;
  readonly table: string;
  readonly chain: string;
  /** Of type address . inet_proto . inet_service . address : address . inet_service, dynamic. */
  readonly map: string;
  readonly seconds: number;
  /** The rule's. */
  readonly comment: string;
}

/** include/uapi/linux/netfilter/nf_tables.h */
const NFT_MSG_NEWCHAIN = (NFNL_SUBSYS_NFTABLES << 8) | 3;
const NFT_MSG_NEWRULE = (NFNL_SUBSYS_NFTABLES << 8) | 6;
const NFTA_CHAIN_TABLE = 1;
const NFTA_CHAIN_NAME = 3;
const NFTA_RULE_TABLE = 1;
const NFTA_RULE_CHAIN = 2;
const NFTA_RULE_EXPRESSIONS = 4;
const NFTA_RULE_USERDATA = 7;
const NFTA_LIST_ELEM = 1;
const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;
/** All of these expressions: where the result goes, then what it is. */
const DREG = 1;
const KEY = 2;
const NFTA_CT_DIRECTION = 3;
const NFTA_PAYLOAD_OFFSET = 3;
const NFTA_PAYLOAD_LEN = 4;
const NFTA_DYNSET_SET_NAME = 1;
const NFTA_DYNSET_OP = 3;
const NFTA_DYNSET_SREG_KEY = 4;
const NFTA_DYNSET_SREG_DATA = 5;
const NFTA_DYNSET_TIMEOUT = 6;
const NFT_DYNSET_OP_UPDATE = 1;
const NFT_META_L4PROTO = 16;
const NFT_CT_PROTO_DST = 12;
const NFT_CT_DST_IP = 20;
const NFT_CT_DST_IP6 = 22;
const IP_CT_DIR_ORIGINAL = 0;
const NFT_PAYLOAD_NETWORK_HEADER = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER = 2;
/** The first of sixteen registers of four bytes. */
const NFT_REG32_00 = 8;

/**
 * Adds the chain with its one rule.
 *
 * @throws {NetlinkError} ENOENT without such a table or map; then nothing is added
 */
export function addRememberChain(socket: NetlinkSocket, of: RememberChain): void {
  const { family, table, chain, comment } = of;
  const what = `add chain ${family} ${table} ${chain}`;
  const results = socket.transaction([
    batchEnd(NFNL_MSG_BATCH_BEGIN),
    {
      type: NFT_MSG_NEWCHAIN,
      flags: NLM_F_CREATE,
      body: [
        nfgenmsg(family),
        attributeString(NFTA_CHAIN_TABLE, table),
        attributeString(NFTA_CHAIN_NAME, chain),
      ],
      what,
    },
    {
      type: NFT_MSG_NEWRULE,
      flags: NLM_F_CREATE | NLM_F_APPEND,
      body: [
        nfgenmsg(family),
        attributeString(NFTA_RULE_TABLE, table),
        attributeString(NFTA_RULE_CHAIN, chain),
        nested(NFTA_RULE_EXPRESSIONS, expressions(of)),
        attribute(NFTA_RULE_USERDATA, commentBytes(comment)),
      ],
      what,
    },
    batchEnd(NFNL_MSG_BATCH_END),
  ]);
  for (const { error } of results) if (error !== undefined) throw error;
}

/** Key and value lie one after the other in the registers: 60 of 64 bytes in IPv6. */
function expressions({ family, map, seconds }: RememberChain): Uint8Array[] {
  const width = addressBits(family) / 8;
  const words = width / 4;
  const v4 = family === 'ip';
  const key = NFT_REG32_00;
  const [protocol, port, source] = [key + words, key + words + 1, key + words + 2];
  const value = source + words;
  const [sourceAt, destinationAt] = v4 ? [12, 16] : [8, 24];
  return [
    ct(key, v4 ? NFT_CT_DST_IP : NFT_CT_DST_IP6),
    expression('meta', [be32(DREG, protocol), be32(KEY, NFT_META_L4PROTO)]),
    ct(port, NFT_CT_PROTO_DST),
    payload(source, { base: NFT_PAYLOAD_NETWORK_HEADER, offset: sourceAt, length: width }),
    payload(value, { base: NFT_PAYLOAD_NETWORK_HEADER, offset: destinationAt, length: width }),
    payload(value + words, { base: NFT_PAYLOAD_TRANSPORT_HEADER, offset: 2, length: 2 }),
    expression('dynset', [
      attributeString(NFTA_DYNSET_SET_NAME, map),
      be32(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE),
      be32(NFTA_DYNSET_SREG_KEY, key),
      be32(NFTA_DYNSET_SREG_DATA, value),
      be64(NFTA_DYNSET_TIMEOUT, seconds * 1000),
    ]),
  ];
}

function ct(register: number, key: number): Uint8Array {
  return expression('ct', [
    be32(DREG, register),
    be32(KEY, key),
    attribute(NFTA_CT_DIRECTION, Uint8Array.of(IP_CT_DIR_ORIGINAL)),
  ]);
}

function payload(
  register: number,
  of: { readonly base: number; readonly offset: number; readonly length: number },
): Uint8Array {
  return expression('payload', [
    be32(DREG, register),
    be32(KEY, of.base),
    be32(NFTA_PAYLOAD_OFFSET, of.offset),
    be32(NFTA_PAYLOAD_LEN, of.length),
  ]);
}

function expression(name: string, data: readonly Uint8Array[]): Uint8Array {
  return nested(NFTA_LIST_ELEM, [
    attributeString(NFTA_EXPR_NAME, name),
    nested(NFTA_EXPR_DATA, data),
  ]);
}

/** nf_tables counts in network order. */
function be32(type: number, value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return attribute(type, bytes);
}

function be64(type: number, value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
  return attribute(type, bytes);
}
