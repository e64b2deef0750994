import { expect, it } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import type { ConntrackNeeds } from '#pkg/conntrack/sysctls.ts';
import { applyConntrackSysctls } from './conntrack-sysctls.ts';

const defaults: ConntrackNeeds = {
  maxPerCore: 32_768,
  min: 131_072,
  tcpEstablishedTimeoutMs: 86_400_000,
  tcpCloseWaitTimeoutMs: 3_600_000,
  tcpBeLiberal: false,
  udpTimeoutMs: 0,
  udpStreamTimeoutMs: 0,
  accounting: false,
};

/** A host that holds no value yet, and refuses some. */
function host(
  refused: RegExp,
): { written: Map<string, string> } & Parameters<typeof applyConntrackSysctls>[1] {
  const written = new Map<string, string>();
  return {
    cores: 4,
    written,
    read: (path) => written.get(path),
    write: (path, value) => {
      if (refused.test(path)) throw new AgentError('EACCES', `Cannot write sysctl ${path}`);
      written.set(path, value);
    },
  };
}

it('a namespace where the table’s size is not ours to set gets all the rest', () => {
  const inner = host(/_(?:max|buckets)$/);
  const { failures, written } = applyConntrackSysctls(defaults, inner);
  // One for both: the hash is for the table.
  expect(failures).toMatchObject([{ code: 'EACCES' }]);
  expect(written.map(({ path, value }) => `${path}=${value}`)).toEqual([
    'net/netfilter/nf_conntrack_tcp_timeout_established=86400',
    'net/netfilter/nf_conntrack_tcp_timeout_close_wait=3600',
  ]);
  expect(inner.written.size).toBe(2);
});

it('what was set once is left alone', () => {
  const inner = host(/none/);
  expect(applyConntrackSysctls(defaults, inner).written).toHaveLength(4);
  expect(applyConntrackSysctls(defaults, inner)).toEqual({ written: [], failures: [] });
});

it('a value that may not be read is not written, others are', () => {
  const inner = host(/none/);
  const read = (path: string): string | undefined => {
    if (path.endsWith('_max')) throw new AgentError('EACCES', 'Cannot read');
    return undefined;
  };
  const { failures, written } = applyConntrackSysctls(defaults, { ...inner, read });
  expect(failures).toMatchObject([{ code: 'EACCES' }]);
  expect(written).toHaveLength(2);
});
