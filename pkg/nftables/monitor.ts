/** Tells when the kernel's nftables change, so that what somebody deletes by hand comes back at once. */
import { RawNetlinkSocket } from 'netlink/dist/raw.js';
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

/** The kernel caps it at net.core.rmem_max; what does not fit is an error, and a change. */
const receiveBufferBytes = 4 * 1024 * 1024;

/** The kernel packs a transaction's messages in datagrams of a few pages. */
const datagramBytes = 64 * 1024;

/**
 * Calls `onChange` after each change of one of these tables, our own changes among them, and when
 * the kernel had to drop events. Works in the network namespace of the calling thread. Knows names
 * only: a table of the same name in another family calls it too.
 *
 * What `onChange` throws ends the process as any uncaught error does.
 */
export function watchNftables(tables: readonly TableName[], onChange: () => void): Disposable {
  const names = new Set(tables.map(({ name }) => name));
  let stopped = false;
  let socket = open();

  function open(): RawNetlinkSocket {
    const opened = new RawNetlinkSocket(NETLINK_NETFILTER, {
      // The kernel picks a free port.
      localPort: 0,
      messagePeeking: false,
      msgBufferSize: datagramBytes,
      recvBufferSize: receiveBufferBytes,
      sendBufferSize: 0,
    });
    opened.on('message', (bytes) => {
      const messages = parseMessages(bytes);
      if (messages.some((message) => names.has(tableOf(message) ?? ''))) report();
    });
    opened.on('truncatedMessage', report);
    opened.on('error', reopen);
    opened.addMembership(NFNLGRP_NFTABLES);
    return opened;
  }

  /** Outside of the addon's callback: what is thrown inside aborts the process. */
  function report(): void {
    setImmediate(() => {
      if (!stopped) onChange();
    });
  }

  /** After an overflow (ENOBUFS) the addon reads no more from a socket. Events were lost. */
  function reopen(): void {
    if (stopped) return;
    closeLater(socket);
    socket = open();
    report();
  }

  return {
    [Symbol.dispose]: () => {
      if (stopped) return;
      stopped = true;
      closeLater(socket);
    },
  };
}

/** Closing it within one of its own callbacks aborts the process: the addon still uses it there. */
function closeLater(socket: RawNetlinkSocket): void {
  setImmediate(() => socket.close());
}

function tableOf({ type, body }: Message): string | undefined {
  if (type >> 8 !== NFNL_SUBSYS_NFTABLES || (type & 0xff) === NFT_MSG_NEWGEN) return undefined;
  return readString(readAttributes(body.subarray(headerBytes)).get(NFTA_TABLE));
}
