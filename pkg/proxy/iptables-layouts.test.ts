/** In both layouts what is kept by changes is what is rendered anew. */
import { expect, it } from 'vitest';
import { renderSave } from '#pkg/iptables/render.ts';
import { IptablesBook } from './iptables-book.ts';
import type { IptablesOptions } from './iptables-options.ts';
import { iptablesRuleset } from './iptables-ruleset.ts';
import { ServiceModel } from './service-model.ts';
import { RandomCluster } from './testdata/random-cluster.ts';
import { asChanges, nodeName, options } from './testdata/records.ts';

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
