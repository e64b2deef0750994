/** Sets as they may be found, and what the kernel makes of the plan for them. */
import { expect, it } from 'vitest';
import { messageOf } from '#pkg/errors/agent-error.ts';
import type { runCommand } from '#pkg/exec/run.ts';
import { createScratchNetns } from '#pkg/netns/scratch.ts';
import { applyIpSets } from './apply.ts';
import { observeIpSets } from './observe.ts';
import { planIpSets } from './plan.ts';
import type { IpSet } from './ip-set.ts';

const signal = new AbortController().signal;
const set = (...members: string[]): IpSet => ({
  name: 'KUBE-CLUSTER-IP',
  type: 'hash:ip,port',
  family: 'ip',
  members: new Set(members.map((n) => `10.96.0.${n},tcp:80`)),
});

/** A namespace with sets made by these lines, in which a plan is carried out. */
async function found(...lines: readonly string[]) {
  const netns = await createScratchNetns('pw-ipset');
  const run: typeof runCommand = (file, args, options) => netns.exec(file, args, options);
  for (const line of lines) await netns.exec('ipset', line.split(' '));
  const have = () => observeIpSets(run, 'KUBE-', signal);
  return {
    netns,
    have,
    write: async (want: IpSet) => {
      await applyIpSets(run, planIpSets([want], await have()), signal);
      expect(planIpSets([want], await have())).toEqual([]);
    },
    [Symbol.asyncDispose]: () => netns[Symbol.asyncDispose](),
  };
}

it.each([
  [
    'that is full, others for its own',
    'create KUBE-CLUSTER-IP hash:ip,port maxelem 2',
    ['3', '4'],
    2,
  ],
  ['that is full, more', 'create KUBE-CLUSTER-IP hash:ip,port maxelem 2', ['1', '2', '3'], 65_536],
  ['of another type', 'create KUBE-CLUSTER-IP hash:ip maxelem 2', ['1'], 65_536],
  ['of the other family', 'create KUBE-CLUSTER-IP hash:ip,port family inet6', ['1'], 65_536],
])('a set %s', async (_, creation, members, room) => {
  await using kernel = await found(
    creation,
    // Of a process that was killed while it made the set anew.
    'create KUBE-CLUSTER-IP-NEW hash:ip,port maxelem 7',
    'add KUBE-CLUSTER-IP-NEW 10.96.0.9,tcp:80',
  );
  if (creation.includes('ip,port maxelem')) {
    for (const n of [1, 2]) {
      await kernel.netns.exec('ipset', ['add', 'KUBE-CLUSTER-IP', `10.96.0.${n},tcp:80`]);
    }
  }
  const want = set(...members);
  await kernel.write(want);
  expect([...(await kernel.have()).values()]).toEqual([{ ...want, maxMembers: room }]);
});

it('a set of another type that a rule asks is told of: it cannot be taken away', async () => {
  await using kernel = await found('create KUBE-CLUSTER-IP hash:ip');
  const rule = '-A OUTPUT -m set --match-set KUBE-CLUSTER-IP dst -j ACCEPT';
  await kernel.netns.exec('iptables-nft', rule.split(' '));
  const refused = await kernel.write(set('1')).catch(messageOf);
  expect(refused).toContain('in use by a kernel component');
});
