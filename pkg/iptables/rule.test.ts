import { describe, expect, it } from 'vitest';
import { comment, formatRule, oneIn, protocolMatch, splitWords } from './rule.ts';
import { targetOf } from './ruleset.ts';

describe('text as iptables-save prints it', () => {
  it('options come in its order, negated ones with a leading !', () => {
    expect(
      formatRule({
        target: 'KUBE-MARK-MASQ',
        matches: [comment('ns1/svc1:p80 cluster IP'), protocolMatch('tcp', 80)],
        protocol: 'tcp',
        inInterface: '! veth+',
        destination: '172.30.0.41/32',
        source: '! 10.0.0.0/8',
      }),
    ).toBe(
      '! -s 10.0.0.0/8 -d 172.30.0.41/32 ! -i veth+ -p tcp -m comment --comment "ns1/svc1:p80 cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ',
    );
  });

  it.each([
    ['plain-name_1', 'plain-name_1'],
    ['ns1/svc1', '"ns1/svc1"'],
    ['a "b" \\', '"a \\"b\\" \\\\"'],
  ])('comment %j is written %s', (text, written) => {
    expect(comment(text)).toBe(`-m comment --comment ${written}`);
    expect(splitWords(comment(text)).at(-1)).toBe(text);
  });

  it.each([
    [2, '0.50000000000'],
    [3, '0.33333333349'],
    [7, '0.14285714272'],
    [100001, '0.00001000008'],
  ])('one in %i is probability %s, the fraction the kernel keeps', (n, text) => {
    expect(oneIn(n)).toBe(`-m statistic --mode random --probability ${text}`);
  });

  it('probabilities never rise with the number of endpoints', () => {
    let last = 1;
    for (let n = 2; n <= 2000; n++) {
      const now = Number(oneIn(n).split(' ').at(-1));
      expect(now).toBeLessThanOrEqual(last);
      last = now;
    }
  });
});

it('targetOf() is not fooled by comments', () => {
  expect(targetOf('-m comment --comment "x -j KUBE-EVIL y" -j KUBE-SERVICES')).toBe(
    'KUBE-SERVICES',
  );
  expect(targetOf('-m comment --comment "only -j counts"')).toBeUndefined();
});
