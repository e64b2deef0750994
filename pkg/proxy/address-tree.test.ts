import { describe, expect, it } from 'vitest';
import type { Family } from '#pkg/ip/address.ts';
import { isServiceChain, type Rules } from '#pkg/iptables/ruleset.ts';
import { AddressTree, type AddressRule } from './address-tree.ts';
import { randomNumbers } from './testdata/random-cluster.ts';

const root = 'KUBE-SERVICES';

function rule(n: number, family: Family = 'ip'): AddressRule {
  const destination =
    family === 'ip'
      ? `172.30.${n >> 8}.${n & 255}`
      : n === 0
        ? 'fd00:96::'
        : `fd00:96::${n.toString(16)}`;
  const length = family === 'ip' ? 32 : 128;
  return { destination, rule: `-d ${destination}/${length} -j KUBE-SVC-${n}` };
}

function fresh(rules: readonly AddressRule[], family: Family = 'ip'): ReadonlyMap<string, Rules> {
  const tree = new AddressTree(family, root);
  tree.update([], rules);
  return tree.chains;
}

const sorted = (chains: ReadonlyMap<string, Rules>): [string, Rules][] =>
  [...chains].toSorted(([a], [b]) => (a < b ? -1 : 1));

describe('an address tree', () => {
  it('of a few rules is one chain', () => {
    const chains = fresh([rule(3), rule(1), rule(200)]);
    expect([...chains]).toEqual([[root, [rule(1).rule, rule(3).rule, rule(200).rule]]]);
    expect([...fresh([])]).toEqual([[root, []]]);
  });

  it('divides more of them by their addresses', () => {
    const chains = fresh([1, 2, 3, 4, 5, 17, 18, 19, 65, 130].map((n) => rule(n)));
    expect(sorted(chains)).toEqual([
      [
        root,
        [rule(130).rule, '-d 172.30.0.0/26 -j KUBE-SVT-172.30.0.0/26'].toSpliced(
          0,
          0,
          rule(65).rule,
        ),
      ],
      ['KUBE-SVT-172.30.0.0/26', [1, 2, 3, 4, 5, 17, 18, 19].map((n) => rule(n).rule)],
    ]);
  });

  it('does not divide what has one address', () => {
    const ports = Array.from({ length: 30 }, (_, i) => ({
      destination: '172.30.0.1',
      rule: `-d 172.30.0.1/32 -p tcp -m tcp --dport ${i + 10} -j KUBE-SVC-${i}`,
    }));
    expect(fresh(ports).size).toBe(1);
    expect(fresh([...ports, rule(2)]).get(root)).toHaveLength(2);
  });

  it.each(['ip', 'ip6'] as const)(
    'arrives at the same by changes as at once, family %s',
    (family) => {
      const random = randomNumbers(7);
      const tree = new AddressTree(family, root);
      const kernel = new Map<string, Rules>();
      const have = new Map<number, AddressRule>();
      for (let step = 0; step < 400; step++) {
        const removed: AddressRule[] = [];
        const added: AddressRule[] = [];
        // Up to step 200 it grows, then it shrinks; now and then by a lot.
        const count = step % 50 === 49 ? 90 : 1 + Math.floor(random() * 3);
        const numbers = Array.from({ length: count }, () =>
          Math.floor(random() * (random() < 0.5 ? 300 : 65_536)),
        );
        for (const n of new Set(numbers)) {
          const present = have.get(n);
          if (present !== undefined && random() < (step < 200 ? 0.2 : 0.9)) {
            removed.push(present);
            have.delete(n);
          } else if (present === undefined && (step < 200 || random() < 0.3)) {
            added.push(rule(n, family));
            have.set(n, rule(n, family));
          }
        }
        const { gone, put } = tree.update(removed, added);
        for (const [chain, rules] of put) kernel.set(chain, rules);
        for (const chain of gone) kernel.delete(chain);
        if (step % 10 !== 0 && step < 395) continue;
        expect(sorted(kernel)).toEqual(sorted(fresh([...have.values()], family)));
        const jumps = [...kernel.values()].flat().filter((r) => r.includes('KUBE-SVT-'));
        expect(tree.jumpCount).toBe(jumps.length);
      }
      const names = [...kernel.keys()].filter((name) => name !== root);
      expect(names.length).toBeGreaterThan(20);
      expect(names.filter((name) => !isServiceChain(name) || name.length > 28)).toEqual([]);
    },
  );

  it('rewrites few chains for one address more, of 20,000', () => {
    const random = randomNumbers(3);
    const numbers = new Set<number>();
    while (numbers.size < 20_500) numbers.add(Math.floor(random() * 65_536));
    const [all, more] = [[...numbers].slice(500), [...numbers].slice(0, 500)];
    const tree = new AddressTree('ip', root);
    tree.update(
      [],
      all.map((n) => rule(n)),
    );
    const written = more.map((n) => {
      const { put } = tree.update([], [rule(n)]);
      return { chains: put.size, rules: [...put.values()].flat().length };
    });
    const mean = (of: (w: (typeof written)[number]) => number): number =>
      written.reduce((sum, w) => sum + of(w), 0) / written.length;
    expect(mean((w) => w.chains)).toBeLessThan(1.8);
    expect(mean((w) => w.rules)).toBeLessThan(10);
    expect(Math.max(...written.map((w) => w.chains))).toBeLessThanOrEqual(6);
  });

  it('goes no deeper than nf_tables follows, whatever addresses somebody asks for', () => {
    const bits = Array.from({ length: 128 }, (_, i) => 1n << BigInt(i));
    const nested = [0n, ...bits].flatMap((value) => {
      const hex = value.toString(16).padStart(32, '0').match(/.{4}/g) ?? [];
      const destination = hex.join(':').replaceAll(/\b0+(?=[0-9a-f])/g, '');
      return [{ destination, rule: `-d ${destination}/128 -j KUBE-SVC-X` }];
    });
    const dense = Array.from({ length: 9 }, (_, i) => rule(i, 'ip6'));
    const chains = fresh([...nested, ...dense], 'ip6');
    const depthOf = (chain: string): number => {
      const below = (chains.get(chain) ?? []).flatMap(
        (r) => /-j (KUBE-SVT-\S+)/.exec(r)?.[1] ?? [],
      );
      return 1 + Math.max(0, ...below.map(depthOf));
    };
    expect(depthOf(root)).toBe(9);
    const rules = [...chains.values()].flat().filter((r) => r.includes('KUBE-SVC-'));
    expect(rules).toHaveLength(nested.length + dense.length);
  });
});
