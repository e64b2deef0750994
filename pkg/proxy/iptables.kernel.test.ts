/** Real packets through the rules the proxy writes, in both backends and both families. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#pkg/clock/clock.ts';
import { families, type Family } from '#pkg/ip/address.ts';
import { applyIptables } from '#pkg/iptables/apply.ts';
import { observeIptables } from '#pkg/iptables/observe.ts';
import { planIptables } from '#pkg/iptables/plan.ts';
import type { IptablesTool } from '#pkg/iptables/detect.ts';
import { probeBackends, scratchTools } from '#pkg/iptables/testdata/scratch-tools.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import type { IptablesOptions } from './iptables-options.ts';
import type { AskRequest } from './testdata/agent.ts';
import { nets, numbers, packetServices, podDetector } from './testdata/packet-services.ts';
import { ruleset, type Cluster } from './testdata/records.ts';
import { createSmallCluster, type SmallCluster } from './testdata/small-cluster.ts';
import { testServicePackets } from './testdata/service-packets.ts';
import { sendStraySegment } from './testdata/stray-segment.ts';

const probes = await probeBackends();
const signal = new AbortController().signal;
/** Of the Service shortSticky. */
const affinityMs = 1_000;

describe.each(probes)('iptables, backend $title', ({ backend, usable }) => {
  describe.skipIf(!usable)('real packets', () => {
    let small: SmallCluster;
    let tools: (family: Family) => IptablesTool;

    const write = async (wanted: Cluster, fields: Partial<IptablesOptions> = {}): Promise<void> => {
      for (const family of families) {
        // Each layout in each backend and each family.
        const layout = (backend === 'legacy') === (family === 'ip') ? 'tree' : 'compatible';
        const options = {
          family,
          layout,
          localDetector: podDetector,
          randomFully: true,
          ...fields,
        } as const;
        const rules = ruleset(wanted, options);
        const steps = planIptables(rules, await observeIptables(tools(family), signal));
        await applyIptables(tools(family), steps, signal);
      }
    };

    /** The answers without doubles, sorted. */
    const seen = async (from: ScratchNetns, to: AskRequest): Promise<string[]> =>
      [...new Set(await small.connect(from, to))].toSorted();

    beforeAll(async () => {
      small = await createSmallCluster();
      tools = await scratchTools(small.node, backend);
      await write(packetServices);
      await small.node.exec('sysctl', ['-qw', 'net.ipv4.conf.all.route_localnet=1']);
    });
    afterAll(async () => small?.[Symbol.asyncDispose]());

    describe.each(families)('%s', (family) => {
      testServicePackets(family, () => small, {
        servesLocalhost: true,
        localForAll: false,
        attempts: 20,
        patienceMs: 20_000,
      });
    });

    it('S148. affinity ends when the client was away for its time', async () => {
      const clients: AskRequest[] = [];
      for (const family of families) {
        const { pod, vip } = nets[family];
        for (let i = 10; i < 30; i++) {
          const address = `${pod(1).slice(0, -1)}${i}`;
          const prefix = `${address}/${family === 'ip' ? 24 : 64}`;
          await small.client.ip(`addr add ${prefix} dev eth0 preferred_lft 0`);
          const sources = [address, address];
          clients.push({ host: `${vip}${numbers.shortSticky}`, port: 80, sources });
        }
      }
      /** Of one that comes twice within its time; on a machine under load it may be late. */
      const stays = async (client: AskRequest): Promise<string> => {
        for (;;) {
          const startMs = performance.now();
          const [first, second] = await small.connect(small.client, client);
          if (performance.now() - startMs >= affinityMs) continue;
          expect(second).toBe(first);
          return first ?? '';
        }
      };
      const all = async (): Promise<string[]> => {
        const answers: string[] = [];
        for (const client of clients) answers.push(await stays(client));
        return answers;
      };
      const first = await all();
      await systemClock.sleep(affinityMs + 500);
      const later = await all();
      // All twenty of a family choose as before once in a million runs.
      for (const i of [0, 20]) expect(later.slice(i, i + 20)).not.toEqual(first.slice(i, i + 20));
    });

    it('S158. S116. a packet out of the window does not reset a connection', async () => {
      const agent = small.agent(small.client);
      const lasting = { host: `${nets.ip.vip}${numbers.lasting}`, port: 80 };
      const stray = async (key: string, ms: number, answers: number): Promise<unknown> => {
        await agent.openStream(key, lasting);
        await sendStraySegment(small.servers[0], 8081);
        return (await agent.closeStream(key, ms, answers)).error;
      };
      expect(await stray('guarded', 20_000, 20)).toBeUndefined();
      // Without the rule it reaches the client untranslated, and the client resets the server.
      await write(packetServices, { conntrackLiberal: true });
      // Until it breaks: the reset may be on its way while more is answered.
      expect(await stray('unguarded', 5_000, 10_000)).toMatch(/^(?:ECONNRESET|STALLED|END)$/);
      await write(packetServices);
    });

    it('S142. S156. an endpoint that goes gets no more connections; the last one, and all are refused', async () => {
      const to = { host: `${nets.ip.vip}${numbers.both}`, port: 80, count: 20 };
      const without = (...gone: string[]): Cluster => ({
        ...packetServices,
        slices: packetServices.slices.map((s) => ({
          ...s,
          endpoints: s.endpoints.filter((e) => !gone.includes(e.address)),
        })),
      });
      await write(without('10.1.2.2'));
      expect(await seen(small.client, to)).toEqual(['two 10.1.1.2']);
      await write(without('10.1.2.2', '10.1.3.2'));
      expect(await seen(small.client, to)).toEqual(['ECONNREFUSED']);
      const open = packetServices.services.map((s) => ({ ...s, loadBalancerSourceRanges: [] }));
      await write({ ...packetServices, services: open });
      expect(await seen(small.client, to)).toHaveLength(2);
      const ranges = { host: `${nets.ip.balancer}${numbers.ranges}`, port: 80, count: 20 };
      const fromBlocked = { ...ranges, sources: [nets.ip.blocked] };
      expect((await seen(small.outside, fromBlocked))[0]).toMatch(/^(?:one|two) /);
    });
  });
});
