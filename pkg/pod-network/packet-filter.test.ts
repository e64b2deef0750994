import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { parseSave } from '#pkg/iptables/parse.ts';
import { renderRestore, renderSave } from '#pkg/iptables/render.ts';
import type { ObservedRuleset, Ruleset } from '#pkg/iptables/ruleset.ts';
import {
  isPodChain,
  packetFilterRulesets,
  planPacketFilter,
  type PacketFilterFacts,
} from './packet-filter.ts';

const ownPodCIDRs = ['10.244.1.0/24', 'fd00:10:244:1::/64'].map(parsePrefix);
const facts: PacketFilterFacts = {
  ownPodCIDRs,
  forward: true,
  masquerade: {
    ownPodCIDRs,
    podCIDRs: ['10.244.2.0/24', '10.244.1.0/24'].map(parsePrefix),
    nodeAddresses: [parseAddress('192.168.1.1')],
    nonMasqueradeCIDRs: ['10.244.0.0/16', 'fd00::/8'].map(parsePrefix),
  },
};

function ruleset(family: 'ip' | 'ip6', changes: Partial<PacketFilterFacts> = {}): Ruleset {
  const found = packetFilterRulesets({ ...facts, ...changes }).find((r) => r.family === family);
  if (found === undefined) throw new Error('no such family');
  return found;
}

function observed(save: string): ObservedRuleset {
  const tables = (['filter', 'nat'] as const).map((name) => parseSave(save, name, isPodChain));
  return { family: 'ip', tables };
}

/** What has to be written when iptables-save says this. */
function input(want: Ruleset, save: string): string {
  return renderRestore(planPacketFilter(want, observed(save)));
}

/** A host where Docker dropped what is forwarded, and nothing of ours. */
const docker = `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
`;

const filterInput = `*filter
:PODWIRE-FORWARD - [0:0]
-A PODWIRE-FORWARD -s 10.244.1.0/24 -m comment --comment "podwire: pods may send and be sent to" -j ACCEPT
-A PODWIRE-FORWARD -d 10.244.1.0/24 -m comment --comment "podwire: pods may send and be sent to" -j ACCEPT
-A FORWARD -m comment --comment "podwire: pod traffic" -j PODWIRE-FORWARD
COMMIT
`;

const natInput = `*nat
:PODWIRE-MASQUERADE - [0:0]
-A PODWIRE-MASQUERADE -m mark --mark 0x4000/0x4000 -m comment --comment "podwire: kube-proxy masquerades these itself" -j RETURN
-A PODWIRE-MASQUERADE -d 10.244.0.0/16 -j RETURN
-A PODWIRE-MASQUERADE -d 192.168.1.1/32 -j RETURN
-A PODWIRE-MASQUERADE -d 224.0.0.0/4 -j RETURN
-A PODWIRE-MASQUERADE -d 255.255.255.255/32 -j RETURN
-A PODWIRE-MASQUERADE -m comment --comment "podwire: pods leave the cluster as this node" -j MASQUERADE --random-fully
-I POSTROUTING -s 10.244.1.0/24 -m comment --comment "podwire: what pods send" -j PODWIRE-MASQUERADE
COMMIT
`;

describe('planPacketFilter()', () => {
  test('lets pods pass at the end of FORWARD, and masquerades where that is asked for', () => {
    expect(input(ruleset('ip', { masquerade: undefined }), docker)).toBe(filterInput);
    expect(input(ruleset('ip', { forward: false }), docker)).toBe(natInput);
    expect(input(ruleset('ip'), docker)).toBe(filterInput + natInput);
  });

  test('without random ports when they are not wished for', () => {
    const { masquerade } = facts;
    if (masquerade === undefined) throw new Error('none');
    const want = ruleset('ip', { masquerade: { ...masquerade, randomFully: false } });
    expect(input(want, docker)).toContain('-j MASQUERADE\n');
  });

  /** As the kernel says it once it is written. */
  function written(want: Ruleset): string {
    const jumps = want.tables.map(({ tails, ...table }) => ({
      ...table,
      jumps: new Map([...table.jumps, ...(tails ?? [])]),
    }));
    return renderSave({ ...want, tables: jumps }).replaceAll(
      /^\*(\w+)$/gm,
      '*$1\n:FORWARD DROP [0:0]\n:POSTROUTING ACCEPT [0:0]',
    );
  }

  test.each(['ip', 'ip6'] as const)('has nothing to do when all is there (%s)', (family) => {
    expect(input(ruleset(family), written(ruleset(family)))).toBe('');
  });

  test('IPv6 has its own prefixes', () => {
    const text = written(ruleset('ip6'));
    expect(text).toContain('-A PODWIRE-FORWARD -s fd00:10:244:1::/64 ');
    expect(text).toContain('-A PODWIRE-MASQUERADE -d fd00::/8 -j RETURN');
    expect(text).not.toContain('10.244');
  });

  test('132. a deleted rule is the whole chain anew; a deleted jump comes back at its place', () => {
    const all = written(ruleset('ip'));
    const noRule = all.replace(/^-A PODWIRE-FORWARD -d .*\n/m, '');
    expect(input(ruleset('ip'), noRule)).toBe(filterInput.replace(/^-A FORWARD.*\n/m, ''));
    const noJump = all.replace(/^-A FORWARD .*\n/m, '');
    expect(input(ruleset('ip'), noJump)).toBe(
      '*filter\n-A FORWARD -m comment --comment "podwire: pod traffic" -j PODWIRE-FORWARD\nCOMMIT\n',
    );
  });

  test('132. another range replaces the jumps of the former one', () => {
    const want = ruleset('ip', { ownPodCIDRs: [parsePrefix('10.244.9.0/24')] });
    const text = input(want, written(ruleset('ip')));
    expect(text).toContain('-D POSTROUTING -s 10.244.1.0/24 ');
    expect(text).toContain('-I POSTROUTING -s 10.244.9.0/24 ');
    expect(text).not.toContain('-A FORWARD');
  });

  test('what nobody wants any more goes, jumps first', () => {
    const want = ruleset('ip', { forward: false, masquerade: undefined });
    const text = input(want, written(ruleset('ip')));
    expect(text).toContain('-D FORWARD -m comment --comment "podwire: pod traffic" ');
    expect(text).toContain('-X PODWIRE-FORWARD\n');
    expect(text).toContain('-X PODWIRE-MASQUERADE\n');
    expect(text).not.toContain('DOCKER');
  });
});
