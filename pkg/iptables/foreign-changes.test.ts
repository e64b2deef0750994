import { describe, expect, it } from 'vitest';
import type { NftablesEvent } from '#pkg/nftables/events.ts';
import { ForeignChanges } from './foreign-changes.ts';

const ours = 'iptables-nft-re';
const rule = (chain: string, fields: object = {}): NftablesEvent => ({
  kind: 'change',
  family: 2,
  table: 'nat',
  chain,
  isDeletion: false,
  ...fields,
});
const end = (program: string): NftablesEvent => ({ kind: 'end', program });
const lost: NftablesEvent = { kind: 'lost' };

/** A kernel that counts transactions, and who listens to it. */
function listen(): {
  readonly changes: ForeignChanges;
  readonly transactions: (count: number) => void;
  readonly hear: (...events: NftablesEvent[]) => void;
} {
  let generation: number | undefined = 2 ** 32 - 2;
  const programs = new Set([ours]);
  const changes = new ForeignChanges({ programs, generation: () => generation });
  return {
    changes,
    transactions: (count) => {
      generation = Number.isNaN(count) ? undefined : ((generation ?? 0) + count) % 2 ** 32;
    },
    hear: (...events) => events.forEach((event) => changes.follow(event)),
  };
}

describe('ForeignChanges', () => {
  it.each([
    ['a rule in a chain of ours', rule('KUBE-SERVICES'), true],
    ['a rule of theirs in a built-in chain', rule('POSTROUTING'), false],
    ['that one deleted', rule('POSTROUTING', { isDeletion: true, ledTo: '' }), false],
    ['a jump of theirs deleted', rule('OUTPUT', { isDeletion: true, ledTo: 'DOCKER' }), false],
    ['a jump of ours deleted', rule('OUTPUT', { isDeletion: true, ledTo: 'KUBE-SERVICES' }), true],
    [
      'a rule deleted by a kernel that does not say which',
      rule('OUTPUT', { isDeletion: true }),
      true,
    ],
    ['a table that goes', { ...rule(''), chain: undefined, isDeletion: true }, true],
    ['a table of theirs', rule('KUBE-SERVICES', { table: 'podwire' }), false],
  ] as const)('%s: %o is told: %s', (_, event, isTold) => {
    const { changes, hear } = listen();
    hear(event, end('nft'));
    expect(changes.take()).toEqual(isTold ? ['ip'] : []);
    expect(changes.take()).toEqual([]);
  });

  it('knows a write of ours by the program, while we write', () => {
    const { changes, hear } = listen();
    changes.begin();
    hear(rule('KUBE-SERVICES'), end(ours), rule('KUBE-SERVICES', { family: 10 }), end('nft'));
    changes.end(1);
    expect(changes.take()).toEqual(['ip6']);
    hear(rule('KUBE-SERVICES'), end(ours));
    expect(changes.take()).toEqual(['ip']);
  });

  // Each: transactions counted before, while and after events are lost; how many were ours.
  it.each([
    ['ours alone, in one table', [0, 1, 0], 1, []],
    ['ours alone, in three, past the end of the counter', [1, 1, 1], 3, []],
    ['theirs before ours', [1, 1, 0], 1, ['ip', 'ip6']],
    ['theirs while events are lost', [0, 2, 0], 1, ['ip', 'ip6']],
    ['theirs after ours', [0, 1, 1], 1, ['ip', 'ip6']],
    ['ours failed, nobody knows where', [0, 1, 0], undefined, ['ip', 'ip6']],
    ['a kernel that does not count', [0, Number.NaN, 0], 1, ['ip', 'ip6']],
  ] as const)('events lost in a write: %s', (_, [before, meanwhile, after], own, told) => {
    const { changes, hear, transactions } = listen();
    changes.begin();
    transactions(before);
    hear(rule('KUBE-SERVICES'));
    transactions(meanwhile);
    hear(lost);
    transactions(after);
    changes.end(own);
    expect(changes.take()).toEqual(told);
    // Only that write was told of in part.
    changes.begin();
    transactions(5);
    changes.end(1);
    expect(changes.take()).toEqual([]);
  });

  it('what was heard of others in a write stays, though its own count is right', () => {
    const { changes, hear, transactions } = listen();
    changes.begin();
    transactions(2);
    hear(rule('KUBE-SERVICES', { family: 10 }), end('nft'), rule('KUBE-SERVICES'), lost);
    changes.end(2);
    expect(changes.take()).toEqual(['ip6']);
  });

  it('suspects all when events are lost between writes', () => {
    const { changes, hear } = listen();
    hear(lost);
    expect(changes.take()).toEqual(['ip', 'ip6']);
  });
});
