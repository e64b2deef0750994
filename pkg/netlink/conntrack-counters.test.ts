import { describe, expect, it } from 'vitest';
import { addressBytes, parseAddress } from '#pkg/ip/address.ts';
import { attribute, attributeBe16, attributeU8, concatBytes, nested } from './attribute.ts';
import { readCountedFlow } from './conntrack-counters.ts';

const ips = { ip: [1, 2], ip6: [3, 4] } as const;

/** Source address and port, destination address and port. */
function tuple(type: number, protocol: number, ends: readonly [string, number, string, number]) {
  const [source, sourcePort, destination, port] = ends;
  const from = parseAddress(source);
  const [src, dst] = ips[from.family];
  return nested(type, [
    nested(1, [
      attribute(src, addressBytes(from)),
      attribute(dst, addressBytes(parseAddress(destination))),
    ]),
    nested(2, [attributeU8(1, protocol), attributeBe16(2, sourcePort), attributeBe16(3, port)]),
  ]);
}

function be(bytes: 4 | 8, value: bigint): Uint8Array {
  const out = new Uint8Array(bytes);
  const view = new DataView(out.buffer);
  if (bytes === 4) view.setUint32(0, Number(value));
  else view.setBigUint64(0, value);
  return out;
}

const counters = (type: number, packets: bigint, bytes: bigint): Uint8Array =>
  nested(type, [attribute(1, be(8, packets)), attribute(2, be(8, bytes))]);

const original = tuple(1, 6, ['10.1.0.1', 40_000, '10.96.0.1', 80]);
const reply = tuple(2, 6, ['10.1.0.9', 8080, '10.1.0.1', 40_000]);
/** IPS_SEEN_REPLY, IPS_CONFIRMED, IPS_DST_NAT. */
const translated = attribute(3, be(4, 0b101010n));
const counted = [counters(9, 3n, 180n), counters(10, 2n, 0x1_0000_0001n)];
const id = attribute(12, be(4, 0xffff_fffen));

const read = (type: number, parts: readonly Uint8Array[]) =>
  readCountedFlow({
    type,
    flags: 0,
    sequence: 1,
    body: concatBytes([Uint8Array.of(2, 0, 0, 0), ...parts]),
  });

describe('readCountedFlow()', () => {
  it('tells where a flow went, who answers and what it carried', () => {
    const flow = read(0x100, [original, reply, translated, ...counted, id]);
    expect(flow).toEqual({
      id: 0xffff_fffe * 65_536 + 40_000,
      ended: false,
      protocol: 6,
      address: Uint8Array.of(10, 96, 0, 1),
      port: 80,
      server: Uint8Array.of(10, 1, 0, 9),
      serverPort: 8080,
      packetsIn: 3,
      bytesIn: 180,
      packetsOut: 2,
      bytesOut: 0x1_0000_0001,
    });
    expect(read(0x102, [original, reply, translated, ...counted, id])?.ended).toBe(true);
  });

  it('of IPv6 alike', () => {
    const flow = read(0x100, [
      tuple(1, 17, ['fd00::1', 1, 'fd00:96::1', 53]),
      tuple(2, 17, ['fd00::9', 5353, 'fd00::1', 1]),
      translated,
      ...counted,
      id,
    ]);
    expect([flow?.address.byteLength, flow?.server.at(-1), flow?.serverPort]).toEqual([
      16, 9, 5353,
    ]);
  });

  it.each([
    ['is not translated', [original, reply, attribute(3, be(4, 0b1010n)), ...counted, id]],
    ['began before anybody counted', [original, reply, translated, id]],
    ['has no reply', [original, translated, ...counted, id]],
    ['has no ports', [nested(1, [nested(2, [attributeU8(1, 1)])]), reply, translated, ...counted]],
  ])('is silent of a flow that %s', (_, parts) => {
    expect(read(0x100, parts)).toBeUndefined();
  });

  it('is silent of other messages, and of what is cut off', () => {
    const parts = [original, reply, translated, ...counted, id];
    expect(read(0x101, parts)).toBeUndefined();
    const body = concatBytes([Uint8Array.of(2, 0, 0, 0), ...parts]).subarray(0, 60);
    expect(readCountedFlow({ type: 0x100, flags: 0, sequence: 1, body })).toBeUndefined();
  });
});
