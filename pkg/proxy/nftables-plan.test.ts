import { describe, expect, it } from 'vitest';
import type { TableStructure } from '#pkg/nfnetlink/table-structure.ts';
import { renderSteps } from '#pkg/nftables/render.ts';
import { ruleMark, type Table } from '#pkg/nftables/ruleset.ts';
import { ElementBook } from './nftables-book.ts';
import { planProxyTable, proxyTableScript } from './nftables-plan.ts';
import { reconcile } from './nftables-reconcile.ts';
import { contentsOf } from './nftables-ruleset.ts';
import type { ProxiedPort } from './proxied-port.ts';
import { claimant } from './testdata/claimant.ts';
import { nftablesOptions, table } from './testdata/nftables.ts';
import { portsOf, service, slice, type Cluster } from './testdata/records.ts';
import { sixServices } from './testdata/six-services.ts';

const options = nftablesOptions();
const ports = portsOf(sixServices);
const contents = contentsOf(ports, options);

/** A table as netlink reads it back. */
function structureOf({ chains, comment, maps, sets }: Table): TableStructure {
  return {
    comment,
    rules: new Map(
      chains.map(({ name, rules }) => [name, rules.map((r) => `${r.why} ${ruleMark(r)}`)]),
    ),
    sets: new Map([...sets, ...maps].map(({ name }) => [name, undefined])),
  };
}
const structure = structureOf(table(sixServices));

describe('planProxyTable()', () => {
  it('finds nothing to do where all is as it should be', () => {
    expect(planProxyTable(ports, options, { structure, contents })).toEqual([]);
  });

  it('prints what differs as nft reads it', () => {
    const have = new Map([...contents].map(([set, elements]) => [set, new Map(elements)]));
    have.get('endpoints')?.set('172.30.0.43 . tcp . 80 . 0', '10.9.9.9 . 80');
    have.get('cluster-ips')?.set('172.30.0.99', '');
    expect(renderSteps(planProxyTable(ports, options, { structure, contents: have }))).toBe(
      `delete element ip podwire-proxy endpoints { 172.30.0.43 . tcp . 80 . 0 }
delete element ip podwire-proxy cluster-ips { 172.30.0.99 }
add element ip podwire-proxy endpoints { 172.30.0.43 . tcp . 80 . 0 : 10.180.0.3 . 80 }
`,
    );
  });

  it.each<[string, (s: TableStructure) => TableStructure | undefined]>([
    ['there is no table', () => undefined],
    ['it was made by another version', (s) => ({ ...s, comment: 'podwire-proxy #000000000000' })],
    ['a rule is gone', (s) => ({ ...s, rules: new Map([...s.rules, ['services', []]]) })],
    ['a rule is another', (s) => ({ ...s, rules: new Map([...s.rules, ['node-ports', ['']]]) })],
    ['a chain is too much', (s) => ({ ...s, rules: new Map([...s.rules, ['mine', ['']]]) })],
    ['a set is gone', (s) => ({ ...s, sets: new Map() })],
  ])('replaces the table as a whole when %s', (_, change) => {
    const have = { structure: change(structure), contents };
    expect(planProxyTable(ports, options, have)).toEqual([
      { op: 'replaceTable', table: table(sixServices) },
    ]);
  });

  it('keeps a table for a chain more or less that elements lead to', () => {
    const more = new Map([...structure.rules, ['remember-5', ['one #0123456789']]]);
    const less = new Map([...structure.rules].filter(([name]) => name !== 'remember-10800'));
    const withRules = (rules: TableStructure['rules']): TableStructure => ({ ...structure, rules });
    expect(planProxyTable(ports, options, { structure: withRules(less), contents })).toEqual([]);
    const [step] = planProxyTable(ports, options, { structure: withRules(more), contents });
    // Nobody but this proxy makes chains of such names: one with other rules is no chain of ours.
    expect(step?.op).toBe('replaceTable');
  });
});

describe('Services that claim one address', () => {
  // As mere text "ns/a-b/tcp" comes before "ns/a/tcp".
  const all = new Map(
    [
      claimant('ns/a', 5, []),
      claimant('ns/a-b', 6, ['10.1.0.2', '10.1.0.3']),
      claimant('ns/a-c', 7, ['10.1.0.4']),
    ].flatMap((cluster) => [...portsOf(cluster)]),
  );
  const served = new Map([...all, ...portsOf(claimant('ns/a', 5, ['10.1.0.1']))]);

  /** The table after these changes, one after the other. */
  function after(steps: readonly (readonly [key: string, port: ProxiedPort | undefined])[]) {
    const book = new ElementBook(options);
    const contents = new Map<string, Map<string, string>>();
    const changes = [book.common(), ...steps.map(([key, port]) => book.put(key, port))];
    for (const { key, new: now, old, set } of changes.flat()) {
      const elements = contents.get(set) ?? new Map<string, string>();
      contents.set(set, elements);
      // The kernel refuses to add what is there, and to delete what is not.
      expect({ set, key, has: elements.get(key) }).toEqual({ set, key, has: old });
      if (now === undefined) elements.delete(key);
      else elements.set(key, now);
    }
    return contents;
  }
  const orders = [
    ['ns/a/tcp', 'ns/a-b/tcp', 'ns/a-c/tcp'],
    ['ns/a-c/tcp', 'ns/a-b/tcp', 'ns/a/tcp'],
    ['ns/a-b/tcp', 'ns/a/tcp', 'ns/a-c/tcp'],
  ] as const;

  it.each(orders)('changes in the order %s, %s, %s end as a start does', (...order) => {
    const put = (ports: typeof all) => order.map((key) => [key, ports.get(key)] as const);
    const gone = order.map((key) => [key, undefined] as const);
    for (const [want, steps] of [
      [all, put(all)],
      [served, put(served)],
      [served, [...put(all), ...put(served)]],
      [all, [...put(served), ...put(all)]],
      [new Map<string, ProxiedPort>(), [...put(served), ...gone]],
    ] as const) {
      const have = after(steps);
      expect(planProxyTable(want, options, { structure, contents: have })).toEqual([]);
      const rest = [...have].filter(([, elements]) => elements.size > 0);
      const wanted = [...contentsOf(want, options)].filter(([, elements]) => elements.size > 0);
      expect(new Map(rest)).toEqual(new Map(wanted));
    }
  });

  it('a start writes no element twice', () => {
    for (const ports of [all, served]) {
      const seen = [...reconcile(new ElementBook(options), ports, new Map())].flat();
      const elements = seen.map(({ key, set }) => `${set} ${key}`);
      expect(elements.filter((element, i) => elements.indexOf(element) < i)).toEqual([]);
      expect(seen.every(({ new: now }) => now !== undefined)).toBe(true);
    }
  });
});

describe('proxyTableScript()', () => {
  it('is empty where all is as it should be', () => {
    expect(proxyTableScript(ports, options, { structure, contents })).toBe('');
  });

  it('adds a chain before the elements that lead to it', () => {
    const sticky: Cluster = {
      services: [service('ns/a', { clusterIPs: ['172.30.0.7'], affinitySeconds: 5 })],
      slices: [slice('ns/a', ['10.1.0.1'])],
    };
    const want = portsOf(sticky);
    const empty = structureOf(table({ services: [] }));
    const script = proxyTableScript(want, options, { structure: empty, contents: new Map() });
    const [chain, rule, ...elements] = script.split('\n');
    expect(chain).toBe('add chain ip podwire-proxy remember-5');
    expect(rule).toMatch(/^add rule ip podwire-proxy remember-5 update @affinity .* comment "/);
    expect(elements.join('\n')).toContain('172.30.0.7 . tcp . 80 : jump remember-5');
  });

  it('is the whole table where there is none', () => {
    const script = proxyTableScript(ports, options, { structure: undefined, contents: new Map() });
    expect(script).toMatch(/^add table ip podwire-proxy\ndelete table ip podwire-proxy\ntable ip/);
  });
});
