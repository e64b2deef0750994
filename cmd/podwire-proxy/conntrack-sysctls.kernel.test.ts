import { expect, test } from 'vitest';
import type { ConntrackNeeds } from '#pkg/conntrack/sysctls.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns } from '#pkg/netns/scratch.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { readSysctl } from '#pkg/sysctl/sysctl.ts';
import { applyConntrackSysctls } from './conntrack-sysctls.ts';

const config: ConntrackNeeds = {
  // More than any machine has: here the kernel must refuse it.
  maxPerCore: 1,
  min: 2_000_000_000,
  tcpEstablishedTimeoutMs: 86_400_000,
  tcpCloseWaitTimeoutMs: 3_600_000,
  tcpBeLiberal: true,
  udpTimeoutMs: 31_000,
  udpStreamTimeoutMs: 181_000,
  accounting: true,
};

test('S123. a namespace other than the machine’s gets all but the size of the table', async () => {
  await using netns = await createScratchNetns('pw-ct-sysctl');
  const sys = await openSys();
  const inside = <T>(fn: () => T extends PromiseLike<unknown> ? never : T): T =>
    withNetns(sys, netns.path, fn, (error) => {
      throw error;
    });
  const value = (name: string): string | undefined =>
    readSysctl(`net/netfilter/nf_conntrack_${name}`);
  const names = ['tcp_timeout_established', 'tcp_timeout_close_wait', 'tcp_be_liberal'];
  names.push('udp_timeout', 'udp_timeout_stream', 'acct');
  const max = value('max');

  const first = inside(() => applyConntrackSysctls(config));
  expect(first.failures).toMatchObject([{ code: 'EACCES' }]);
  expect(inside(() => names.map((name) => value(name)).join(' '))).toBe('86400 3600 1 31 181 1');
  expect(inside(() => applyConntrackSysctls(config)).written).toEqual([]);
  expect(value('max')).toBe(max);
});
