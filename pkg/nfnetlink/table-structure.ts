/**
 * What a table looks like without its elements: comments of the table and of its rules, and how
 * many elements its sets have. Cheap, whatever the number of elements.
 */
import { isErrno } from '#pkg/errors/agent-error.ts';
import {
  attributeString,
  readAttributes,
  readString,
  viewOf,
  type Attributes,
} from '#pkg/netlink/attribute.ts';
import type { Message } from '#pkg/netlink/message.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { NFNL_SUBSYS_NFTABLES, nfgenmsg } from './nf-tables.ts';
import { readComment } from './set-element.ts';
import type { TableRef } from './table-elements.ts';

export interface TableStructure {
  readonly comment: string | undefined;
  /** Comments of the rules of each chain that has rules, '' for one without. */
  readonly rules: ReadonlyMap<string, readonly string[]>;
  /** How many elements each set and map has; undefined where the kernel does not tell (< 6.16). */
  readonly sets: ReadonlyMap<string, number | undefined>;
}

/** include/uapi/linux/netfilter/nf_tables.h; in userdata a comment is type 0 (libnftnl udata.h). */
const message = (type: number): number => (NFNL_SUBSYS_NFTABLES << 8) | type;
const NFT_MSG_NEWTABLE = message(0);
const NFT_MSG_GETTABLE = message(1);
const NFT_MSG_NEWRULE = message(6);
const NFT_MSG_GETRULE = message(7);
const NFT_MSG_NEWSET = message(9);
const NFT_MSG_GETSET = message(10);
const NFT_MSG_NEWGEN = message(15);
const NFT_MSG_GETGEN = message(16);
const NFTA_TABLE_NAME = 1;
const NFTA_TABLE_USERDATA = 6;
const NFTA_RULE_TABLE = 1;
const NFTA_RULE_CHAIN = 2;
const NFTA_RULE_USERDATA = 7;
const NFTA_SET_TABLE = 1;
const NFTA_SET_NAME = 2;
const NFTA_SET_COUNT = 20;
const NFTA_GEN_ID = 1;

/**
 * The number of the kernel's present state of nf_tables in this namespace: each transaction of
 * anybody, in any table, adds one.
 */
export function readGeneration(socket: NetlinkSocket): number {
  const replies = socket.request({
    type: NFT_MSG_GETGEN,
    body: [nfgenmsg('inet')],
    what: 'read the generation of nf_tables',
  });
  const reply = replies.find(({ type }) => type === NFT_MSG_NEWGEN);
  return readBe32(reply && attributesOf(reply).get(NFTA_GEN_ID)) ?? 0;
}

/** Undefined when there is no such table. */
export function readStructure(socket: NetlinkSocket, of: TableRef): TableStructure | undefined {
  const { family, table } = of;
  const named = (type: number): Uint8Array => attributeString(type, table);
  let found: Attributes;
  try {
    const replies = socket.request({
      type: NFT_MSG_GETTABLE,
      body: [nfgenmsg(family), named(NFTA_TABLE_NAME)],
      what: `read table ${family} ${table}`,
    });
    const reply = replies.find(({ type }) => type === NFT_MSG_NEWTABLE);
    found = reply === undefined ? new Map() : attributesOf(reply);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
  const rules = new Map<string, string[]>();
  for (const attributes of dump(NFT_MSG_GETRULE, NFTA_RULE_TABLE, NFT_MSG_NEWRULE)) {
    // Kernels that filter nothing tell of every table.
    if (readString(attributes.get(NFTA_RULE_TABLE)) !== table) continue;
    const chain = readString(attributes.get(NFTA_RULE_CHAIN)) ?? '';
    let comments = rules.get(chain);
    if (comments === undefined) rules.set(chain, (comments = []));
    comments.push(readComment(attributes.get(NFTA_RULE_USERDATA)) ?? '');
  }
  const sets = new Map<string, number | undefined>();
  for (const attributes of dump(NFT_MSG_GETSET, NFTA_SET_TABLE, NFT_MSG_NEWSET)) {
    if (readString(attributes.get(NFTA_SET_TABLE)) !== table) continue;
    const name = readString(attributes.get(NFTA_SET_NAME)) ?? '';
    sets.set(name, readBe32(attributes.get(NFTA_SET_COUNT)));
  }
  return { comment: readComment(found.get(NFTA_TABLE_USERDATA)), rules, sets };

  function dump(get: number, tableAttribute: number, answer: number): Attributes[] {
    const what = `read table ${family} ${table}`;
    const body = [nfgenmsg(family), named(tableAttribute)];
    return socket
      .dump({ type: get, body, what })
      .filter(({ type }) => type === answer)
      .map(attributesOf);
  }
}

function attributesOf({ body }: Message): Attributes {
  return readAttributes(body.subarray(4));
}

/** nf_tables counts in network order. */
function readBe32(payload: Uint8Array | undefined): number | undefined {
  return payload === undefined || payload.byteLength < 4 ? undefined : viewOf(payload).getUint32(0);
}
