/** What `iptables-save` shows once 40 Services of every kind are loaded, in both backends. */
import { expect, describe, it } from 'vitest';
import { families } from '#pkg/ip/address.ts';
import { applyIptables } from '#pkg/iptables/apply.ts';
import { observeIptables } from '#pkg/iptables/observe.ts';
import { planIptables } from '#pkg/iptables/plan.ts';
import { probeBackends, scratchTools } from '#pkg/iptables/testdata/scratch-tools.ts';
import { createScratchNetns } from '#pkg/netns/scratch.ts';
import { fortyServices, fortyServicesText } from './testdata/forty-services/forty-services.ts';
import { ruleset } from './testdata/records.ts';

const probes = await probeBackends();

describe.each(probes)('iptables, backend $title', ({ backend, usable }) => {
  it.skipIf(!usable)('S2. iptables-save shows the expected text, in both families', async () => {
    await using netns = await createScratchNetns('pw-golden');
    const tools = await scratchTools(netns, backend);
    const signal = new AbortController().signal;
    for (const family of families) {
      const tool = tools(family);
      const want = ruleset(fortyServices, { family, randomFully: true });
      await applyIptables(tool, planIptables(want, await observeIptables(tool, signal)), signal);
      let saved = '';
      for (const table of ['filter', 'nat', 'mangle']) {
        const { stdout } = await tool.run(tool.save, ['-t', table], { timeoutMs: 20_000, signal });
        saved += stdout;
      }
      expect(inOrder(saved)).toEqual(inOrder(fortyServicesText(family)));
      expect(planIptables(want, await observeIptables(tool, signal))).toEqual([]);
    }
  });
});

/**
 * The backends print chains in orders of their own; rules keep theirs within a chain. Comments,
 * counters and the built-in chains' policies are not ours.
 */
function inOrder(text: string): string[] {
  let table = '';
  const lines = text
    .split('\n')
    .filter((line) => /^(?:\*|:KUBE-|-A )/.test(line))
    .map((line) => {
      if (line.startsWith('*')) table = line;
      const [word = '', chain = ''] = line.split(' ');
      return {
        line: `${table} ${line}`,
        place: `${table} ${word === '-A' ? `-A ${chain}` : line}`,
      };
    });
  return lines
    .toSorted((a, b) => (a.place < b.place ? -1 : a.place > b.place ? 1 : 0))
    .map(({ line }) => line);
}
