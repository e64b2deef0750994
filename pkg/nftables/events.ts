/** What the kernel tells of changes to its nftables, read without waiting. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import {
  readAttributes,
  readNested,
  readRepeated,
  readString,
  type Attributes,
} from '#pkg/netlink/attribute.ts';
import { NETLINK_ADD_MEMBERSHIP, SOL_NETLINK } from '#pkg/netlink/constants.ts';
import { openNetlinkDescriptor, setOption } from '#pkg/netlink/descriptor.ts';
import { parseMessages, type Message } from '#pkg/netlink/message.ts';
import { MSG_DONTWAIT, MSG_TRUNC, POLLIN } from '#pkg/sys/constants.ts';
import type { Sys } from '#pkg/sys/sys.ts';

/** include/uapi/linux/netlink.h */
const NETLINK_NETFILTER = 12;
/** include/uapi/linux/netfilter/nfnetlink.h */
const NFNL_SUBSYS_NFTABLES = 10;
const NFNLGRP_NFTABLES = 7;

/** enum nf_tables_msg_types, include/uapi/linux/netfilter/nf_tables.h */
const NFT_MSG_DELTABLE = 2;
const NFT_MSG_NEWCHAIN = 3;
const NFT_MSG_DELCHAIN = 5;
const NFT_MSG_NEWRULE = 6;
const NFT_MSG_DELRULE = 8;
const NFT_MSG_NEWGEN = 15;

/** NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE, NFTA_SET_ELEM_LIST_TABLE, … */
const NFTA_TABLE = 1;
const NFTA_RULE_CHAIN = 2;
const NFTA_RULE_EXPRESSIONS = 4;
const NFTA_LIST_ELEM = 1;
const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;
const NFTA_IMMEDIATE_DATA = 2;
const NFTA_DATA_VERDICT = 2;
const NFTA_VERDICT_CHAIN = 2;
const NFTA_CHAIN_NAME = 3;
const NFTA_GEN_PROC_NAME = 3;

/** struct nfgenmsg: u8 family, u8 version, u16 resource. */
const headerBytes = 4;

/** What does not fit is lost, and told as `lost`. */
const receiveBufferBytes = 4 * 1024 * 1024;

/** The kernel packs a transaction's messages in datagrams of a few pages. */
const datagramBytes = 64 * 1024;

export type NftablesEvent =
  | {
      readonly kind: 'change';
      /** NFPROTO_ number of the table's family, include/uapi/linux/netfilter.h. */
      readonly family: number;
      readonly table: string;
      /** Of changed chains and rules. */
      readonly chain: string | undefined;
      readonly isDeletion: boolean;
      /** Of a deleted rule: the chain it led to, '' for none; undefined where the kernel is silent. */
      readonly ledTo?: string | undefined;
    }
  /** The transaction of the changes before it is complete. */
  | {
      readonly kind: 'end';
      /** Name of the program that made it, cut to 15 characters; empty on old kernels. */
      readonly program: string;
    }
  /** The kernel had to drop events. */
  | { readonly kind: 'lost' };

export interface NftablesEvents extends Disposable {
  /** The next datagram's events, in their order; undefined when there is none. */
  read(): readonly NftablesEvent[] | undefined;
}

/**
 * Subscribes in the network namespace of the calling thread. A transaction is told before the
 * program that made it hears of its success.
 *
 * @throws {AgentError} with the errno name of the call that failed
 */
export function openNftablesEvents(sys: Sys): NftablesEvents {
  const fd = openNetlinkDescriptor(sys, NETLINK_NETFILTER, receiveBufferBytes);
  try {
    const group = { level: SOL_NETLINK, name: NETLINK_ADD_MEMBERSHIP, value: NFNLGRP_NFTABLES };
    setOption(sys, { fd, ...group });
  } catch (error) {
    sys.close(fd);
    throw error;
  }
  const buffer = new Uint8Array(datagramBytes);
  let isOpen = true;

  return {
    read: () => {
      if (!isOpen || sys.poll(fd, POLLIN, 0) === 0) return undefined;
      try {
        const length = sys.recv(fd, buffer, MSG_DONTWAIT | MSG_TRUNC);
        if (length > buffer.byteLength) return [{ kind: 'lost' }];
        return parseMessages(buffer.subarray(0, length)).flatMap(eventsOf);
      } catch (error) {
        if (isErrno(error, 'ENOBUFS')) return [{ kind: 'lost' }];
        throw error;
      }
    },
    [Symbol.dispose]: () => {
      if (isOpen) sys.close(fd);
      isOpen = false;
    },
  };
}

function eventsOf({ type, body }: Message): readonly NftablesEvent[] {
  if (type >> 8 !== NFNL_SUBSYS_NFTABLES) return [];
  const attributes = readAttributes(body.subarray(headerBytes));
  const message = type & 0xff;
  if (message === NFT_MSG_NEWGEN) {
    return [{ kind: 'end', program: readString(attributes.get(NFTA_GEN_PROC_NAME)) ?? '' }];
  }
  const table = readString(attributes.get(NFTA_TABLE));
  if (table === undefined) return [];
  return [
    {
      kind: 'change',
      family: body[0] ?? 0,
      table,
      chain: readString(attributes.get(chainAttribute(message) ?? -1)),
      isDeletion: [NFT_MSG_DELTABLE, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE].includes(message),
      ...(message === NFT_MSG_DELRULE ? { ledTo: chainLedTo(attributes) } : {}),
    },
  ];
}

/** A rule leads somewhere by an expression "immediate" that loads a verdict with a chain's name. */
function chainLedTo(rule: Attributes): string | undefined {
  const expressions = rule.get(NFTA_RULE_EXPRESSIONS);
  if (expressions === undefined) return undefined;
  for (const expression of readRepeated(expressions, NFTA_LIST_ELEM)) {
    const { data, name } = readExpression(expression);
    if (name !== 'immediate') continue;
    const verdict = readNested(readNested(data.get(NFTA_IMMEDIATE_DATA)).get(NFTA_DATA_VERDICT));
    const chain = readString(verdict.get(NFTA_VERDICT_CHAIN));
    if (chain !== undefined) return chain;
  }
  return '';
}

function readExpression(bytes: Uint8Array): { readonly name: string; readonly data: Attributes } {
  const attributes = readAttributes(bytes);
  const name = readString(attributes.get(NFTA_EXPR_NAME)) ?? '';
  return { name, data: readNested(attributes.get(NFTA_EXPR_DATA)) };
}

function chainAttribute(message: number): number | undefined {
  switch (message) {
    case NFT_MSG_NEWCHAIN:
    case NFT_MSG_DELCHAIN:
      return NFTA_CHAIN_NAME;
    case NFT_MSG_NEWRULE:
    case NFT_MSG_DELRULE:
      return NFTA_RULE_CHAIN;
    default:
      return undefined;
  }
}
