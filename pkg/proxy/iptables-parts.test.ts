import { expect, it } from 'vitest';
import { parseInParts } from '#pkg/iptables/parse.ts';
import { planInParts } from '#pkg/iptables/plan.ts';
import { renderInParts, renderSave } from '#pkg/iptables/render.ts';
import { atOnce, type Parts } from '#pkg/reconcile/parts.ts';
import { IptablesBook } from './iptables-book.ts';
import { options, portsOf, service, slice } from './testdata/records.ts';

const services = 300;

/** The result, after it was laid aside this many times at least. */
function inParts<T>(work: Parts<T>, atLeast: number): T {
  let parts = 0;
  for (;;) {
    const { done, value } = work.next();
    parts += 1;
    if (done !== true) continue;
    expect(parts).toBeGreaterThanOrEqual(atLeast);
    return value;
  }
}

it.each(['compatible', 'tree'] as const)(
  'all that costs by the number of Services can be laid aside, layout %s',
  (layout) => {
    const names = Array.from({ length: services }, (_, n) => `ns/s${n}`);
    const byKey = portsOf({
      services: names.map((name, n) =>
        service(name, { clusterIPs: [`10.96.${n >> 8}.${n & 255}`] }),
      ),
      slices: names.map((name, n) => slice(name, [`10.1.${n >> 8}.${n & 255}`])),
    });
    const book = new IptablesBook(options({ layout }));
    inParts(book.updateInParts(byKey, 'all', options({ layout })), services);
    const want = inParts(book.rulesetInParts(), services);
    const steps = inParts(planInParts(want, { family: 'ip', tables: [] }), 2 * services);
    expect(inParts(renderInParts(steps), 2 * services)).toContain('-j KUBE-SVC-');
    const saved = renderSave(want);
    const lines = saved.split('\n').length;
    const found = want.tables.map(({ name }) =>
      inParts(parseInParts(saved, name), name === 'nat' ? Math.floor(lines / 200) : 0),
    );
    expect(
      atOnce(planInParts(want, { family: 'ip', tables: found })).filter(
        ({ op }) => op !== 'edit-chain',
      ),
    ).toEqual([]);
  },
);
