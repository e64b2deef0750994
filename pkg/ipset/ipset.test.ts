import { describe, expect, it } from 'vitest';
import { roomFor, temporaryName, type IpSet, type ObservedIpSet } from './ip-set.ts';
import { parseIpSetSave } from './parse.ts';
import { planIpSets, planMembers } from './plan.ts';
import { renderIpSetRestore } from './render.ts';

const set = (...members: string[]): IpSet => ({
  name: 'KUBE-CLUSTER-IP',
  type: 'hash:ip,port',
  family: 'ip',
  members: new Set(members),
});
const present = (of: IpSet, maxMembers = 65_536): Map<string, ObservedIpSet> =>
  new Map([[of.name, { ...of, maxMembers }]]);
const text = (want: IpSet, have: Map<string, ObservedIpSet>): string =>
  renderIpSetRestore(planIpSets([want], have));

describe('planIpSets()', () => {
  it('makes a set that is missing, and fills it', () => {
    expect(text(set('10.96.0.1,tcp:80'), new Map())).toBe(
      'create KUBE-CLUSTER-IP hash:ip,port family inet maxelem 65536\n' +
        'add KUBE-CLUSTER-IP 10.96.0.1,tcp:80\n',
    );
  });

  it('writes the difference only, deletions first: a set may be full', () => {
    const have = present(set('10.96.0.1,tcp:80', '10.96.0.2,udp:53'));
    expect(text(set('10.96.0.1,tcp:80', '10.96.0.3,sctp:9'), have)).toBe(
      'del KUBE-CLUSTER-IP 10.96.0.2,udp:53\nadd KUBE-CLUSTER-IP 10.96.0.3,sctp:9\n',
    );
  });

  it('has nothing to do where all is as it should be', () => {
    const want = set('10.96.0.1,tcp:80');
    expect(planIpSets([want], present(want))).toEqual([]);
  });

  it('exchanges a set that has no room', () => {
    const want = set('10.96.0.1,tcp:80', '10.96.0.2,tcp:80');
    const exchanged =
      'create KUBE-CLUSTER-IP-NEW hash:ip,port family inet maxelem 65536\n' +
      'flush KUBE-CLUSTER-IP-NEW\n' +
      'add KUBE-CLUSTER-IP-NEW 10.96.0.1,tcp:80\n' +
      'add KUBE-CLUSTER-IP-NEW 10.96.0.2,tcp:80\n' +
      'swap KUBE-CLUSTER-IP-NEW KUBE-CLUSTER-IP\n' +
      'destroy KUBE-CLUSTER-IP-NEW\n';
    expect(text(want, present(want, 1))).toBe(exchanged);
  });

  it('makes one of another type or family anew: the kernel exchanges like for like only', () => {
    const want = set('10.96.0.1,tcp:80');
    const anew =
      'destroy KUBE-CLUSTER-IP\n' +
      'create KUBE-CLUSTER-IP hash:ip,port family inet maxelem 65536\n' +
      'add KUBE-CLUSTER-IP 10.96.0.1,tcp:80\n';
    expect(text(want, present({ ...want, type: 'hash:ip' }))).toBe(anew);
    expect(text(want, present({ ...want, family: 'ip6' }))).toBe(anew);
  });

  it('takes away what was to be exchanged by a process that was killed then, first and once', () => {
    const wanted = ['KUBE-6-LOAD-BALANCER-SOURCE-IP', 'KUBE-6-LOAD-BALANCER-SOURCE-CID'].map(
      (name) => ({ ...set(), name }),
    );
    const left = { ...set(), name: 'KUBE-6-LOAD-BALANCER-SOURCE-NEW', maxMembers: 2 };
    const have = new Map([...wanted, left].map((of) => [of.name, { ...left, ...of }]));
    const steps = planIpSets(wanted, have);
    expect(steps).toEqual([{ op: 'destroy', set: temporaryName(wanted[0]?.name ?? '') }]);
    expect(wanted.map(({ name }) => temporaryName(name))).toEqual([
      'KUBE-6-LOAD-BALANCER-SOURCE-NEW',
      'KUBE-6-LOAD-BALANCER-SOURCE-NEW',
    ]);
  });
});

describe('planMembers()', () => {
  const change = new Map([['S', { added: ['b'], removed: ['a'] }]]);

  it('takes out before it puts in: a set may be full', () => {
    const steps = planMembers(change, new Map([['S', { size: 2, room: 2 }]]));
    expect(renderIpSetRestore(steps ?? [])).toBe('del S a\nadd S b\n');
  });

  it('gives up where there is no room', () => {
    expect(planMembers(change, new Map([['S', { size: 3, room: 2 }]]))).toBeUndefined();
  });
});

it('room is twice what is needed, and not less than the kernel gives', () => {
  expect([0, 32_768, 32_769, 100_000].map(roomFor)).toEqual([65_536, 65_536, 131_072, 262_144]);
});

it('a temporary name fits beside the longest name', () => {
  expect(temporaryName('KUBE-6-LOAD-BALANCER-SOURCE-CID')).toHaveLength(31);
});

it('parseIpSetSave() reads what ipset prints, and only sets of ours', () => {
  const saved = [
    'create KUBE-6-CLUSTER-IP hash:ip,port family inet6 hashsize 1024 maxelem 65536 bucketsize 12',
    'add KUBE-6-CLUSTER-IP fd00:96::1,tcp:80',
    'create KUBE-NODE-PORT-TCP bitmap:port range 0-65535',
    'add KUBE-NODE-PORT-TCP 30080',
    'create blocked hash:ip family inet hashsize 1024 maxelem 65536',
    'add blocked 192.0.2.1',
  ].join('\n');
  expect([...parseIpSetSave(saved, 'KUBE-').values()]).toEqual([
    {
      name: 'KUBE-6-CLUSTER-IP',
      type: 'hash:ip,port',
      family: 'ip6',
      maxMembers: 65_536,
      members: new Set(['fd00:96::1,tcp:80']),
    },
    {
      name: 'KUBE-NODE-PORT-TCP',
      type: 'bitmap:port',
      family: undefined,
      maxMembers: undefined,
      members: new Set(['30080']),
    },
  ]);
});
