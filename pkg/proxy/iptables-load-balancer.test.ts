/** Packets to load balancer addresses, by the rules the proxy writes. */
import { describe, expect, it } from 'vitest';
import type { ServiceRecord } from '#pkg/kube/types.ts';
import type { Ruleset } from '#pkg/iptables/ruleset.ts';
import type { IptablesOptions } from './iptables-options.ts';
import { places, ruleset, service, slice, trace } from './testdata/records.ts';

const { pod, node, outside } = places.ip;
const blocked = '203.0.113.130';
const balancers = ['1.2.3.4', '1.2.3.5'] as const;
const masqueraded = '10.180.0.1:80 masqueraded';

function balanced(
  fields: Partial<ServiceRecord> = {},
  options: Partial<IptablesOptions> = {},
): Ruleset {
  const balancer = service('ns1/svc1', {
    type: 'LoadBalancer',
    clusterIPs: ['172.30.0.41', 'fd00:96::41'],
    loadBalancerIngress: balancers.map((ip) => ({ ip, ipMode: 'VIP' })),
    loadBalancerSourceRanges: [' 203.0.113.0/25', '192.168.0.0/24', 'fd00::/8'],
    ports: [{ name: 'p80', protocol: 'TCP', port: 80, nodePort: 3001 }],
    ...fields,
  });
  const slices = [slice('ns1/svc1', ['10.180.0.1']), slice('ns1/svc1', ['fd00:10::1'])];
  return ruleset({ services: [balancer], slices }, options);
}

describe('source ranges', () => {
  const rules = balanced();
  const clusterIP = '172.30.0.41:80';
  const nodePort = `${node}:3001`;

  it.each([
    ['S21. a pod reaches the cluster address', pod, clusterIP, '10.180.0.1:80'],
    ['S22. an admitted client reaches the node port', outside, nodePort, masqueraded],
    ['S23. so does one that is not admitted', blocked, nodePort, masqueraded],
    ['S23. and a pod', pod, nodePort, masqueraded],
  ])('%s', (_, source, to, expected) => {
    expect(trace(rules, { source, to })).toBe(expected);
  });

  describe.each(balancers)('at %s', (ip) => {
    const to = `${ip}:80`;
    it.each([
      ['S24. S4. an admitted client, its range written after a blank', outside, masqueraded],
      ['S25. a client that is not admitted', blocked, 'drop'],
      ['S26. a pod, when no range holds pods', pod, 'drop'],
      ['S27. the node, when its own address is in a range', node, masqueraded],
      ['S28. who has the load balancer address itself', ip, masqueraded],
    ])('%s', (_, source, expected) => {
      expect(trace(rules, { source, to })).toBe(expected);
    });

    it('S28. the load balancer address is not admitted when the node is not', () => {
      const without = balanced({ loadBalancerSourceRanges: ['203.0.113.0/25'] });
      expect(trace(without, { source: ip, to })).toBe('drop');
      expect(trace(without, { source: node, to })).toBe('drop');
    });

    it.each([
      ['S29. no range', []],
      ['S30. a range of everything among others', ['203.0.113.0/25', '0.0.0.0/0']],
      ['S31. ranges of the other family only', ['fd00::/8']],
    ])('%s restricts nobody', (_, loadBalancerSourceRanges) => {
      const open = balanced({ loadBalancerSourceRanges });
      expect(trace(open, { source: blocked, to })).toBe(masqueraded);
      expect(trace(open, { source: pod, to })).toBe(masqueraded);
    });
  });

  it('S25. hold in IPv6 as in IPv4', () => {
    const ip = '2001:db8:1::4';
    const fields = {
      loadBalancerIngress: [{ ip, ipMode: 'VIP' }],
      loadBalancerSourceRanges: ['2001:db8::/64', '203.0.113.0/25'],
    } as const;
    const v6 = balanced(fields, { family: 'ip6' });
    const to = `[${ip}]:80`;
    expect(trace(v6, { source: '2001:db8::2', to })).toBe('[fd00:10::1]:80 masqueraded');
    expect(trace(v6, { source: '2001:db8:0:1::2', to })).toBe('drop');
    expect(trace(v6, { source: 'fd00:10::9', to })).toBe('drop');
  });

  it('guard Local load balancers too, and let through keeps its address', () => {
    const local = balanced({ externalTrafficPolicy: 'Local' });
    expect(trace(local, { source: blocked, to: '1.2.3.4:80' })).toBe('drop');
    // Its only endpoint is elsewhere.
    expect(trace(local, { source: outside, to: '1.2.3.4:80' })).toBe('drop');
    expect(trace(local, { source: node, to: '1.2.3.4:80' })).toBe(masqueraded);
  });
});

describe('the status of a load balancer', () => {
  const ingress = (entries: ServiceRecord['loadBalancerIngress']): Ruleset =>
    balanced({ loadBalancerIngress: entries, loadBalancerSourceRanges: [] });

  it('S32. an address of ipMode VIP is served', () => {
    const rules = ingress([{ ip: '1.2.3.4', ipMode: 'VIP' }]);
    expect(trace(rules, { source: outside, to: '1.2.3.4:80' })).toBe(masqueraded);
  });

  it('S33. one of ipMode Proxy is left alone, beside one that is served', () => {
    const rules = ingress([
      { ip: '1.2.3.4', ipMode: 'Proxy' },
      { ip: '1.2.3.5', ipMode: 'VIP' },
    ]);
    for (const source of [pod, node, outside]) {
      expect(trace(rules, { source, to: '1.2.3.4:80' })).toBe('unmatched');
    }
    expect(trace(rules, { source: outside, to: '1.2.3.5:80' })).toBe(masqueraded);
  });

  it('S36. an address that leaves it is served no more, the node port is', () => {
    const rules = ingress([]);
    expect(trace(rules, { source: outside, to: '1.2.3.4:80' })).toBe('unmatched');
    expect(trace(rules, { source: outside, to: `${node}:3001` })).toBe(masqueraded);
  });
});
