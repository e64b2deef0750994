import { expect, it } from 'vitest';
import { attribute, attributeString, concatBytes, nested } from '#pkg/netlink/attribute.ts';
import { decodeCounts } from './element-counters.ts';
import { elementLayout } from './element-text.ts';

/** include/uapi/linux/netfilter/nf_tables.h: what the kernel answers for an element. */
const [LIST_ELEM, KEY, DATA, EXPR, VALUE] = [1, 1, 2, 7, 1];

function be64(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
  return bytes;
}

function counter(packets: number, bytes: number): Uint8Array {
  const data = [attribute(1, be64(bytes)), attribute(2, be64(packets))];
  return nested(EXPR, [attributeString(1, 'counter'), nested(2, data)]);
}

const key = (port: number): Uint8Array =>
  nested(KEY, [attribute(VALUE, Uint8Array.of(10, 96, 0, 1, 6, 0, 0, 0, 0, port, 0, 0))]);
const value = nested(DATA, [attribute(VALUE, Uint8Array.of(10, 1, 0, 2, 0, 80, 0, 0))]);
const layout = elementLayout('ipv4_addr . inet_proto . inet_service', 'ipv4_addr . inet_service');

it('reads keys, values, packets and bytes; elements that do not count are left out', () => {
  const list = concatBytes([
    nested(LIST_ELEM, [key(80), value, counter(3, 5_000_000_000)]),
    nested(LIST_ELEM, [key(81), value]),
    nested(LIST_ELEM, [key(82), value, counter(0, 0)]),
  ]);
  expect(decodeCounts(list, layout)).toEqual([
    { key: '10.96.0.1 . tcp . 80', value: '10.1.0.2 . 80', packets: 3, bytes: 5_000_000_000 },
    { key: '10.96.0.1 . tcp . 82', value: '10.1.0.2 . 80', packets: 0, bytes: 0 },
  ]);
});
