import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { renderSave } from '#pkg/iptables/render.ts';
import { ruleset, service, slice } from './testdata/records.ts';
import { sixServices } from './testdata/six-services.ts';

it('one Service of each kind gives the text kube-proxy leaves in iptables-save', () => {
  const golden = readFileSync(join(import.meta.dirname, 'testdata/six-services.txt'), 'utf8');
  expect(renderSave(ruleset(sixServices, { randomFully: true }))).toBe(golden);
});

const natRules = (rules: ReturnType<typeof ruleset>, chain: string): readonly string[] =>
  rules.tables.find((t) => t.name === 'nat')?.chains.get(chain) ?? [];

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

  it.each([
    [{ kind: 'bridge-interface', name: 'cni0' }, '-d 172.30.0.41/32 ! -i cni0 -p tcp'],
    [{ kind: 'interface-name-prefix', prefix: 'veth' }, '-d 172.30.0.41/32 ! -i veth+ -p tcp'],
  ] as const)('pods are told by %j', (localDetector, text) => {
    const rules = natRules(ruleset(one, { localDetector }), 'KUBE-SVC-XPGD46QRK7WJZT7O');
    expect(rules[0]?.startsWith(text)).toBe(true);
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

it('three endpoints get equal chances', () => {
  const rules = ruleset({
    ...one,
    slices: [slice('ns1/svc1', ['10.180.0.3', '10.180.0.1', '10.180.0.2'])],
  });
  const chances = natRules(rules, 'KUBE-SVC-XPGD46QRK7WJZT7O').map((rule) => [
    /-> (\S+)"/.exec(rule)?.[1],
    /--probability (\S+)/.exec(rule)?.[1],
  ]);
  expect(chances.slice(1)).toEqual([
    ['10.180.0.1:80', '0.33333333349'],
    ['10.180.0.2:80', '0.50000000000'],
    ['10.180.0.3:80', undefined],
  ]);
});
