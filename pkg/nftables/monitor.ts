/** Tells when the kernel's nftables change, so that what somebody deletes by hand comes back at once. */
import { RawNetlinkSocket } from 'netlink';
import { readAttributes, readString } from '#pkg/netlink/attribute.ts';
import { parseMessages, type Message } from '#pkg/netlink/message.ts';
import type { TableName } from './ruleset.ts';

/** include/uapi/linux/netlink.h */
const NETLINK_NETFILTER = 12;
/** include/uapi/linux/netfilter/nfnetlink.h */
const NFNL_SUBSYS_NFTABLES = 10;
const NFNLGRP_NFTABLES = 7;
/** include/uapi/linux/netfilter/nf_tables.h; names the transaction, not a table. */
const NFT_MSG_NEWGEN = 15;
/** NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE, NFTA_SET_ELEM_LIST_TABLE, … */
const NFTA_TABLE = 1;

/** struct nfgenmsg */
const headerBytes = 4;

/** One transaction of many elements is many messages; what does not fit is reported as lost. */
const receiveBufferBytes = 4 * 1024 * 1024;

/**
 * Calls `onChange` after each change of one of these tables, our own changes among them, and when
 * the kernel had to drop events. Works in the network namespace of the process. Names only: a
 * table of the same name in another family calls it too.
 */
export function monitorNftables(tables: readonly TableName[], onChange: () => void): Disposable {
  const names = new Set(tables.map(({ name }) => name));
  const socket = new RawNetlinkSocket(NETLINK_NETFILTER, {
    localPort: 0,
    // The kernel packs several messages in one datagram of up to a page or a few.
    messagePeeking: true,
    recvBufferSize: receiveBufferBytes,
    sendBufferSize: 4096,
  });
  // What a listener throws ends the process without a word: nothing in here may.
  socket.on('message', (bytes) => {
    try {
      if (parseMessages(bytes).some((message) => names.has(tableOf(message) ?? ''))) onChange();
    } catch {
      onChange();
    }
  });
  // ENOBUFS: events were lost, among them perhaps one of ours.
  socket.on('error', onChange);
  socket.addMembership(NFNLGRP_NFTABLES);
  return { [Symbol.dispose]: () => socket.close() };
}

function tableOf({ type, body }: Message): string | undefined {
  if (type >> 8 !== NFNL_SUBSYS_NFTABLES || (type & 0xff) === NFT_MSG_NEWGEN) return undefined;
  return readString(readAttributes(body.subarray(headerBytes)).get(NFTA_TABLE));
}
