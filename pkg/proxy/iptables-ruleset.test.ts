import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { renderSave } from '#pkg/iptables/render.ts';
import { oneIn } from '#pkg/iptables/rule.ts';
import type { Ruleset } from '#pkg/iptables/ruleset.ts';
import { p80, ruleset, service, slice, type Cluster } from './testdata/records.ts';
import { sixServices } from './testdata/six-services.ts';

it('S2. S3. one Service of each kind gives the text kube-proxy leaves in iptables-save', () => {
  const golden = readFileSync(join(import.meta.dirname, 'testdata/six-services.txt'), 'utf8');
  expect(renderSave(ruleset(sixServices, { randomFully: true }))).toBe(golden);
});

const rulesOf = (table: 'filter' | 'nat', rules: Ruleset, chain: string): readonly string[] =>
  rules.tables.find((t) => t.name === table)?.chains.get(chain) ?? [];
const natRules = (rules: Ruleset, chain: string): readonly string[] => rulesOf('nat', rules, chain);

const one = {
  services: [service('ns1/svc1', { clusterIPs: ['172.30.0.41'] })],
  slices: [slice('ns1/svc1', ['10.180.0.1'])],
};

describe('options', () => {
  it('another masquerade bit is another mark everywhere', () => {
    const text = renderSave(ruleset(one, { masqueradeBit: 31 }));
    expect(text).not.toContain('0x4000');
    expect(text).toContain('-A KUBE-MARK-MASQ -j MARK --set-xmark 0x80000000/0x80000000');
  });

  it('the node port rule is the last of KUBE-SERVICES, whatever the Services are called', () => {
    const rules = natRules(ruleset(sixServices), 'KUBE-SERVICES');
    expect(rules.findIndex((rule) => rule.endsWith('-j KUBE-NODEPORTS'))).toBe(rules.length - 1);
  });
});

it('the order in which Services arrive does not show', () => {
  const reversed = {
    services: sixServices.services.toReversed(),
    slices: sixServices.slices?.toReversed() ?? [],
  };
  expect(renderSave(ruleset(reversed))).toBe(renderSave(ruleset(sixServices)));
});

it('S48. S3. a health check node port is open for Local load balancers, as long as they are there', () => {
  const balanced = service('ns1/svc1', {
    type: 'LoadBalancer',
    clusterIPs: ['172.30.0.41'],
    externalTrafficPolicy: 'Local',
    healthCheckNodePort: 30000,
  });
  const acceptRules = (fields: Partial<typeof balanced>, there = true): readonly string[] => {
    const services = there ? [{ ...balanced, ...fields }] : [];
    return rulesOf('filter', ruleset({ services }), 'KUBE-NODEPORTS');
  };
  expect(acceptRules({})).toEqual([
    '-p tcp -m comment --comment "ns1/svc1:p80 health check node port" -m tcp --dport 30000 -j ACCEPT',
  ]);
  expect(acceptRules({}, false)).toEqual([]);
  expect(acceptRules({ externalTrafficPolicy: 'Cluster' })).toEqual([]);
  expect(acceptRules({ type: 'NodePort' })).toEqual([]);
});

describe('chances', () => {
  it.each([
    [1, [undefined]],
    [2, ['0.50000000000', undefined]],
    [3, ['0.33333333349', '0.50000000000', undefined]],
  ])('S5. %i endpoints get equal ones, in the order of their addresses', (count, expected) => {
    const addresses = Array.from({ length: count }, (_, i) => `10.180.0.${count - i}`);
    const rules = ruleset({ ...one, slices: [slice('ns1/svc1', addresses)] });
    const chances = natRules(rules, 'KUBE-SVC-XPGD46QRK7WJZT7O').map((rule) => [
      /-> (\S+)"/.exec(rule)?.[1],
      /--probability (\S+)/.exec(rule)?.[1],
    ]);
    expect(chances.slice(1)).toEqual(expected.map((chance, i) => [`10.180.0.${i + 1}:80`, chance]));
  });

  it('S6. stay right and never grow, up to 100,000 endpoints and beyond', () => {
    const chanceOf = (n: number): number => Number(oneIn(n).split(' ').at(-1));
    // kube-proxy's ten decimals, in the 31 bits that the kernel keeps.
    expect(oneIn(100_001)).toBe(
      `-m statistic --mode random --probability ${(Math.round(0.0000099999 * 2 ** 31) / 2 ** 31).toFixed(11)}`,
    );
    const chances = Array.from({ length: 100_000 }, (_, i) => chanceOf(i + 2));
    const wrong = chances.findIndex(
      (chance, i) => chance > (chances[i - 1] ?? 1) || Math.abs(chance * (i + 2) - 1) > 1e-4,
    );
    expect(wrong, `one in ${wrong + 2}`).toBe(-1);
  });
});

describe('S114. how many rules', () => {
  const many = (services: number, endpoints: number, fields: object = {}): Cluster => ({
    services: Array.from({ length: services }, (_, i) =>
      service(`ns${i}/svc`, { clusterIPs: [`172.30.1.${i}`], ...fields }),
    ),
    slices: Array.from({ length: services }, (_, i) =>
      slice(
        `ns${i}/svc`,
        Array.from({ length: endpoints }, (_n, e) => `10.1.${i}.${e + 1}`),
      ),
    ),
  });
  const balanced = {
    type: 'LoadBalancer',
    loadBalancerIngress: [{ ip: '1.2.3.4', ipMode: 'VIP' }],
    loadBalancerSourceRanges: ['192.168.0.0/24', '203.0.113.0/25'],
    ports: p80(3001),
  };
  it.each([
    ['nothing', many(0, 0), 4, 5],
    ['one Service with one endpoint', many(1, 1), 4, 10],
    ['ten with ten', many(10, 10), 4, 325],
    ['ten load balancers with ten', many(10, 10, balanced), 14, 405],
    ['ten without', many(10, 0), 14, 5],
  ])('%s', (_, cluster, filter, nat) => {
    const counts = ruleset(cluster).tables.map(({ name, chains }) => [
      name,
      [...chains.values()].flat().length,
    ]);
    expect(counts).toEqual([
      ['filter', filter],
      ['nat', nat],
      ['mangle', 0],
    ]);
  });
});

it.each([
  [true, 'MASQUERADE --random-fully'],
  [false, 'MASQUERADE'],
])('S115. with --random-fully known: %s', (randomFully, target) => {
  const rules = natRules(ruleset(one, { randomFully }), 'KUBE-POSTROUTING');
  expect(rules.at(-1)?.endsWith(`-j ${target}`)).toBe(true);
});
