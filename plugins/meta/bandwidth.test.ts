import { describe, expect, it } from 'vitest';
import { parseNetworkConfig } from '#pkg/cni/config.ts';
import { parseBandwidth } from './bandwidth-config.ts';
import { ifbAlias, ifbAliasStart, ifbName, referenceIfbName } from './bandwidth-names.ts';
import { isBucketFor, parseTicks, tokenBucketFor } from './bandwidth-numbers.ts';

const ticks = 15.625;

describe('tokenBucketFor()', () => {
  // Numbers that the reference plugin 1.1.1 set in the kernel, on amd64.
  it.each([
    ['8 Mbit/s, 8 Mbit', 8e6, 8e6, [1e6, 1_025_000, 15_625_000]],
    ['containerd: no burst asked for', 8e6, 4_294_967_295, [1e6, 536_895_911, 4_093_640_688]],
    [
      'CRI-O: no burst asked for, above 4 GB/s',
      4e10,
      34_359_738_359,
      [5e9, 124_999_998, 13_421_765],
    ],
    ['numbers that are no multiple of 8', 1_000_001, 1_000_007, [125_000, 128_125, 15_625_000]],
  ])('%s', (_, rateBitsPerSecond, burstBits, [rateBytesPerSecond, limitBytes, bufferTicks]) => {
    const limit = { rateBitsPerSecond, burstBits };
    const bucket = { rateBytesPerSecond, limitBytes, bufferTicks };
    expect(tokenBucketFor(limit, ticks)).toEqual(bucket);
  });

  it('never leaves a bucket that holds no frame: the reference would, 926 bytes here', () => {
    const limit = { rateBitsPerSecond: 939_848, burstBits: 4_294_967_295 };
    const bucket = tokenBucketFor(limit, ticks);
    expect(bucket.bufferTicks).toBe(0xffffffff);
    expect(isBucketFor({ ...bucket, bufferTicks: 123_250 }, limit, ticks)).toBe(true);
  });

  it('never leaves a queue that holds no frame: the reference would under CRI-O, 310 bytes here', () => {
    const limit = { rateBitsPerSecond: 1e5, burstBits: 34_359_738_359 };
    const bucket = tokenBucketFor(limit, ticks);
    expect(bucket.limitBytes).toBe(65_536);
    expect(isBucketFor({ ...bucket, limitBytes: 310 }, limit, ticks)).toBe(true);
    expect(isBucketFor({ ...bucket, limitBytes: 311 }, limit, ticks)).toBe(false);
  });

  it.each([8, 1e3, 9e3, 125e3, 1e6, 3e6, 1e7, 1e8, 1e9, 1e10, 1e11])(
    'at %d bit/s holds a frame, or as much as the kernel can count',
    (rateBitsPerSecond) => {
      for (const burstBits of [8e5, 4_294_967_295, 34_359_738_359]) {
        const bucket = tokenBucketFor({ rateBitsPerSecond, burstBits }, ticks);
        const seconds = bucket.bufferTicks / ticks / 1e6;
        const enough = seconds * bucket.rateBytesPerSecond > 65_000;
        expect(enough || bucket.bufferTicks === 0xffffffff, `${burstBits}`).toBe(true);
        // And lets one wait.
        expect(bucket.limitBytes, `${burstBits}`).toBeGreaterThan(65_000);
      }
    },
  );
});

describe('isBucketFor()', () => {
  const limit = { rateBitsPerSecond: 8e6, burstBits: 8e6 };
  const bucket = tokenBucketFor(limit, ticks);
  it('accepts what ADD made', () => {
    expect(isBucketFor(bucket, limit, ticks)).toBe(true);
  });
  it.each(['rateBytesPerSecond', 'limitBytes', 'bufferTicks'] as const)(
    'sees a changed %s',
    (key) => {
      expect(isBucketFor({ ...bucket, [key]: bucket[key] + 1 }, limit, ticks)).toBe(false);
    },
  );
});

describe('parseTicks()', () => {
  it('reads what every kernel since 2.6.31 prints', () => {
    expect(parseTicks('000003e8 00000040 000f4240 3b9aca00\n')).toBe(15.625);
  });
  it.each(['', '00000000 00000040 000f4240 3b9aca00', 'nonsense', '000003e8 00000000 000f4240'])(
    'refuses %j',
    (text) => expect(() => parseTicks(text)).toThrow('/proc/net/psched'),
  );
});

describe('the configuration', () => {
  const parse = (fields: object): object =>
    parseBandwidth(
      parseNetworkConfig(JSON.stringify({ cniVersion: '1.1.0', name: 'net', ...fields })),
    );
  const limit = (rate: number, burst: number): object => ({
    rateBitsPerSecond: rate,
    burstBits: burst,
  });

  it('111. runtimeConfig counts, static configuration before it, and nothing is no limit', () => {
    const bandwidth = { ingressRate: 80, ingressBurst: 88, egressRate: 96, egressBurst: 104 };
    expect(parse({ runtimeConfig: { bandwidth } })).toEqual({
      ingress: limit(80, 88),
      egress: limit(96, 104),
    });
    expect(parse({ ingressRate: 160, ingressBurst: 168, runtimeConfig: { bandwidth } })).toEqual({
      ingress: limit(160, 168),
      egress: undefined,
    });
    const none = { ingress: undefined, egress: undefined };
    expect(parse({ ingressRate: 0, runtimeConfig: { bandwidth } })).toEqual(none);
    expect(parse({})).toEqual(none);
    expect(parse({ runtimeConfig: { bandwidth: null } })).toEqual(none);
  });

  it('takes the keys as containerd sends them', () => {
    const bandwidth = {
      IngressRate: 1_000_000,
      IngressBurst: 4_294_967_295,
      EgressRate: 0,
      EgressBurst: 0,
    };
    expect(parse({ runtimeConfig: { bandwidth } })).toEqual({
      ingress: limit(1_000_000, 4_294_967_295),
      egress: undefined,
    });
  });

  it.each([
    ['a rate without burst', { ingressRate: 80 }, 'if rate is set, burst must also be set'],
    ['a burst without rate', { egressBurst: 80 }, 'if burst is set, rate must also be set'],
    ['a burst of 4 GB', { egressRate: 80, egressBurst: 8 * 0xffffffff }, 'more than 4GB'],
    ['a rate below zero', { ingressRate: -1, ingressBurst: 8 }, 'ingressRate": expected a whole'],
    ['half a bit', { ingressRate: 80.5, ingressBurst: 8 }, 'ingressRate": expected a whole'],
    ['a text', { ingressRate: '1M', ingressBurst: 8 }, 'ingressRate": expected a whole'],
    ['less than a byte', { ingressRate: 7, ingressBurst: 8 }, 'at least 8 bits'],
  ])('112. refuses %s', (_, fields, message) => {
    expect(() => parse(fields)).toThrow(message);
    expect(() => parse({ runtimeConfig: { bandwidth: fields } })).toThrow(message);
  });

  it('112. takes the largest burst below 4 GB, and zero as no limit', () => {
    expect(parse({ egressRate: 80, egressBurst: 34_359_738_359 })).toMatchObject({
      egress: limit(80, 34_359_738_359),
    });
    expect(parse({ egressRate: 0, egressBurst: 0 })).toMatchObject({ egress: undefined });
  });
});

describe('names of IFB devices', () => {
  const eth0 = { containerId: 'abc', ifName: 'eth0' };
  const net1 = { containerId: 'abc', ifName: 'net1' };
  it('differ between the interfaces of one container, where those of the reference do not', () => {
    expect(ifbName('net', eth0)).toMatch(/^bwp[0-9a-f]{12}$/);
    expect(ifbName('net', eth0)).not.toBe(ifbName('net', net1));
    expect(ifbName('net', eth0)).not.toBe(ifbName('other', eth0));
    expect(referenceIfbName('net', eth0)).toBe('bwp3ce8a0924fde');
    expect(referenceIfbName('net', net1)).toBe('bwp3ce8a0924fde');
  });
  it('say in their alias whose they are', () => {
    expect(ifbAlias('net', eth0)).toBe('podwire-bandwidth net abc eth0');
    expect(ifbAlias('net', eth0).startsWith(ifbAliasStart('ne'))).toBe(false);
    expect(ifbAlias('net', { containerId: 'x'.repeat(400), ifName: 'e' })).toHaveLength(255);
  });
});
