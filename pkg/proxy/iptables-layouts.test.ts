/** The layouts say the same of every packet, and what is kept by changes is what is rendered anew. */
import { expect, it } from 'vitest';
import { renderSave } from '#pkg/iptables/render.ts';
import type { Ruleset } from '#pkg/iptables/ruleset.ts';
import { IptablesBook } from './iptables-book.ts';
import type { IptablesOptions } from './iptables-options.ts';
import { iptablesRuleset } from './iptables-ruleset.ts';
import { ServiceModel } from './service-model.ts';
import { RandomCluster } from './testdata/random-cluster.ts';
import { asChanges, nodeName, options, trace } from './testdata/records.ts';

const layouts = ['compatible', 'tree'] as const;
const seeds = [1, 2];

function modelOf(seed: number, family: 'ip' | 'ip6'): [RandomCluster, ServiceModel] {
  const model = new ServiceModel(family, { name: nodeName, zone: undefined });
  return [new RandomCluster(seed, family), model];
}

function step(cluster: RandomCluster, model: ServiceModel, count: number): Set<string> {
  const { gone, ...news } = cluster.change(count);
  const changes = asChanges(news);
  const services = [...changes.services, ...gone.map((key) => ({ key, new: undefined }))];
  return new Set(model.update({ ...changes, services }).map(({ key }) => key));
}

it.each(seeds)('both layouts treat every packet the same (seed %i)', (seed) => {
  for (const family of ['ip', 'ip6'] as const) {
    const [cluster, model] = modelOf(seed, family);
    step(cluster, model, 110);
    const ports = [...model.ports.values()];
    const [compatible, tree] = layouts.map((layout) =>
      iptablesRuleset(ports, options({ family, layout })),
    ) as [Ruleset, Ruleset];
    const names = tree.tables.flatMap(({ chains }) => [...chains.keys()]);
    expect(names.filter((name) => name.startsWith('KUBE-SVT-')).length).toBeGreaterThan(5);
    const sources =
      family === 'ip'
        ? ['10.0.0.2', '192.168.0.2', '203.0.113.2', '203.0.113.200']
        : ['fd00:10::2', 'fd00:192::2', '2001:db8::2'];
    const verdicts = new Set<string>();
    for (const port of ports) {
      const node = family === 'ip' ? '192.168.0.2' : 'fd00:192::2';
      const targets = [port.clusterIP, ...port.externalIPs, ...port.loadBalancerIPs].map(
        (ip) => [ip, port.port] as const,
      );
      if (port.nodePort !== 0) targets.push([node, port.nodePort]);
      targets.push([port.clusterIP, 9], [nextTo(port.clusterIP), port.port]);
      for (const [ip, number] of targets) {
        const to = ip.includes(':') ? `[${ip}]:${number}` : `${ip}:${number}`;
        for (const source of sources) {
          const packet = { to, source, protocol: port.protocol };
          const verdict = trace(tree, packet);
          expect([packet, verdict]).toEqual([packet, trace(compatible, packet)]);
          verdicts.add(verdict.replaceAll(/[\d.:[\]a-f]+:\d+/g, 'endpoint'));
        }
      }
    }
    // Nothing is shown when all packets have one fate.
    expect(verdicts.size).toBeGreaterThan(5);
  }
});

it.each(seeds)('a book of changes is like one written at once (seed %i)', (seed) => {
  for (const layout of layouts) {
    const [cluster, model] = modelOf(seed, 'ip');
    const given: IptablesOptions = options({ layout });
    const book = new IptablesBook(given);
    for (let round = 0; round < 40; round++) {
      const changed = step(cluster, model, round === 0 ? 80 : 3);
      // In the middle the options change, too.
      const now = round < 20 ? given : { ...given, masqueradeAll: true };
      const changes = book.update(model.ports, round === 0 ? 'all' : changed, now);
      expect(changes === undefined).toBe(round === 20);
      const fresh = iptablesRuleset([...model.ports.values()], now);
      expect(renderSave(book.ruleset())).toBe(renderSave(fresh));
      for (const [table, count] of book.counts()) {
        const { chains, jumps } = fresh.tables.find(({ name }) => name === table) ?? {};
        const rules = [...(chains ?? []), ...(jumps ?? [])].flatMap(([, list]) => list);
        expect([table, count]).toEqual([table, rules.length]);
      }
    }
  }
});

it('endpoints are named up to 1,000 of them, and again when there are fewer', () => {
  const [cluster, model] = modelOf(1, 'ip');
  step(cluster, model, 10);
  const book = new IptablesBook(options());
  book.update(model.ports, 'all', options());
  const count = [...model.ports.values()].reduce((sum, p) => sum + p.endpoints.all.length, 0);
  const [port] = [...model.ports.values()].filter((p) => p.endpoints.all.length > 0);
  if (port === undefined) throw new Error('no port with endpoints');
  const [endpoint] = port.endpoints.all;
  if (endpoint === undefined) throw new Error('no endpoint');
  const named = (extra: number): boolean => {
    const all = [...port.endpoints.all, ...Array.from({ length: extra }, () => endpoint)];
    const ports = new Map(model.ports).set('x', { ...port, endpoints: { ...port.endpoints, all } });
    ports.delete('ns/none');
    book.update(ports, new Set(['x']), options());
    return renderSave(book.ruleset()).includes(' -> ');
  };
  const room = 1_000 - count - port.endpoints.all.length;
  expect([named(room), named(room + 1), named(room)]).toEqual([true, false, true]);
});

function nextTo(ip: string): string {
  return ip.includes(':') ? `${ip}0` : ip.replace(/\d+$/, (last) => `${(Number(last) + 1) % 256}`);
}
