import { describe, expect, it } from 'vitest';
import { concatBytes, littleEndian } from './attribute.ts';
import { RTM_NEWQDISC } from './constants.ts';
import { redirectIngressRequest } from './filter.ts';
import { addIngressRequest, addTokenBucketRequest, parseQdisc } from './qdisc.ts';

const on = littleEndian ? describe : describe.skip;

/** As the reference plugin's `bandwidth` sends it, but for the nested flag, which it never sets. */
on('the same bytes as the reference plugin sends (captured from Go with strace)', () => {
  it('for a token bucket: containerd asks for 8 Mbit/s with a burst of 4294967295 bits', () => {
    const bucket = { rateBytesPerSecond: 1e6, limitBytes: 536_895_911, bufferTicks: 4_093_640_688 };
    expect(hex(addTokenBucketRequest(3, bucket).body)).toBe(
      plain(
        '00000000 03000000 00000100 ffffffff 00000000 08000100 74626600 2c000280' +
          '28000100 0000000000000000 40420f00 000000000000000000000000 a7610020 f0fffff3 00000000',
      ),
    );
  });

  it('for a rate that needs 64 bits, of which the 32-bit field is then all ones', () => {
    const bucket = {
      rateBytesPerSecond: 5e9,
      limitBytes: 124_999_998,
      bufferTicks: 13_421_765,
    };
    expect(hex(addTokenBucketRequest(3, bucket).body)).toBe(
      plain(
        '00000000 03000000 00000100 ffffffff 00000000 08000100 74626600 38000280' +
          '28000100 0000000000000000 ffffffff 000000000000000000000000 3e597307 c5cccc00 00000000' +
          '0c000400 00f2052a01000000',
      ),
    );
  });

  it('for the hook of incoming frames', () => {
    expect(hex(addIngressRequest(3).body)).toBe(
      plain('00000000 03000000 0000ffff f1ffffff 00000000 0c000100 696e677265737300'),
    );
  });

  it('for the filter; its second action, which no frame reaches, is left out', () => {
    expect(hex(redirectIngressRequest(2, 3).body)).toBe(
      plain(
        '00000000 02000000 00000000 0000ffff 00030100 08000100 75333200 68000280' +
          '08000100 01000100 24000500 01000100000000000000000000000000 00000000000000000000000000000000' +
          '38000780 34000180 0b000100 6d69727265640000 24000280' +
          '20000200 0000000000000000 04000000 0000000000000000 01000000 03000000',
      ),
    );
  });
});

describe('parseQdisc()', () => {
  it.each([1e6, 0xffffffff, 5e9])('reads back a bucket of %d bytes per second', (rate) => {
    const bucket = { rateBytesPerSecond: rate, limitBytes: 7, bufferTicks: 0xffffffff };
    const body = concatBytes(addTokenBucketRequest(3, bucket).body);
    expect(parseQdisc({ type: RTM_NEWQDISC, flags: 0, sequence: 0, body })).toEqual([
      { linkIndex: 3, kind: 'tbf', handle: 0x10000, parent: 0xffffffff, tokenBucket: bucket },
    ]);
  });

  it('skips what is no qdisc, or cut off', () => {
    const message = { flags: 0, sequence: 0, body: new Uint8Array(20) };
    expect(parseQdisc({ ...message, type: 16 })).toEqual([]);
    expect(parseQdisc({ ...message, type: RTM_NEWQDISC, body: new Uint8Array(19) })).toEqual([]);
    expect(parseQdisc({ ...message, type: RTM_NEWQDISC })).toMatchObject([{ kind: '' }]);
  });
});

function hex(body: readonly Uint8Array[]): string {
  return Buffer.from(concatBytes(body)).toString('hex');
}

/** Expectations have blanks between fields. */
function plain(text: string): string {
  return text.replaceAll(' ', '');
}
