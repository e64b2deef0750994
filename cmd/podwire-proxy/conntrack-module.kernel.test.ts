import { expect, it } from 'vitest';
import { silentLogger } from '#pkg/log/logger.ts';
import { readSysctl } from '#pkg/sysctl/sysctl.ts';
import { loadConntrack } from './conntrack-module.ts';

it('after it the settings of connection tracking are there', async () => {
  await loadConntrack(silentLogger);
  expect(readSysctl('net/netfilter/nf_conntrack_acct')).toMatch(/^[01]$/);
});
