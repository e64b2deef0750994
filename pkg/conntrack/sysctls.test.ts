import { describe, expect, it } from 'vitest';
import { conntrackSysctls, type ConntrackNeeds } from './sysctls.ts';

const untouched: ConntrackNeeds = {
  maxPerCore: 0,
  min: 0,
  tcpEstablishedTimeoutMs: 0,
  tcpCloseWaitTimeoutMs: 0,
  tcpBeLiberal: false,
  udpTimeoutMs: 0,
  udpStreamTimeoutMs: 0,
  accounting: false,
};
/** The kernel's own values on a small machine. */
const kernel: Readonly<Record<string, string>> = {
  max: '65536',
  buckets: '16384',
  tcp_timeout_established: '432000',
  tcp_timeout_close_wait: '60',
  tcp_be_liberal: '0',
  udp_timeout: '30',
  udp_timeout_stream: '120',
};

function writes(
  config: Partial<ConntrackNeeds>,
  { cores = 4, current = {} }: { cores?: number; current?: Readonly<Record<string, string>> } = {},
): string[] {
  const now = { ...kernel, ...current };
  return conntrackSysctls({ ...untouched, ...config }, cores, (path) => {
    return now[path.replace('net/netfilter/nf_conntrack_', '')];
  }).map(({ path, value }) => `${path.replace('net/netfilter/nf_conntrack_', '')}=${value}`);
}

describe('S123. of connection tracking', () => {
  it('nothing is touched that the configuration leaves at zero', () => {
    expect(writes({})).toEqual([]);
    expect(writes({ min: 1_000_000 })).toEqual([]);
  });

  it.each([
    ['as many entries as cores ask for', 8, {}, ['max=262144', 'buckets=65536']],
    ['not less than the least', 2, {}, ['max=131072', 'buckets=32768']],
    ['not more than a million by cores', 64, {}, ['max=1048576', 'buckets=262144']],
    ['more if the least is more', 64, { min: 2_000_000 }, ['max=2000000', 'buckets=500000']],
  ])('%s', (_, cores, config, expected) => {
    expect(writes({ maxPerCore: 32_768, min: 131_072, ...config }, { cores })).toEqual(expected);
  });

  it.each([
    ['a table and hash that are larger', { max: '4000000', buckets: '1000000' }, []],
    ['a larger table', { max: '4000000' }, ['buckets=32768']],
    ['a larger hash', { buckets: '65536' }, ['max=131072']],
    ['what is as wanted', { max: '131072', buckets: '32768' }, []],
  ])('an admin’s values are not lowered: %s', (_, current, expected) => {
    expect(writes({ maxPerCore: 32_768, min: 131_072 }, { current })).toEqual(expected);
  });

  it('each time-out is written in seconds if it differs, up or down', () => {
    const config = {
      tcpEstablishedTimeoutMs: 86_400_000,
      tcpCloseWaitTimeoutMs: 3_600_000,
      udpTimeoutMs: 250,
      udpStreamTimeoutMs: 120_000,
    };
    expect(writes(config)).toEqual([
      'tcp_timeout_established=86400',
      'tcp_timeout_close_wait=3600',
      'udp_timeout=1',
    ]);
  });

  it('be_liberal is switched on, never off', () => {
    expect(writes({ tcpBeLiberal: true })).toEqual(['tcp_be_liberal=1']);
    expect(writes({ tcpBeLiberal: true }, { current: { tcp_be_liberal: '1' } })).toEqual([]);
    expect(writes({ tcpBeLiberal: false }, { current: { tcp_be_liberal: '1' } })).toEqual([]);
  });

  it('counting is switched on where it is wanted, never off', () => {
    expect(writes({ accounting: true }, { current: { acct: '0' } })).toEqual(['acct=1']);
    expect(writes({ accounting: true }, { current: { acct: '1' } })).toEqual([]);
    expect(writes({ accounting: false }, { current: { acct: '1' } })).toEqual([]);
  });

  it('a kernel that has none of it is asked all the same: the refusal says so', () => {
    const wanted = conntrackSysctls({ ...untouched, udpTimeoutMs: 1_000 }, 4, () => undefined);
    expect(wanted).toHaveLength(1);
  });
});
