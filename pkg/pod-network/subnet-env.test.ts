import { expect, test } from 'vitest';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { parseSubnetEnv, subnetEnvText } from './subnet-env.ts';

const dual = {
  clusterCIDRs: ['10.3.0.0/16', 'fd00:3::/48'].map(parsePrefix),
  podCIDRs: ['fd00:3:0:1::/64', '10.3.1.0/24'].map(parsePrefix),
  mtuBytes: 1430,
  masquerade: true,
};

test("133. as flannel writes it, with the bridge's addresses", () => {
  expect(subnetEnvText(dual)).toBe(
    [
      'FLANNEL_NETWORK=10.3.0.0/16',
      'FLANNEL_SUBNET=10.3.1.1/24',
      'FLANNEL_IPV6_NETWORK=fd00:3::/48',
      'FLANNEL_IPV6_SUBNET=fd00:3:0:1::1/64',
      'FLANNEL_MTU=1430',
      'FLANNEL_IPMASQ=true',
      '',
    ].join('\n'),
  );
});

test('one family has no line of the other', () => {
  const facts = { ...dual, podCIDRs: [parsePrefix('10.3.1.0/24')], masquerade: false };
  const text = subnetEnvText({ ...facts, clusterCIDRs: [parsePrefix('10.3.0.0/16')] });
  expect(text).not.toContain('IPV6');
  expect(text).toContain('FLANNEL_IPMASQ=false\n');
});

test('127. what was written is read again, and quoted text too', () => {
  expect(parseSubnetEnv(subnetEnvText(dual))).toEqual({
    ip: parsePrefix('10.3.1.0/24'),
    ip6: parsePrefix('fd00:3:0:1::/64'),
  });
  expect(parseSubnetEnv('FLANNEL_SUBNET="10.3.7.1/24"\n')).toEqual({
    ip: parsePrefix('10.3.7.0/24'),
    ip6: undefined,
  });
});

test.each(['', 'FLANNEL_SUBNET=\n', 'FLANNEL_SUBNET=x/24\n', 'OTHER=10.3.7.1/24\n'])(
  '%j has none',
  (text) => {
    expect(parseSubnetEnv(text)).toBeUndefined();
  },
);
