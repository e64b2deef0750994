/** The kernel prints what the renderers say it would: in the VM, since most kernels have no IPVS. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import type { runCommand } from '#pkg/exec/run.ts';
import { applyIpSets } from '#pkg/ipset/apply.ts';
import { observeIpSets } from '#pkg/ipset/observe.ts';
import { parseIpSetSave } from '#pkg/ipset/parse.ts';
import { planIpSets } from '#pkg/ipset/plan.ts';
import { createScratchNetns } from '#pkg/netns/scratch.ts';
import { applyIpvs } from './apply.ts';
import { observeIpvs } from './observe.ts';
import { parseIpvsSave } from './parse.ts';
import { planIpvs } from './plan.ts';
import { schedulerFlags } from './scheduler-flags.ts';

/** Tests have limits of their own, and so has each program. */
const { signal } = new AbortController();
const unwanted = { isOurs: () => true, mayEmpty: () => false };
const golden = (name: string): string =>
  readFileSync(`${import.meta.dirname}/../proxy/testdata/ipvs/${name}.txt`, 'utf8');
const sorted = (text: string): string[] => text.trim().split('\n').toSorted();

it.each(['ip', 'ip6'])('forty Services, family %s', async (family) => {
  await using netns = await createScratchNetns('pw-ipvs');
  const run: typeof runCommand = (file, args, options) => netns.exec(file, args, options);

  const servers = golden(`servers-${family}`);
  await applyIpvs(run, planIpvs(parseIpvsSave(servers), new Map(), unwanted).puts, signal);
  const { stdout: printed } = await netns.exec('ipvsadm', ['-S', '-n']);
  expect(sorted(printed.replaceAll(/ +$/gm, ''))).toEqual(sorted(servers));
  const { stdout: listed } = await netns.exec('ipvsadm', ['-L', '-n']);
  expect(sorted(listed.replaceAll(/ +/g, ' ').replaceAll(/ $/gm, ''))).toEqual(
    sorted(listOf(servers)),
  );

  const sets = golden(`sets-${family}`);
  const want = [...parseIpSetSave(sets, 'KUBE-').values()];
  await applyIpSets(run, planIpSets(want, new Map()), signal);
  const { stdout: saved } = await netns.exec('ipset', ['save']);
  // Without sizes.
  expect(sorted(saved.replaceAll(/ (?:range|hashsize) .*/g, ''))).toEqual(sorted(sets));
  const { stdout: shown } = await netns.exec('ipset', ['list']);
  const members = shown.split('\n').filter((line) => /^(?:Name:|\S+$)/.test(line));
  expect(members.filter((line) => line !== 'Members:').toSorted()).toEqual(
    sorted(
      sets.replaceAll(/^(?:create (\S+) .*|add \S+ (.*))$/gm, (_, name, member) =>
        name === undefined ? String(member) : `Name: ${String(name)}`,
      ),
    ),
  );
});

/** What `ipvsadm -L -n` prints of servers that `ipvsadm -S -n` prints so, with single blanks. */
function listOf(saved: string): string {
  const names = { '-t': 'TCP', '-u': 'UDP', '--sctp-service': 'SCTP' } as const;
  const lines = saved
    .trim()
    .split('\n')
    .map((line) => {
      const words = line.split(' ');
      const after = (word: string): string => words[words.indexOf(word) + 1] ?? '';
      if (words[0] === '-a') return ` -> ${after('-r')} Masq ${after('-w')} 0 0`;
      const persistent = words.includes('-p') ? ` persistent ${after('-p')}` : '';
      const name = names[words[1] as keyof typeof names];
      return `${name} ${words[2]} ${after('-s')}${persistent}`;
    });
  return [
    'IP Virtual Server version 1.2.1 (size=4096)',
    'Prot LocalAddress:Port Scheduler Flags',
    ' -> RemoteAddress:Port Forward Weight ActiveConn InActConn',
    ...lines,
  ].join('\n');
}

it('every scheduler of the kernel is taken, with its flags', async () => {
  await using netns = await createScratchNetns('pw-ipvs');
  const run: typeof runCommand = (file, args, options) => netns.exec(file, args, options);
  const plain = 'rr wrr lc wlc lblc lblcr dh fo ovf sed nq sh mh'.split(' ');
  const flagged = ['sh', 'mh'].flatMap((name) =>
    [['port'], ['fallback'], ['port', 'fallback']].map((flags) => {
      const given = flags.map((flag) => `${name}-${flag}`);
      return `${name} -b ${schedulerFlags(name, given)}`;
    }),
  );
  const text = [...plain, ...flagged]
    .map((scheduler, i) => `-A -t 10.96.0.${i + 1}:80 -s ${scheduler}\n`)
    .join('');
  const want = parseIpvsSave(text);
  await applyIpvs(run, planIpvs(want, new Map(), unwanted).puts, signal);
  expect(await observeIpvs(run, signal)).toEqual(want);
  expect(planIpvs(want, await observeIpvs(run, signal), unwanted)).toEqual({
    puts: [],
    deletions: [],
  });
});

it('a set that is full is made anew with room, while a rule asks it', async () => {
  await using netns = await createScratchNetns('pw-ipvs');
  const run: typeof runCommand = (file, args, options) => netns.exec(file, args, options);
  await netns.exec('ipset', 'create KUBE-CLUSTER-IP hash:ip,port maxelem 2'.split(' '));
  const rule = '-A OUTPUT -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT';
  await netns.exec('iptables', rule.split(' '));
  const kind = { name: 'KUBE-CLUSTER-IP', type: 'hash:ip,port', family: 'ip' } as const;
  const members = new Set([1, 2, 3].map((n) => `10.96.0.${n},tcp:80`));
  const have = async () => await observeIpSets(run, 'KUBE-', signal);
  await applyIpSets(run, planIpSets([{ ...kind, members }], await have()), signal);
  expect([...(await have()).values()]).toEqual([{ ...kind, members, maxMembers: 65_536 }]);
  expect(planIpSets([{ ...kind, members }], await have())).toEqual([]);
  expect((await netns.exec('iptables-save', [])).stdout).toContain(rule);
});

it('what the kernel refuses is an error, though ipvsadm ends well', async () => {
  await using netns = await createScratchNetns('pw-ipvs');
  const run: typeof runCommand = (file, args, options) => netns.exec(file, args, options);
  const [server] = parseIpvsSave('-A -t 10.96.0.2:80 -s rr\n').values();
  if (server === undefined) throw new Error('no server');
  // By its exit code the last line counts.
  const steps = [
    { op: 'delete-server', key: '-t 10.96.0.1:80' },
    { op: 'add-server', server },
  ] as const;
  await expect(applyIpvs(run, steps, signal)).rejects.toThrow(
    /^Cannot write virtual servers: .*No such service/s,
  );
  expect([...(await observeIpvs(run, signal)).values()]).toEqual([server]);
});
