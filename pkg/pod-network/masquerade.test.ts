import { describe, expect, test } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { planNftables } from '#pkg/nftables/plan.ts';
import { renderSteps, renderTable } from '#pkg/nftables/render.ts';
import { observedOf } from '#pkg/nftables/ruleset.ts';
import { masqueradeRuleset, type MasqueradeFacts } from './masquerade.ts';

const facts: MasqueradeFacts = {
  ownPodCIDRs: ['10.244.1.0/24', 'fd00:10:244:1::/64'].map(parsePrefix),
  podCIDRs: ['10.244.2.0/24', '10.244.1.0/24', 'fd00:10:244:1::/64'].map(parsePrefix),
  nodeAddresses: ['192.168.1.1', '192.168.2.2', 'fd00:1::1'].map(parseAddress),
  nonMasqueradeCIDRs: [parsePrefix('172.16.0.0/12')],
};

function text(changes: Partial<MasqueradeFacts> = {}): string {
  return masqueradeRuleset({ ...facts, ...changes })
    .tables.map(renderTable)
    .join('');
}

describe('masqueradeRuleset()', () => {
  test('141. dual stack', async () => {
    await expect(text()).toMatchFileSnapshot('testdata/masquerade-dual.nft');
  });

  test('a family without pods on this node has no set and no rule', async () => {
    const ownPodCIDRs = [parsePrefix('fd00:10:244:1::/64')];
    await expect(text({ ownPodCIDRs })).toMatchFileSnapshot('testdata/masquerade-ip6.nft');
  });

  test('141. ranges in ranges are left out: an interval set refuses overlaps', () => {
    const nonMasqueradeCIDRs = ['10.0.0.0/8', '10.244.2.0/24', '192.168.0.0/16'].map(parsePrefix);
    const set = masqueradeRuleset({ ...facts, nonMasqueradeCIDRs }).tables[0]?.sets.find(
      ({ name }) => name === 'nomasq4',
    );
    expect([...(set?.elements ?? [])]).toEqual([
      '10.0.0.0/8',
      '192.168.0.0/16',
      '224.0.0.0/4',
      '255.255.255.255',
    ]);
  });

  test('141. a node that joins is two elements, not a new table', () => {
    const have = masqueradeRuleset(facts).tables.map(observedOf);
    const want = masqueradeRuleset({
      ...facts,
      podCIDRs: [...facts.podCIDRs, parsePrefix('10.244.3.0/24')],
      nodeAddresses: [...facts.nodeAddresses, parseAddress('192.168.1.3')],
    });
    expect(renderSteps(planNftables(want, have))).toBe(
      'add element inet podwire-masquerade nomasq4 {\n\t\t\t10.244.3.0/24,\n\t\t\t192.168.1.3,\n\t\t}\n',
    );
  });

  test('no pods: no table', () => {
    expect(text({ ownPodCIDRs: [] })).toBe('');
  });
});
