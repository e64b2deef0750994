import { expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import {
  attributeAddress,
  attributeMac,
  attributeU16,
  attributeU32,
  concatBytes,
  getU16,
  getU32,
  littleEndian,
  setU16,
  setU32,
} from './attribute.ts';
import { BodyWriter } from './body-writer.ts';

test('a body is what its attributes are one by one, whatever was written before', () => {
  const [four, six] = [parseAddress('203.0.113.254'), parseAddress('fd00:10:244:fffe::89ab')];
  const before = new BodyWriter(64);
  for (let at = 0; at < 64; at++) before.setU8(at, 0xff);
  before.addAddress(9, six);
  before.addAddress(9, six);
  before.finish();

  const body = new BodyWriter(12);
  body.setU8(0, 7);
  body.setU16(2, 0xfedc);
  body.setU32(4, 0xfedcba98);
  body.addMac(2, '0a:58:Fa:f4:01:9f');
  body.addAddress(1, four);
  body.addAddress(1, six);
  body.addU32(15, 0xfffffffe);
  body.addWhole(attributeU16(3, 0x1234));
  const start = new Uint8Array(12);
  const view = new DataView(start.buffer);
  start[0] = 7;
  view.setUint16(2, 0xfedc, littleEndian);
  view.setUint32(4, 0xfedcba98, littleEndian);
  expect(body.finish()).toEqual(
    concatBytes([
      start,
      attributeMac(2, '0a:58:fa:f4:01:9f'),
      attributeAddress(1, four),
      attributeAddress(1, six),
      attributeU32(15, 0xfffffffe),
      attributeU16(3, 0x1234),
    ]),
  );
});

test('numbers are in the machine’s order, negative ones as two’s complement', () => {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  for (const value of [0, 1, 0xff00, 0x1234_5678, 0xfedc_ba98]) {
    setU32(bytes, 1, value);
    expect(view.getUint32(1, littleEndian)).toBe(value);
    expect(getU32(bytes, 1)).toBe(value);
    setU16(bytes, 5, value & 0xffff);
    expect(view.getUint16(5, littleEndian)).toBe(value & 0xffff);
    expect(getU16(bytes, 5)).toBe(value & 0xffff);
  }
  setU32(bytes, 1, -2);
  expect(view.getInt32(1, littleEndian)).toBe(-2);
  expect(getU32(Uint8Array.of(1, 2), 0)).toBe(littleEndian ? 0x0201 : 0x0102_0000);
});
