/** Reading and changing the elements of one table, many at a time, as nft's text. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { attributeString, concatBytes, readAttributes } from '#pkg/netlink/attribute.ts';
import { NLM_F_CREATE } from '#pkg/netlink/constants.ts';
import type { NetlinkRequest, NetlinkSocket } from '#pkg/netlink/socket.ts';
import { decodeElementList, encodeElementLists, type TextElement } from './element-list.ts';
import type { ElementLayout } from './element-text.ts';
import {
  batchEnd,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFT_MSG_DELSETELEM,
  NFT_MSG_GETSETELEM,
  NFT_MSG_NEWSETELEM,
  nfgenmsg,
} from './nf-tables.ts';
import {
  elementListAttributes,
  NFTA_SET_ELEM_LIST_ELEMENTS,
  NFTA_SET_ELEM_LIST_SET,
  NFTA_SET_ELEM_LIST_TABLE,
} from './set-element.ts';

export interface TableRef {
  readonly family: 'inet' | 'ip' | 'ip6';
  readonly table: string;
}

/** What becomes of one set in a transaction: deletions are carried out before additions. */
export interface SetEdit {
  readonly set: string;
  readonly layout: ElementLayout;
  readonly deletes: readonly TextElement[];
  readonly adds: readonly TextElement[];
}

export interface TransactionSize {
  readonly messages: number;
  readonly bytes: number;
}

/**
 * Carries out all edits in one transaction. Deletions of every set come before additions.
 *
 * @throws {NetlinkError} the first refusal; then nothing is changed. ENOENT: an element to delete,
 *   a set, the table or a chain is not there; EEXIST: an element is there with another value
 */
export function editElements(
  socket: NetlinkSocket,
  table: TableRef,
  edits: readonly SetEdit[],
): TransactionSize {
  const requests = [
    ...edits.flatMap((edit) => requestsFor(table, edit, 'delete')),
    ...edits.flatMap((edit) => requestsFor(table, edit, 'add')),
  ];
  if (requests.length === 0) return { messages: 0, bytes: 0 };
  const results = socket.transaction([
    batchEnd(NFNL_MSG_BATCH_BEGIN),
    ...requests,
    batchEnd(NFNL_MSG_BATCH_END),
  ]);
  for (const { error } of results) if (error !== undefined) throw error;
  const bodies = requests.flatMap(({ body }) => body);
  return {
    messages: requests.length,
    bytes: bodies.reduce((sum, part) => sum + part.byteLength, 16 * (requests.length + 2)),
  };
}

/**
 * The elements of a set, in parts as the kernel hands them out. The socket must serve nothing else
 * until the end.
 *
 * @throws {NetlinkError} ENOENT without such a set; EINTR when it changed meanwhile
 */
export function* readElements(
  socket: NetlinkSocket,
  {
    family,
    table,
    set,
    layout,
  }: TableRef & { readonly set: string; readonly layout: ElementLayout },
): Generator<readonly TextElement[], void, undefined> {
  const parts = socket.dumpParts({
    type: NFT_MSG_GETSETELEM,
    body: [nfgenmsg(family), ...elementListAttributes({ table, set }, [])],
    what: `list ${family} ${table} ${set}`,
  });
  for (const messages of parts) {
    yield messages.flatMap(({ type, body }) => {
      if (type !== NFT_MSG_NEWSETELEM) return [];
      const list = readAttributes(body.subarray(4)).get(NFTA_SET_ELEM_LIST_ELEMENTS);
      return list === undefined ? [] : decodeElementList(list, layout);
    });
  }
}

function requestsFor(
  { family, table }: TableRef,
  { set, layout, deletes, adds }: SetEdit,
  op: 'add' | 'delete',
): NetlinkRequest[] {
  const elements =
    op === 'add' ? adds : deletes.map(({ key }): TextElement => ({ key, value: undefined }));
  const head = concatBytes([
    nfgenmsg(family),
    attributeString(NFTA_SET_ELEM_LIST_TABLE, table),
    attributeString(NFTA_SET_ELEM_LIST_SET, set),
  ]);
  return encodeElementLists(elements, layout).map((list) => ({
    type: op === 'add' ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM,
    flags: op === 'add' ? NLM_F_CREATE : 0,
    body: [head, list],
    what: `${op} elements of ${family} ${table} ${set}`,
  }));
}

/**
 * Deletes elements that rules made, and that may go by themselves at any moment: those that are not
 * there count as deleted.
 *
 * @throws {NetlinkError} any refusal but ENOENT; then none of a chunk is deleted
 */
export function forgetElements(
  socket: NetlinkSocket,
  of: TableRef & { readonly set: string; readonly layout: ElementLayout },
  keys: readonly string[],
): void {
  const { family, table, set, layout } = of;
  for (let at = 0; at < keys.length; at += elementsPerForget) {
    let rest = keys.slice(at, at + elementsPerForget);
    // One that is gone spoils the transaction for the others.
    while (rest.length > 0) {
      const requests = rest.flatMap((key) => {
        const deletes = [{ key, value: undefined }];
        return requestsFor({ family, table }, { set, layout, deletes, adds: [] }, 'delete');
      });
      const results = socket
        .transaction([batchEnd(NFNL_MSG_BATCH_BEGIN), ...requests, batchEnd(NFNL_MSG_BATCH_END)])
        .map(({ error }) => error);
      const whole = results.at(0) ?? results.at(-1);
      const errors = results.slice(1, -1);
      const refusal = whole ?? errors.find((error) => error && !isErrno(error, 'ENOENT'));
      if (refusal !== undefined) throw refusal;
      if (errors.every((error) => error === undefined)) break;
      rest = rest.filter((_, i) => errors[i] === undefined);
    }
  }
}

/** Each is a message of its own: which ones are gone must be told apart. */
const elementsPerForget = 500;
