/**
 * Many elements in one message. Written straight into a buffer: 20,000 Services are 100,000
 * elements, and an object for each attribute of each would cost more than the kernel does.
 */
import { AgentError } from '#pkg/errors/agent-error.ts';
import {
  attribute,
  attributeString,
  littleEndian,
  nested,
  readAttributes,
  readNested,
  viewOf,
} from '#pkg/netlink/attribute.ts';
import { NLA_F_NESTED } from '#pkg/netlink/constants.ts';
import { rangeEnd, readFields, writeFields, type ElementLayout } from './element-text.ts';
import {
  NFTA_DATA_VALUE,
  NFTA_LIST_ELEM,
  NFTA_SET_ELEM_DATA,
  NFTA_SET_ELEM_KEY,
  NFTA_SET_ELEM_LIST_ELEMENTS,
  readSiblings,
} from './set-element.ts';

/** include/uapi/linux/netfilter/nf_tables.h */
const NFTA_SET_ELEM_KEY_END = 10;
const NFTA_DATA_VERDICT = 2;
const NFTA_VERDICT_CODE = 1;
const NFTA_VERDICT_CHAIN = 2;
const NFT_JUMP = -3;
const NFT_GOTO = -4;
const verdictCodes = new Map([
  ['drop', 0],
  ['accept', 1],
  ['continue', -1],
  ['return', -5],
]);

/** An element as text; `value` is undefined in sets, and where it does not count. */
export interface TextElement {
  readonly key: string;
  readonly value: string | undefined;
}

/** An attribute's length has 16 bits. */
const maxListBytes = 60_000;

/** Lists for as many messages as it takes, each in order. */
export function encodeElementLists(
  elements: readonly TextElement[],
  layout: ElementLayout,
): Uint8Array[] {
  const lists: Uint8Array[] = [];
  let list = new ListWriter();
  for (const element of elements) {
    if (list.length > maxListBytes) {
      lists.push(list.finish());
      list = new ListWriter();
    }
    list.element(element, layout);
  }
  if (elements.length > 0) lists.push(list.finish());
  return lists;
}

/** The elements of a message's list as text. */
export function decodeElementList(list: Uint8Array, layout: ElementLayout): TextElement[] {
  return readSiblings(list).flatMap((payload) => {
    const attributes = readAttributes(payload);
    const key = readNested(attributes.get(NFTA_SET_ELEM_KEY)).get(NFTA_DATA_VALUE);
    // A catch-all element has none.
    if (key === undefined) return [];
    const end = readNested(attributes.get(NFTA_SET_ELEM_KEY_END)).get(NFTA_DATA_VALUE);
    const text = readFields(key, layout.key, end);
    return [{ key: text, value: readValue(attributes.get(NFTA_SET_ELEM_DATA), layout) }];
  });
}

function readValue(data: Uint8Array | undefined, layout: ElementLayout): string | undefined {
  if (data === undefined || layout.value === undefined) return undefined;
  const attributes = readAttributes(data);
  const value = attributes.get(NFTA_DATA_VALUE);
  if (value !== undefined) return readFields(value, layout.value);
  const verdict = readNested(attributes.get(NFTA_DATA_VERDICT));
  const codeBytes = verdict.get(NFTA_VERDICT_CODE);
  const code = codeBytes === undefined ? undefined : viewOf(codeBytes).getInt32(0);
  const chain = decoder.decode(verdict.get(NFTA_VERDICT_CHAIN)?.slice(0, -1));
  if (code === NFT_GOTO) return `goto ${chain}`;
  if (code === NFT_JUMP) return `jump ${chain}`;
  return [...verdictCodes].find(([, number]) => number === code)?.[0];
}

class ListWriter {
  #bytes = new Uint8Array(64 * 1024 + 1024);
  #view = viewOf(this.#bytes);
  #at = 4;

  get length(): number {
    return this.#at;
  }

  element({ key, value }: TextElement, layout: ElementLayout): void {
    const start = this.#open();
    this.#fields(NFTA_SET_ELEM_KEY, key, { types: layout.key, width: layout.keyBytes });
    const end = rangeEnd(key);
    if (end !== undefined) {
      this.#fields(NFTA_SET_ELEM_KEY_END, end, { types: layout.key, width: layout.keyBytes });
    }
    if (value !== undefined && layout.value !== undefined) {
      if (layout.value.length > 0) {
        const to = { types: layout.value, width: layout.valueBytes };
        this.#fields(NFTA_SET_ELEM_DATA, value, to);
      } else {
        const verdict = verdictBytes(value);
        this.#bytes.set(verdict, this.#at);
        this.#at += verdict.byteLength;
      }
    }
    this.#header(start, NFTA_LIST_ELEM);
  }

  finish(): Uint8Array {
    this.#header(0, NFTA_SET_ELEM_LIST_ELEMENTS);
    return this.#bytes.subarray(0, this.#at);
  }

  /** NFTA_DATA_VALUE in a nest. */
  #fields(
    type: number,
    text: string,
    of: { readonly types: ElementLayout['key']; readonly width: number },
  ): void {
    const start = this.#open();
    const value = this.#at;
    this.#view.setUint16(value, 4 + of.width, littleEndian);
    this.#view.setUint16(value + 2, NFTA_DATA_VALUE, littleEndian);
    writeFields(text, of.types, { bytes: this.#bytes, at: value + 4 });
    this.#at = value + 4 + of.width;
    this.#header(start, type);
  }

  #open(): number {
    const start = this.#at;
    this.#at += 4;
    return start;
  }

  #header(start: number, type: number): void {
    this.#view.setUint16(start, this.#at - start, littleEndian);
    this.#view.setUint16(start + 2, type | NLA_F_NESTED, littleEndian);
  }
}

/** NFTA_SET_ELEM_DATA with a verdict. There are few different ones. */
const verdicts = new Map<string, Uint8Array>();

function verdictBytes(text: string): Uint8Array {
  let bytes = verdicts.get(text);
  if (bytes === undefined) verdicts.set(text, (bytes = encodeVerdict(text)));
  return bytes;
}

function encodeVerdict(text: string): Uint8Array {
  const [, word, chain] = /^(goto|jump) (.+)$/.exec(text) ?? [];
  const code = word === 'goto' ? NFT_GOTO : word === 'jump' ? NFT_JUMP : verdictCodes.get(text);
  if (code === undefined) {
    throw new AgentError('UnreadableElement', `Cannot encode verdict ${JSON.stringify(text)}`);
  }
  const codeBytes = new Uint8Array(4);
  viewOf(codeBytes).setInt32(0, code);
  const verdict = nested(NFTA_DATA_VERDICT, [
    attribute(NFTA_VERDICT_CODE, codeBytes),
    ...(chain === undefined ? [] : [attributeString(NFTA_VERDICT_CHAIN, chain)]),
  ]);
  return nested(NFTA_SET_ELEM_DATA, [verdict]);
}

const decoder = new TextDecoder();
