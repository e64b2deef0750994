/** Elements as `nft -f` takes them, for a table that is made with all that belongs in it. Pure. */
import { readIp4, readIp6 } from '#pkg/nfnetlink/address-text.ts';
import type { ElementChange } from '#pkg/nfnetlink/nf-tables.ts';
import { fieldTypes } from './filter-tables.ts';

/**
 * The line that adds an element; undefined for one that nft has no text for: an interface's name may
 * hold what nft takes for a quote or a wildcard.
 */
export function elementLine({ set, element }: ElementChange): string | undefined {
  const types = fieldTypes(set);
  const key = fieldWords(element.key, types.key);
  const data = element.data === undefined ? [] : fieldWords(element.data, types.data);
  if (key === undefined || data === undefined || element.comment?.includes('"') === true) {
    return undefined;
  }
  const comment = element.comment === undefined ? '' : ` comment "${element.comment}"`;
  const value = data.length === 0 ? '' : ` : ${data.join(' . ')}`;
  const name = `${set.family} ${set.table} ${set.set}`;
  return `add element ${name} { ${key.join(' . ')}${comment}${value} }`;
}

interface FieldFormat {
  /** Without what fills it up to a multiple of four. */
  readonly bytes: number;
  readonly read: (field: Uint8Array) => string | undefined;
}

const interfaceName: FieldFormat = {
  bytes: 16,
  read(field) {
    const name = decoder.decode(field).replace(/\0+$/, '');
    return /^[\w.@+-]+$/.test(name) ? `"${name}"` : undefined;
  },
};
const hex = (field: Uint8Array): string => Buffer.from(field).toString('hex');

/** By the type or expression a set is declared with. */
const formats: Readonly<Record<string, FieldFormat>> = {
  ifname: interfaceName,
  iifname: interfaceName,
  ether_addr: { bytes: 6, read: (field) => hex(field).replaceAll(/(..)(?=.)/g, '$1:') },
  ipv4_addr: { bytes: 4, read: (field) => readIp4(field, 0) },
  ipv6_addr: { bytes: 16, read: (field) => readIp6(field, 0) },
  inet_proto: { bytes: 1, read: ([protocol]) => String(protocol) },
  inet_service: { bytes: 2, read: ([high = 0, low = 0]) => String((high << 8) | low) },
  '@th,64,128': { bytes: 16, read: (field) => `0x${hex(field)}` },
};

function fieldWords(bytes: Uint8Array, types: readonly string[]): string[] | undefined {
  let at = 0;
  const words = types.flatMap((type) => {
    const format = formats[type];
    if (format === undefined) return [];
    const word = format.read(bytes.subarray(at, at + format.bytes));
    at += (format.bytes + 3) & ~3;
    return word ?? [];
  });
  return words.length === types.length && at === bytes.byteLength ? words : undefined;
}

const decoder = new TextDecoder();
