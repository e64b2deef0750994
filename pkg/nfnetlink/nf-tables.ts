/**
 * Changing the elements of nf_tables sets and maps without the program nft: a transaction is one
 * send(2) of a batch, which the kernel carries out whole or not at all (net/netfilter/nfnetlink.c).
 */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { readAttributes } from '#pkg/netlink/attribute.ts';
import { NETLINK_NETFILTER, NLM_F_CREATE, NLM_F_EXCL } from '#pkg/netlink/constants.ts';
import type { Message } from '#pkg/netlink/message.ts';
import type { NetlinkError } from '#pkg/netlink/netlink-error.ts';
import { NetlinkSocket, type NetlinkRequest } from '#pkg/netlink/socket.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import {
  elementListAttributes,
  readElementList,
  type SetElement,
  type SetName,
} from './set-element.ts';

/** One element to add to a set, or to delete from it. */
export interface ElementChange {
  readonly set: SetName;
  readonly element: SetElement;
  /** An element that is there already is EEXIST, even one just like it. */
  readonly exclusive?: boolean;
}

/**
 * A socket to nf_tables, and conntrack, of the calling thread's network namespace.
 *
 * @param sendBufferBytes the largest transaction it must take; the system's default if not given
 */
export function openNetfilterSocket(sys: Sys, sendBufferBytes?: number): NetlinkSocket {
  return new NetlinkSocket(sys, NETLINK_NETFILTER, sendBufferBytes);
}

/**
 * Adds elements, all or none. Returns what the kernel had against each, in the order of the
 * changes; all undefined means that it is done. ENOENT: no such set or table. EEXIST: the element
 * is there, with other data or `exclusive`.
 *
 * @throws {AgentError} when the kernel refuses the transaction as such: EPERM, EMSGSIZE
 */
export function addElements(
  socket: NetlinkSocket,
  changes: readonly ElementChange[],
): readonly (NetlinkError | undefined)[] {
  return transact(socket, 'add', changes);
}

/**
 * Deletes elements; those that are not there, or whose set or table is not there, count as deleted.
 *
 * @throws {AgentError} the first refusal; then none is deleted
 */
export function deleteElements(socket: NetlinkSocket, changes: readonly ElementChange[]): void {
  let rest = changes;
  // One that somebody else deletes meanwhile spoils the transaction for the others.
  while (rest.length > 0) {
    const errors = transact(socket, 'delete', rest);
    const refusal = errors.find((error) => error !== undefined && !isErrno(error, 'ENOENT'));
    if (refusal !== undefined) throw refusal;
    if (errors.every((error) => error === undefined)) return;
    rest = rest.filter((_, i) => errors[i] === undefined);
  }
}

/** Reads single elements, in the order asked for; undefined for one that is not there. */
export function getElements(
  socket: NetlinkSocket,
  wanted: readonly { readonly set: SetName; readonly element: SetElement }[],
): readonly (SetElement | undefined)[] {
  const results = socket.batch(
    wanted.map(({ set, element }) => ({
      type: NFT_MSG_GETSETELEM,
      body: [nfgenmsg(set.family), ...elementListAttributes(set, [{ key: element.key }])],
      what: `read an element of ${describe(set)}`,
    })),
  );
  return results.map(({ error, replies }) => {
    if (error !== undefined && !isErrno(error, 'ENOENT')) throw error;
    return replies.flatMap(parseElements)[0];
  });
}

/** All elements of a set; none when there is no such set or table. */
export function listElements(socket: NetlinkSocket, set: SetName): SetElement[] {
  try {
    return socket
      .dump({
        type: NFT_MSG_GETSETELEM,
        body: [nfgenmsg(set.family), ...elementListAttributes(set, [])],
        what: `list ${describe(set)}`,
      })
      .flatMap(parseElements);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

/** "inet podwire-hostport any4" */
export function describe({ family, table, set }: SetName): string {
  return `${family} ${table} ${set}`;
}

/** include/uapi/linux/netfilter/nfnetlink.h */
export const NFNL_SUBSYS_NFTABLES = 10;
export const NFNL_MSG_BATCH_BEGIN = 0x10;
export const NFNL_MSG_BATCH_END = 0x11;
/** include/uapi/linux/netfilter/nf_tables.h */
export const NFT_MSG_NEWSETELEM = (NFNL_SUBSYS_NFTABLES << 8) | 12;
export const NFT_MSG_GETSETELEM = (NFNL_SUBSYS_NFTABLES << 8) | 13;
export const NFT_MSG_DELSETELEM = (NFNL_SUBSYS_NFTABLES << 8) | 14;
/** include/uapi/linux/netfilter.h */
const familyNumbers = { inet: 1, ip: 2, arp: 3, bridge: 7, ip6: 10 } as const;

function transact(
  socket: NetlinkSocket,
  op: 'add' | 'delete',
  changes: readonly ElementChange[],
): readonly (NetlinkError | undefined)[] {
  if (changes.length === 0) return [];
  const results = socket.transaction([
    batchEnd(NFNL_MSG_BATCH_BEGIN),
    ...changes.map(({ set, element, exclusive }): NetlinkRequest => {
      const adding = op === 'add';
      const create = NLM_F_CREATE | (exclusive === true ? NLM_F_EXCL : 0);
      return {
        type: adding ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM,
        flags: adding ? create : 0,
        body: [
          nfgenmsg(set.family),
          ...elementListAttributes(set, [adding ? element : { key: element.key }]),
        ],
        what: `${op} an element of ${describe(set)}`,
      };
    }),
    batchEnd(NFNL_MSG_BATCH_END),
  ]);
  // Refusals of the transaction as a whole come as those of its first or last message.
  const whole = results.at(0)?.error ?? results.at(-1)?.error;
  if (whole !== undefined) throw whole;
  return results.slice(1, -1).map(({ error }) => error);
}

/** The kernel acknowledges the ends of a batch since 6.10 only. */
export function batchEnd(type: number): NetlinkRequest {
  return {
    type,
    body: [Uint8Array.of(0, 0, 0, NFNL_SUBSYS_NFTABLES)],
    what: 'change nf_tables',
    unacknowledged: true,
  };
}

/** struct nfgenmsg { u8 family; u8 version; be16 res_id; } */
export function nfgenmsg(family: keyof typeof familyNumbers): Uint8Array {
  return Uint8Array.of(familyNumbers[family], 0, 0, 0);
}

function parseElements({ type, body }: Message): SetElement[] {
  if (type !== NFT_MSG_NEWSETELEM) return [];
  return readElementList(readAttributes(body.subarray(4)));
}
