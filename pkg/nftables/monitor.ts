/** Tells when the kernel's nftables change, so that what somebody deletes by hand comes back at once. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { readAttributes, readString } from '#pkg/netlink/attribute.ts';
import { NETLINK_ADD_MEMBERSHIP, SOL_NETLINK } from '#pkg/netlink/constants.ts';
import { openNetlinkDescriptor, setOption } from '#pkg/netlink/descriptor.ts';
import { parseMessages, type Message } from '#pkg/netlink/message.ts';
import { MSG_DONTWAIT, MSG_TRUNC, POLLIN } from '#pkg/sys/constants.ts';
import type { Sys } from '#pkg/sys/sys.ts';
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

/** What does not fit is lost, and counts as a change. */
const receiveBufferBytes = 4 * 1024 * 1024;

/** The kernel packs a transaction's messages in datagrams of a few pages. */
const datagramBytes = 64 * 1024;

/** Node cannot wait for a descriptor of ours: we look this often. */
const intervalMs = 200;

/** Then others get their turn. */
const maxDatagramsPerLook = 64;

/**
 * Calls `onChange` after changes of one of these tables, our own changes among them, and when the
 * kernel had to drop events: once for all that came since the last look. Works in the network
 * namespace of the calling thread. Knows names only: a table of the same name in another family
 * calls it too.
 */
export function watchNftables(
  sys: Sys,
  tables: readonly TableName[],
  onChange: () => void,
): Disposable {
  const names = new Set(tables.map(({ name }) => name));
  const fd = openNetlinkDescriptor(sys, NETLINK_NETFILTER, receiveBufferBytes);
  try {
    const group = { level: SOL_NETLINK, name: NETLINK_ADD_MEMBERSHIP, value: NFNLGRP_NFTABLES };
    setOption(sys, { fd, ...group });
  } catch (error) {
    sys.close(fd);
    throw error;
  }
  const buffer = new Uint8Array(datagramBytes);
  let timer: NodeJS.Timeout | undefined = setTimeout(look, intervalMs);

  function look(): void {
    let changed = false;
    let left = maxDatagramsPerLook;
    while (left > 0 && sys.poll(fd, POLLIN, 0) > 0) {
      if (isConcerned()) changed = true;
      left -= 1;
    }
    timer = setTimeout(look, left === 0 ? 0 : intervalMs);
    if (changed) onChange();
  }

  /** Whether the next datagram tells of a table of ours, or of lost ones. */
  function isConcerned(): boolean {
    try {
      const length = sys.recv(fd, buffer, MSG_DONTWAIT | MSG_TRUNC);
      if (length > buffer.byteLength) return true;
      const messages = parseMessages(buffer.subarray(0, length));
      return messages.some((message) => names.has(tableOf(message) ?? ''));
    } catch (error) {
      if (isErrno(error, 'ENOBUFS')) return true;
      throw error;
    }
  }

  return {
    [Symbol.dispose]: () => {
      if (timer === undefined) return;
      clearTimeout(timer);
      timer = undefined;
      sys.close(fd);
    },
  };
}

function tableOf({ type, body }: Message): string | undefined {
  if (type >> 8 !== NFNL_SUBSYS_NFTABLES || (type & 0xff) === NFT_MSG_NEWGEN) return undefined;
  return readString(readAttributes(body.subarray(headerBytes)).get(NFTA_TABLE));
}
