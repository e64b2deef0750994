import { describe, expect, it } from 'vitest';
import { families } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { planIptables } from '#pkg/iptables/plan.ts';
import type { Ruleset } from '#pkg/iptables/ruleset.ts';
import { iptablesRuleset } from '#pkg/proxy/iptables-ruleset.ts';
import { ipvsRuleset } from '#pkg/proxy/ipvs-rules.ts';
import { ipvsSets } from '#pkg/proxy/ipvs-sets.ts';
import { snapshot } from '#pkg/proxy/testdata/records.ts';
import { sixServices } from '#pkg/proxy/testdata/six-services.ts';
import { describeStep, planCleanup, type Found } from './leftovers.ts';
import { FakeIptables } from './scratch/fake-iptables.ts';

const nothing: Found = {
  iptables: [],
  nftTables: [],
  virtualServers: [],
  hasDummyDevice: false,
  ipsets: [],
  routesLocalnet: false,
};

const filter = (chains: readonly string[]): Found => ({
  ...nothing,
  iptables: [
    {
      family: 'ip',
      backend: 'nf_tables',
      save: `*filter\n:INPUT ACCEPT [0:0]\n${chains.map((c) => `:${c} - [0:0]`).join('\n')}\nCOMMIT\n`,
    },
  ],
});

function plan(found: Partial<Found>, keep?: 'iptables' | 'ipvs' | 'nftables'): string[] {
  const excludeCIDRs = [parsePrefix('192.0.2.0/24'), parsePrefix('fd00:bad::/32')];
  return planCleanup({ ...nothing, ...found }, { keep, excludeCIDRs }).map(describeStep);
}

function chains(found: Found, keep?: 'iptables' | 'ipvs' | 'nftables'): string[] {
  return planCleanup(found, { keep, excludeCIDRs: [] }).flatMap((step) =>
    step.kind === 'iptables' ? step.steps.map(({ chain }) => chain) : [],
  );
}

const tables = [
  { family: 'ip', name: 'kube-proxy' },
  { family: 'ip6', name: 'kube-proxy' },
  { family: 'ip', name: 'podwire-proxy' },
  { family: 'inet', name: 'podwire-masquerade' },
  { family: 'bridge', name: 'kube-proxy' },
  { family: 'ip', name: 'nat' },
];

describe('planCleanup()', () => {
  it('takes nftables tables of proxies, but not the one in use', () => {
    const all = ['ip kube-proxy', 'ip6 kube-proxy', 'ip podwire-proxy'];
    const named = (names: readonly string[]): string[] => names.map((n) => `nftables table ${n}`);
    expect(plan({ nftTables: tables })).toEqual(named(all));
    expect(plan({ nftTables: tables }, 'iptables')).toEqual(named(all));
    expect(plan({ nftTables: tables }, 'nftables')).toEqual(named(all.slice(0, 2)));
  });

  const ipvs = {
    hasDummyDevice: true,
    virtualServers: [
      '-t 10.96.0.1:443',
      '-u [fd00::1]:53',
      '-t 192.0.2.1:80',
      '-t [fd00:bad::1]:80',
    ],
    ipsets: [
      'KUBE-CLUSTER-IP',
      'KUBE-6-LOAD-BALANCER-SOURCE-CID',
      'KUBE-CLUSTER-IP-NEW',
      'KUBE-MINE',
      'KUBE-MINE-NEW',
      'other',
    ],
  };

  it('takes what mode ipvs leaves, its sets of IPv6 too, but not excluded virtual servers', () => {
    expect(plan(ipvs)).toEqual([
      'IPVS virtual server -t 10.96.0.1:443',
      'IPVS virtual server -u [fd00::1]:53',
      'device kube-ipvs0',
      'ipset KUBE-CLUSTER-IP',
      'ipset KUBE-6-LOAD-BALANCER-SOURCE-CID',
      'ipset KUBE-CLUSTER-IP-NEW',
    ]);
    expect(plan(ipvs, 'ipvs')).toEqual([]);
    const made = families.flatMap((family) => ipvsSets(family).map(({ name }) => name));
    expect(plan({ ...nothing, ipsets: made })).toEqual(made.map((name) => `ipset ${name}`));
  });

  it('leaves virtual servers alone where no proxy was', () => {
    expect(plan({ ...ipvs, hasDummyDevice: false, ipsets: [] })).toEqual([]);
  });

  it.each<[string, readonly string[], readonly string[], ('iptables' | 'ipvs' | 'nftables')?]>([
    [
      'all of both modes, not those of others',
      ['KUBE-SERVICES', 'KUBE-IPVS-FILTER', 'KUBE-ROUTER-INPUT', 'KUBE-NWPLCY-X', 'CNI-FORWARD'],
      ['KUBE-SERVICES', 'KUBE-IPVS-FILTER'],
    ],
    [
      'those of single Services, old and new',
      [
        'KUBE-SVC-NPX46M4PTMTKRN6Y',
        'KUBE-XLB-NPX46M4PTMTKRN6Y',
        'KUBE-SVT-10.96.0.0/12',
        'KUBE-SVC-x',
      ],
      ['KUBE-SVC-NPX46M4PTMTKRN6Y', 'KUBE-XLB-NPX46M4PTMTKRN6Y', 'KUBE-SVT-10.96.0.0/12'],
    ],
    ['the guard of loopback', ['KUBE-FIREWALL'], ['KUBE-FIREWALL']],
    ['but not where the kubelet keeps it', ['KUBE-FIREWALL', 'KUBE-KUBELET-CANARY'], []],
    ['nor its hint', ['KUBE-IPTABLES-HINT', 'KUBE-FIREWALL'], []],
    [
      'only those of ipvs while iptables is in use',
      ['KUBE-SERVICES', 'KUBE-IPVS-FILTER', 'KUBE-IPVS-OUT-FILTER', 'KUBE-NODE-PORT'],
      ['KUBE-IPVS-FILTER', 'KUBE-IPVS-OUT-FILTER', 'KUBE-NODE-PORT'],
      'iptables',
    ],
    [
      'only those of iptables while ipvs is in use',
      ['KUBE-SERVICES', 'KUBE-IPVS-FILTER', 'KUBE-EXTERNAL-SERVICES', 'KUBE-FORWARD'],
      ['KUBE-SERVICES', 'KUBE-EXTERNAL-SERVICES'],
      'ipvs',
    ],
    [
      'nor what the kubelet keeps, while ipvs is in use',
      ['KUBE-SERVICES', 'KUBE-FIREWALL', 'KUBE-KUBELET-CANARY'],
      ['KUBE-SERVICES'],
      'ipvs',
    ],
    [
      'all while nftables is in use',
      ['KUBE-SERVICES', 'KUBE-IPVS-FILTER'],
      ['KUBE-SERVICES', 'KUBE-IPVS-FILTER'],
      'nftables',
    ],
  ])('takes chains: %s', (_, present, expected, keep) => {
    expect(chains(filter(present), keep)).toEqual(expected);
  });

  it.each([undefined, 'ipvs', 'nftables'] as const)(
    'leaves the guard of 127.0.0.0/8 while the node routes there (%s)',
    (keep) => {
      const found = { ...filter(['KUBE-SERVICES', 'KUBE-FIREWALL']), routesLocalnet: true };
      expect(chains(found, keep)).toEqual(['KUBE-SERVICES']);
    },
  );
});

describe.each(families)('a switch between modes of iptables rules, %s', (family) => {
  const iptables = iptablesRuleset(snapshot(sixServices, family).ports, {
    family,
    layout: 'compatible',
    masqueradeBit: 14,
    masqueradeAll: false,
    localDetector: { kind: 'none' },
    localhostNodePorts: true,
    nodePortAddresses: 'all',
    nodeAddress: undefined,
    randomFully: true,
    conntrackLiberal: false,
  });
  const ipvs = ipvsRuleset({
    family,
    scheduler: 'rr',
    schedulerFlags: '',
    masqueradeBit: 14,
    masqueradeAll: false,
    localDetector: { kind: 'none' },
    nodePortAddresses: [],
    hostAddresses: [],
    foreignAddresses: [],
    nodeAddress: undefined,
    randomFully: true,
  });
  const write = async (kernel: FakeIptables, want: Ruleset): Promise<void> => {
    await kernel.apply(planIptables(want, await kernel.observe()));
  };

  it.each([
    ['iptables', 'ipvs', iptables, ipvs],
    ['ipvs', 'iptables', ipvs, iptables],
  ] as const)('from %s to %s leaves what the new one has alone', async (_, to, before, after) => {
    const fresh = new FakeIptables();
    await write(fresh, after);
    const kernel = new FakeIptables();
    await write(kernel, before);
    await write(kernel, after);
    expect(kernel.saved()).not.toEqual(fresh.saved());
    const save = kernel.saved().join('\n');
    const found = { ...nothing, iptables: [{ family, backend: 'nf_tables', save } as const] };
    for (const step of planCleanup(found, { keep: to, excludeCIDRs: [] })) {
      if (step.kind === 'iptables') await kernel.apply(step.steps);
    }
    expect(kernel.saved()).toEqual(fresh.saved());
  });
});
