import { describe, expect, it } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { detectIptables, type CommandRunner } from './detect.ts';

const signal = new AbortController().signal;
const versions = { 'iptables-nft': '1.8.9 (nf_tables)', 'iptables-legacy': '1.8.9 (legacy)' };

/** A machine by the versions its programs print, and what its -save programs print. */
function machine(
  programs: Readonly<Record<string, string>>,
  saved: Readonly<Record<string, string>> = {},
): CommandRunner {
  return (file, args) => {
    const bare = file.replace(/-save$/, '');
    const version = programs[bare.replace(/^ip6/, 'ip')];
    if (version === undefined) {
      return Promise.reject(new AgentError('CommandMissing', `Cannot run ${file}`));
    }
    if (saved[file] === 'broken') {
      return Promise.reject(new AgentError('CommandFailed', `Cannot run ${file}: no such table`));
    }
    const stdout = args[0] === '--version' ? `iptables v${version}` : (saved[file] ?? '');
    return Promise.resolve({ stdout, stderr: '' });
  };
}

async function chosen(run: CommandRunner): Promise<string> {
  const { tools } = await detectIptables(run, signal);
  return [...tools.values()].map(({ backend, save }) => `${save} ${backend}`).join(', ');
}

const nft = 'iptables-nft-save nf_tables, ip6tables-nft-save nf_tables';
const legacy = 'iptables-legacy-save legacy, ip6tables-legacy-save legacy';
const rules = (n: number): string => `*nat\n${'-A POSTROUTING -j RETURN\n'.repeat(n)}COMMIT\n`;
const hint = '*mangle\n:PREROUTING ACCEPT [0:0]\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n';
const canary = '*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n';

describe('detectIptables() chooses', () => {
  it.each([
    ['nf_tables on a fresh node', {}, nft],
    ['the backend that holds more rules', { 'iptables-legacy-save': rules(3) }, legacy],
    ['rules of IPv6 counted', { 'ip6tables-legacy-save': rules(3) }, legacy],
    [
      "nf_tables by the kubelet's hint, whatever lies in legacy",
      { 'iptables-nft-save': hint, 'iptables-legacy-save': rules(30) },
      nft,
    ],
    [
      "legacy by the kubelet's hint, whatever lies in nf_tables",
      { 'iptables-nft-save': rules(30), 'iptables-legacy-save': canary },
      legacy,
    ],
    ['nf_tables when the kernel has no legacy', { 'iptables-legacy-save': 'broken' }, nft],
    [
      'legacy when the kernel has no nf_tables',
      { 'iptables-nft-save': 'broken', 'ip6tables-nft-save': 'broken' },
      legacy,
    ],
    [
      'the one that it has for one family at least',
      { 'ip6tables-nft-save': 'broken' },
      'iptables-nft-save nf_tables',
    ],
  ])('%s', async (_, saved, expected) => {
    expect(await chosen(machine(versions, saved))).toBe(expected);
  });

  it('no other backend for a kernel that was too busy to answer', async () => {
    const run = machine(versions);
    const busy: CommandRunner = (file, args, options) =>
      file.includes('-nft-save')
        ? Promise.reject(new AgentError('CommandTimedOut', `Cannot run ${file}: not finished`))
        : run(file, args, options);
    const { failures, tools } = await detectIptables(busy, signal);
    expect([tools.size, failures.size]).toEqual([0, 2]);
  });

  it('what there is', async () => {
    const onlyLegacy = { 'iptables-legacy': '1.8.9 (legacy)' };
    expect(await chosen(machine(onlyLegacy))).toBe(legacy);
    const plain = machine({ iptables: '1.8.10 (nf_tables)' });
    expect(await chosen(plain)).toBe('iptables-save nf_tables, ip6tables-save nf_tables');
  });
});

describe('detectIptables() tells', () => {
  it('that there is no iptables at all', async () => {
    await expect(detectIptables(machine({}), signal)).rejects.toMatchObject({
      code: 'CommandMissing',
    });
  });

  it('a family that failed while the kernel was still loading its filter', async () => {
    const run = machine(versions);
    let refusals = 1;
    const early: CommandRunner = (file, args, options) => {
      const isNat = file === 'ip6tables-nft-save' && args.includes('nat');
      if (!isNat || refusals-- <= 0) return run(file, args, options);
      return Promise.reject(new AgentError('CommandFailed', 'Could not fetch rule set'));
    };
    expect(await chosen(early)).toBe(nft);
  });

  it('why a family cannot be used', async () => {
    const run = machine(versions, { 'ip6tables-nft-save': 'broken' });
    const { failures, tools } = await detectIptables(run, signal);
    expect([...tools.keys()]).toEqual(['ip']);
    expect(failures.get('ip6')?.message).toContain('no such table');
  });

  it.each([
    ['1.6.1', false],
    ['1.6.2', true],
    ['1.8', true],
    ['1.4.21', false],
  ])('whether version %s has --random-fully: %s', async (version, expected) => {
    const { tools } = await detectIptables(machine({ iptables: version }), signal);
    expect(tools.get('ip')).toMatchObject({ version, backend: 'legacy', randomFully: expected });
  });
});
