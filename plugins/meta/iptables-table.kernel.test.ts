import { spawnSync } from 'node:child_process';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { probeBackends } from '#pkg/iptables/testdata/scratch-tools.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { ensureChain, readTable, updateTable, type SavedTable } from './iptables-table.ts';
import type { RunNetfilter } from './run-netfilter.ts';

const backends = (await probeBackends()).filter(({ usable }) => usable);
let netns: ScratchNetns;
beforeEach(async () => {
  netns = await createScratchNetns('pw-iptables-table');
});
afterEach(() => netns[Symbol.asyncDispose]());

/** iptables of a backend in the namespace. */
function runner(backend: string): RunNetfilter {
  const suffix = backend === 'legacy' ? '-legacy' : '-nft';
  return (file, args, input = '') => {
    const program = file.replace(/^ip6?tables/, `$&${suffix}`);
    const words = [`--net=${netns.path}`, program, ...args];
    const { status, stderr, stdout } = spawnSync('nsenter', words, { input, encoding: 'utf8' });
    if (status === 0) return stdout;
    throw new AgentError('CommandFailed', stderr.trim());
  };
}

it.each(backends)('$title: a chain that somebody else made since is not emptied', ({ backend }) => {
  const run = runner(backend);
  const target = { run, family: 'ip', table: 'nat' } as const;
  let others = ['-N SHARED', '-A SHARED -s 192.0.2.1/32 -j ACCEPT'];
  const seen: SavedTable[] = [];
  updateTable(target, (saved) => {
    seen.push(saved);
    for (const line of others) run('iptables', ['-w', '5', '-t', 'nat', ...line.split(' ')]);
    others = [];
    return [...ensureChain(saved, 'SHARED'), '-A SHARED -s 192.0.2.2/32 -j ACCEPT'];
  });
  expect(seen.map((saved) => saved.has('SHARED'))).toEqual([false, true]);
  expect(readTable(target).get('SHARED')).toEqual([
    '-s 192.0.2.1/32 -j ACCEPT',
    '-s 192.0.2.2/32 -j ACCEPT',
  ]);
});
