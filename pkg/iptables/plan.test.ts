import { describe, expect, it } from 'vitest';
import { parseSave } from './parse.ts';
import { planChange, planIptables } from './plan.ts';
import { renderRestore, renderSave } from './render.ts';
import type { ObservedRuleset, Ruleset, TableName } from './ruleset.ts';

const names: readonly TableName[] = ['filter', 'nat'];
const svc = 'KUBE-SVC-XPGD46QRK7WJZT7O';
const stale = 'KUBE-SVC-AAAAAAAAAAAAAAAA';

const wanted = `*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -m comment --comment "first" -j KUBE-FORWARD
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-SERVICES - [0:0]
:${svc} - [0:0]
-A PREROUTING -m comment --comment "one" -j KUBE-SERVICES
-A PREROUTING -m comment --comment "two" -j KUBE-SERVICES
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-SERVICES -d 172.30.0.41/32 -j ${svc}
-A ${svc} -j KUBE-MARK-MASQ
COMMIT
`;

/** iptables-save prints built-in chains with their policy; ours have "-". */
function observed(text: string): ObservedRuleset {
  const withBuiltIns = text
    .replaceAll('*filter\n', '*filter\n:FORWARD ACCEPT [0:0]\n')
    .replaceAll('*nat\n', '*nat\n:PREROUTING ACCEPT [3:180]\n');
  return { family: 'ip', tables: names.map((name) => parseSave(withBuiltIns, name)) };
}

const want: Ruleset = observed(wanted);

function restoreFor(have: string): string {
  return renderRestore(planIptables(want, observed(have)));
}

describe('planIptables() writes', () => {
  it('everything into an empty kernel; what it writes is what it wants to see', () => {
    const have = observed('');
    const input = renderRestore(planIptables(want, have));
    expect(input.replaceAll('-I ', '-A ').split('\n').toSorted()).toEqual(
      wanted.split('\n').toSorted(),
    );
    expect(renderSave(want)).toBe(wanted);
  });

  it('nothing when all is there, among rules and chains of others', () => {
    const have = wanted
      .replace('-A PREROUTING', '-A PREROUTING -j DOCKER\n-A PREROUTING')
      .replace(':KUBE-FORWARD', ':DOCKER - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-FORWARD');
    expect(restoreFor(have)).toBe('');
  });

  it('only the chain that differs', () => {
    const have = wanted.replace(`-A ${svc} -j KUBE-MARK-MASQ\n`, `-A ${svc} -j RETURN\n`);
    expect(restoreFor(have)).toBe(`*nat\n:${svc} - [0:0]\n-A ${svc} -j KUBE-MARK-MASQ\nCOMMIT\n`);
  });

  it('a chain whose rules are in another order', () => {
    const two = `-A ${svc} -j KUBE-MARK-MASQ\n-A ${svc} -j RETURN\n`;
    const swapped = `-A ${svc} -j RETURN\n-A ${svc} -j KUBE-MARK-MASQ\n`;
    const line = `-A ${svc} -j KUBE-MARK-MASQ\n`;
    const steps = planIptables(
      observed(wanted.replace(line, two)),
      observed(wanted.replace(line, swapped)),
    );
    expect(steps).toMatchObject([{ op: 'put-chain', chain: svc }]);
  });

  it('a missing jump at the head, ours in their order', () => {
    const have = wanted.replace('-A PREROUTING -m comment --comment "two" -j KUBE-SERVICES\n', '');
    expect(restoreFor(have)).toBe(
      [
        '*nat',
        '-D PREROUTING -m comment --comment "one" -j KUBE-SERVICES',
        '-I PREROUTING -m comment --comment "two" -j KUBE-SERVICES',
        '-I PREROUTING -m comment --comment "one" -j KUBE-SERVICES',
        'COMMIT\n',
      ].join('\n'),
    );
  });

  it('a jump printed in another way in the place of it, not beside it', () => {
    const have = wanted.replace('-m comment --comment "two" -j', '-m comment --comment two -g');
    expect(restoreFor(have)).toContain('-D PREROUTING -m comment --comment two -g KUBE-SERVICES');
    const other = wanted.replace(
      '-A PREROUTING',
      '-A PREROUTING -m comment --comment two -j X\n$&',
    );
    expect(restoreFor(other)).toBe('');
  });

  it('nothing against a jump that is there twice, or jumps of others to our chains', () => {
    const jump = '-A PREROUTING -m comment --comment "two" -j KUBE-SERVICES\n';
    expect(restoreFor(wanted.replace(jump, `${jump}${jump}`))).toBe('');
    expect(
      restoreFor(wanted.replace(jump, `-A PREROUTING -i eth9 -j KUBE-SERVICES\n${jump}`)),
    ).toBe('');
  });
});

describe('planIptables() deletes', () => {
  const withStale = wanted
    .replace(`:${svc}`, `:${stale} - [0:0]\n:${svc}`)
    .replace(`-A ${svc}`, `-A ${stale} -j RETURN\n-A ${svc}`);

  it('chains of Services that are gone, emptied first', () => {
    expect(restoreFor(withStale)).toBe(`*nat\n:${stale} - [0:0]\n-X ${stale}\nCOMMIT\n`);
  });

  it('no chain of the kubelet or of other modes of kube-proxy', () => {
    const others = ['KUBE-KUBELET-CANARY', 'KUBE-MARK-DROP', 'KUBE-LOAD-BALANCER', 'KUBE-SVC-ODD'];
    const have = wanted.replace(
      ':KUBE-SERVICES',
      others.map((c) => `:${c} - [0:0]\n`).join('') + ':KUBE-SERVICES',
    );
    expect(restoreFor(have)).toBe('');
  });

  it('no chain that a rule of others holds: it is emptied, once', () => {
    const held = withStale
      .replace('COMMIT', 'COMMIT')
      .replace('-A PREROUTING', `-A PREROUTING -s 192.0.2.1/32 -j ${stale}\n-A PREROUTING`);
    const have = observed(held);
    expect(renderRestore(planIptables(want, have))).toBe(`*nat\n:${stale} - [0:0]\nCOMMIT\n`);
  });

  it('no chain that a chain of an older kube-proxy holds, which stays', () => {
    const held = withStale
      .replace(`:${svc}`, `:KUBE-XLB-AAAAAAAAAAAAAAAA - [0:0]\n:${svc}`)
      .replace(`-A ${svc}`, `-A KUBE-XLB-AAAAAAAAAAAAAAAA -j ${stale}\n-A ${svc}`);
    const have = observed(held);
    expect(renderRestore(planIptables(want, have))).toBe(`*nat\n:${stale} - [0:0]\nCOMMIT\n`);
  });
});

describe('an unordered chain', () => {
  const chain = 'KUBE-SERVICES';
  const rule = (n: number): string => `-d 172.30.0.${n}/32 -j ${svc}`;
  const last = '-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS';
  const stepsFor = (wanted: readonly string[], present: readonly string[]): string => {
    const table = (rules: readonly string[]) => ({
      name: 'nat' as const,
      chains: new Map([[chain, rules]]),
      jumps: new Map(),
      unordered: new Map([[chain, 1]]),
      pinned: new Set<string>(),
    });
    const tables = (rules: readonly string[]) => ({
      family: 'ip' as const,
      tables: [table(rules)],
    });
    return renderRestore(planIptables(tables(wanted), tables(present)));
  };
  const numbers = (from: number, to: number): string[] =>
    Array.from({ length: to - from + 1 }, (_, i) => rule(from + i));

  it.each([
    ['nothing for another order', [rule(1), rule(2), last], [rule(2), rule(1), last], []],
    [
      'single rules, the new one at the head',
      [rule(1), rule(3), last],
      [rule(2), rule(1), last],
      [`-D ${chain} ${rule(2)}`, `-I ${chain} ${rule(3)}`],
    ],
    [
      'what is there twice once less',
      [rule(1), last],
      [rule(1), rule(1), last],
      [`-D ${chain} ${rule(1)}`],
    ],
    [
      'the whole chain when its end is not the end',
      [rule(1), last],
      [last, rule(1)],
      [`:${chain} - [0:0]`, `-A ${chain} ${rule(1)}`, `-A ${chain} ${last}`],
    ],
  ])('gets %s', (_, wanted, present, lines) => {
    const text = lines.length === 0 ? '' : ['*nat', ...lines, 'COMMIT\n'].join('\n');
    expect(stepsFor(wanted, present)).toBe(text);
  });

  it('is written whole when much of it differs', () => {
    const few = [...numbers(1, 200), last];
    expect(stepsFor(few, [...numbers(2, 200), last])).not.toContain(`:${chain}`);
    expect(stepsFor(few, [...numbers(1, 20), ...numbers(201, 240), last])).toContain(`:${chain}`);
    expect(stepsFor(few, [last])).toContain(`:${chain}`);
  });
});

it('planChange() puts chains and edits them, and deletes last unless something holds the chain', () => {
  const held = 'KUBE-SVC-BBBBBBBBBBBBBBBB';
  const steps = planChange(
    [
      {
        name: 'nat',
        put: new Map([[svc, ['-j RETURN']]]),
        gone: new Set([stale, held]),
        edits: new Map([['KUBE-SERVICES', { remove: [`-j ${stale}`], insert: [`-j ${svc}`] }]]),
      },
    ],
    new Map([['nat', new Set([held])]]),
  );
  expect(renderRestore(steps).split('\n')).toEqual([
    '*nat',
    ...[stale, held, svc].map((chain) => `:${chain} - [0:0]`),
    `-A ${svc} -j RETURN`,
    `-D KUBE-SERVICES -j ${stale}`,
    `-I KUBE-SERVICES -j ${svc}`,
    `-X ${stale}`,
    'COMMIT',
    '',
  ]);
});
