/** What packets met the elements of a set whose elements count: nft's `counter` in a set. */
import { readAttributes, readNested, readString, viewOf } from '#pkg/netlink/attribute.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { isErrno } from '#pkg/errors/agent-error.ts';
import { readFields, type ElementLayout } from './element-text.ts';
import { NFT_MSG_GETSETELEM, NFT_MSG_NEWSETELEM, nfgenmsg } from './nf-tables.ts';
import {
  elementListAttributes,
  NFTA_DATA_VALUE,
  NFTA_SET_ELEM_DATA,
  NFTA_SET_ELEM_KEY,
  NFTA_SET_ELEM_LIST_ELEMENTS,
  readSiblings,
} from './set-element.ts';
import type { TableRef } from './table-elements.ts';

/** include/uapi/linux/netfilter/nf_tables.h */
const NFTA_SET_ELEM_EXPR = 7;
const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;
const NFTA_COUNTER_BYTES = 1;
const NFTA_COUNTER_PACKETS = 2;

export interface ElementCount {
  /** As nft writes it. */
  readonly key: string;
  /** A map's; undefined for sets. */
  readonly value: string | undefined;
  readonly packets: number;
  readonly bytes: number;
}

/**
 * The counts of one set, in parts as the kernel hands them out; none without such a set. The socket
 * must serve nothing else until the end. While others change the set, some may be missing.
 */
export function* readCounts(
  socket: NetlinkSocket,
  of: TableRef & { readonly set: string; readonly layout: ElementLayout },
): Generator<readonly ElementCount[], void, undefined> {
  const { family, layout, set, table } = of;
  const parts = socket.dumpParts({
    type: NFT_MSG_GETSETELEM,
    body: [nfgenmsg(family), ...elementListAttributes({ table, set }, [])],
    what: `count in ${family} ${table} ${set}`,
  });
  try {
    for (const messages of parts) {
      yield messages.flatMap(({ body, type }) => {
        if (type !== NFT_MSG_NEWSETELEM) return [];
        const list = readAttributes(body.subarray(4)).get(NFTA_SET_ELEM_LIST_ELEMENTS);
        return list === undefined ? [] : decodeCounts(list, layout);
      });
    }
  } catch (error) {
    if (!isErrno(error, 'EINTR') && !isErrno(error, 'ENOENT')) throw error;
  }
}

/** The counters of a message's list of elements; elements without one are left out. */
export function decodeCounts(list: Uint8Array, layout: ElementLayout): ElementCount[] {
  return readSiblings(list).flatMap((payload) => {
    const attributes = readAttributes(payload);
    const key = readNested(attributes.get(NFTA_SET_ELEM_KEY)).get(NFTA_DATA_VALUE);
    const expression = readNested(attributes.get(NFTA_SET_ELEM_EXPR));
    if (key === undefined || readString(expression.get(NFTA_EXPR_NAME)) !== 'counter') return [];
    const data = readNested(expression.get(NFTA_EXPR_DATA));
    const value = readNested(attributes.get(NFTA_SET_ELEM_DATA)).get(NFTA_DATA_VALUE);
    return [
      {
        key: readFields(key, layout.key),
        value:
          value === undefined || layout.value === undefined
            ? undefined
            : readFields(value, layout.value),
        packets: readBe64(data.get(NFTA_COUNTER_PACKETS)),
        bytes: readBe64(data.get(NFTA_COUNTER_BYTES)),
      },
    ];
  });
}

/** Exact up to 2^53, which is more than a node sends in its life. */
function readBe64(payload: Uint8Array | undefined): number {
  return payload === undefined || payload.byteLength < 8
    ? 0
    : Number(viewOf(payload).getBigUint64(0));
}
