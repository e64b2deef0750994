/**
 * Elements of nf_tables sets and maps, as the kernel has them: bytes of a key, bytes of data, and
 * the comment that `nft` shows (net/netfilter/nf_tables_api.c; the comment's layout is libnftnl's).
 */
import { addressBytes, type Address } from '#pkg/ip/address.ts';
import {
  attribute,
  attributeString,
  concatBytes,
  littleEndian,
  nested,
  readAttributes,
  readNested,
  type Attributes,
} from '#pkg/netlink/attribute.ts';

/** Which set or map. */
export interface SetName {
  readonly family: 'inet' | 'bridge' | 'arp';
  readonly table: string;
  readonly set: string;
}

export interface SetElement {
  readonly key: Uint8Array;
  /** What a map answers; undefined for a set. */
  readonly data?: Uint8Array | undefined;
  readonly comment?: string | undefined;
}

/** include/uapi/linux/netfilter/nf_tables.h */
export const NFTA_SET_ELEM_LIST_TABLE = 1;
export const NFTA_SET_ELEM_LIST_SET = 2;
export const NFTA_SET_ELEM_LIST_ELEMENTS = 3;
export const NFTA_LIST_ELEM = 1;
export const NFTA_SET_ELEM_KEY = 1;
export const NFTA_SET_ELEM_DATA = 2;
const NFTA_SET_ELEM_USERDATA = 6;
export const NFTA_DATA_VALUE = 1;

/** libnftnl, include/libnftnl/udata.h: NFTNL_UDATA_SET_ELEM_COMMENT. */
const udataComment = 0;

/**
 * A key, or data, of several fields: each starts at a multiple of four bytes, as nf_tables keeps
 * them in registers.
 */
export function concatFields(fields: readonly Uint8Array[]): Uint8Array {
  return concatBytes(
    fields.map((field) => {
      const padded = new Uint8Array((field.byteLength + 3) & ~3);
      padded.set(field);
      return padded;
    }),
  );
}

/** `ifname`: 16 bytes, filled up with zeros. */
export function interfaceField(name: string): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes.set(encoder.encode(name).subarray(0, 15));
  return bytes;
}

/** `ipv4_addr`, `ipv6_addr` */
export function addressField(address: Address): Uint8Array {
  return addressBytes(address);
}

/** `ether_addr` */
export function macField(mac: string): Uint8Array {
  return Uint8Array.from(mac.split(':'), (byte) => Number.parseInt(byte, 16));
}

/** `inet_service`: a port, in network order. */
export function portField(port: number): Uint8Array {
  return Uint8Array.of(port >> 8, port);
}

/** `inet_proto`: IPPROTO_*. */
export function protocolField(protocol: number): Uint8Array {
  return Uint8Array.of(protocol);
}

/** The attributes of a message about elements of one set; without elements, about all of them. */
export function elementListAttributes(
  { table, set }: Pick<SetName, 'table' | 'set'>,
  elements: readonly SetElement[],
): Uint8Array[] {
  return [
    attributeString(NFTA_SET_ELEM_LIST_TABLE, table),
    attributeString(NFTA_SET_ELEM_LIST_SET, set),
    ...(elements.length === 0
      ? []
      : [nested(NFTA_SET_ELEM_LIST_ELEMENTS, elements.map(encodeElement))]),
  ];
}

/** The elements of a message; a message holds many, under one attribute's type. */
export function readElementList(attributes: Attributes): SetElement[] {
  const list = attributes.get(NFTA_SET_ELEM_LIST_ELEMENTS);
  return list === undefined ? [] : readSiblings(list).flatMap(readElement);
}

function encodeElement({ key, data, comment }: SetElement): Uint8Array {
  return nested(NFTA_LIST_ELEM, [
    nested(NFTA_SET_ELEM_KEY, [attribute(NFTA_DATA_VALUE, key)]),
    ...(data === undefined ? [] : [nested(NFTA_SET_ELEM_DATA, [attribute(NFTA_DATA_VALUE, data)])]),
    ...(comment === undefined ? [] : [attribute(NFTA_SET_ELEM_USERDATA, commentBytes(comment))]),
  ]);
}

function readElement(payload: Uint8Array): SetElement[] {
  const attributes = readAttributes(payload);
  const key = readNested(attributes.get(NFTA_SET_ELEM_KEY)).get(NFTA_DATA_VALUE);
  // A catch-all element has none.
  if (key === undefined) return [];
  const data = readNested(attributes.get(NFTA_SET_ELEM_DATA)).get(NFTA_DATA_VALUE);
  return [{ key, data, comment: readComment(attributes.get(NFTA_SET_ELEM_USERDATA)) }];
}

/** A comment as `nft` puts it into an element's userdata. */
export function commentBytes(comment: string): Uint8Array {
  const text = encoder.encode(`${comment}\0`);
  return concatBytes([Uint8Array.of(udataComment, text.byteLength), text]);
}

/** Userdata is a list of type, length, value; nft may have put more there than a comment. */
export function readComment(userdata: Uint8Array | undefined): string | undefined {
  for (let at = 0; userdata !== undefined && at + 2 <= userdata.byteLength;) {
    const type = userdata[at];
    const end = at + 2 + (userdata[at + 1] ?? 0);
    if (type === udataComment) {
      const value = userdata.subarray(at + 2, end);
      const zero = value.indexOf(0);
      return decoder.decode(zero < 0 ? value : value.subarray(0, zero));
    }
    at = end;
  }
  return undefined;
}

/** Attributes that all have one type: the payload of each. */
export function readSiblings(bytes: Uint8Array): Uint8Array[] {
  const payloads: Uint8Array[] = [];
  const length = (at: number): number =>
    new DataView(bytes.buffer, bytes.byteOffset).getUint16(at, littleEndian);
  for (let at = 0; at + 4 <= bytes.byteLength; at += (length(at) + 3) & ~3) {
    if (length(at) < 4 || at + length(at) > bytes.byteLength) break;
    payloads.push(bytes.subarray(at + 4, at + length(at)));
  }
  return payloads;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
