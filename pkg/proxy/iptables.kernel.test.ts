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
import {
  nets,
  nodePorts,
  numbers,
  packetServices,
  podDetector,
} from './testdata/packet-services.ts';
import { ruleset, type Cluster } from './testdata/records.ts';
import { createSmallCluster, type SmallCluster } from './testdata/small-cluster.ts';
import { sendStraySegment } from './testdata/stray-segment.ts';

const probes = await probeBackends();
const signal = AbortSignal.timeout(300_000);

describe.each(probes)('iptables, backend $title', ({ backend, usable }) => {
  describe.skipIf(!usable)('real packets', () => {
    let small: SmallCluster;
    let tools: (family: Family) => IptablesTool;

    const write = async (wanted: Cluster, fields: Partial<IptablesOptions> = {}): Promise<void> => {
      for (const family of families) {
        const options = { family, localDetector: podDetector, randomFully: true, ...fields };
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
      const { balancer, blocked, gateway, loopback, node, outside, pod, vip } = nets[family];
      const clusterIP = (name: keyof typeof numbers): AskRequest => ({
        host: `${vip}${numbers[name]}`,
        port: 80,
        count: 20,
      });
      const external = (name: keyof typeof numbers): AskRequest => ({
        host: `${balancer}${numbers[name]}`,
        port: 80,
        count: 20,
      });
      const nodePort = (port: number, host: string = node): AskRequest => ({
        host,
        port,
        count: 20,
      });
      const once = { count: 1, timeoutMs: 200 };
      const client = [`one ${pod(1)}`, `two ${pod(1)}`];
      const masqueraded = [`one ${gateway(2)}`, `two ${gateway(3)}`];

      it('S1. S144. a pod reaches both endpoints, keeping its own address', async () => {
        const answers = await small.connect(small.client, { ...clusterIP('both'), count: 60 });
        expect([...new Set(answers)].toSorted()).toEqual(client);
        // 60 fair choices leave fewer than 10 for one side once in 30 million runs.
        const ofOne = answers.filter((answer) => answer === client[0]).length;
        expect(Math.min(ofOne, 60 - ofOne)).toBeGreaterThanOrEqual(10);
      });

      it('S55. S144. the node and an outsider reach them masqueraded', async () => {
        expect(await seen(small.node, clusterIP('both'))).toEqual(masqueraded);
        expect(await seen(small.outside, clusterIP('both'))).toEqual(masqueraded);
      });

      it('S7. S10. S12. S149. without endpoints a connection is refused, not left waiting', async () => {
        const inside = [clusterIP('none'), nodePort(nodePorts.none)];
        const flows = [
          ...inside.map((to) => [small.node, to] as const),
          ...[...inside, external('none')].flatMap((to) => [
            [small.client, to] as const,
            [small.outside, to] as const,
          ]),
        ];
        // An ICMPv6 error that comes back within connect(2), as it does here, counts only the next time,
        // a second later.
        const ask = { count: 1, timeoutMs: 2000 };
        const answers = flows.map(([from, to]) => seen(from, { ...to, ...ask }));
        expect(await Promise.all(answers)).toEqual(flows.map(() => ['ECONNREFUSED']));
      });

      it('S18. S143. a pod reaches itself, seeing the node as the client', async () => {
        expect(await seen(small.servers[0], clusterIP('self'))).toEqual([`one ${gateway(2)}`]);
        expect(await seen(small.client, clusterIP('self'))).toEqual([`one ${pod(1)}`]);
      });

      it('S37. a node port answers on every address of the node, masqueraded', async () => {
        for (const from of [small.outside, small.client, small.node]) {
          expect(await seen(from, nodePort(nodePorts.both))).toEqual(masqueraded);
        }
        const other = nodePort(nodePorts.both, gateway(1));
        expect(await seen(small.outside, other)).toEqual(masqueraded);
      });

      it('S37. S42. a node port answers on 127.0.0.1, and never on ::1', async () => {
        const answers = await seen(small.node, nodePort(nodePorts.both, loopback));
        expect(answers).toEqual(family === 'ip' ? masqueraded : ['ECONNREFUSED']);
      });

      it('S19. an external address that no host has is served', async () => {
        for (const from of [small.outside, small.client, small.node]) {
          expect(await seen(from, external('outside'))).toEqual(masqueraded);
        }
      });

      it('S60. S66. S151. internal Local leads to endpoints here, or nowhere', async () => {
        expect(await seen(small.client, clusterIP('internal'))).toEqual([`one ${pod(1)}`]);
        expect(await seen(small.node, clusterIP('internal'))).toEqual([`one ${gateway(2)}`]);
        const far = { ...clusterIP('internalFar'), ...once };
        const answers = [small.client, small.node].map((from) => seen(from, far));
        expect(await Promise.all(answers)).toEqual([['TIMEOUT'], ['TIMEOUT']]);
      });

      it('S56. S57. S58. external Local: outsiders keep their address, pods reach all', async () => {
        for (const to of [external('external'), nodePort(nodePorts.external)]) {
          expect(await seen(small.outside, to)).toEqual([`one ${outside}`]);
          expect(await seen(small.client, to)).toEqual(client);
          expect(await seen(small.node, to)).toEqual(masqueraded);
        }
      });

      it('S64. external Local without an endpoint here drops outsiders, not pods', async () => {
        const targets = [external('externalFar'), nodePort(nodePorts.externalFar)];
        const answers = targets.map((to) => seen(small.outside, { ...to, ...once }));
        expect(await Promise.all(answers)).toEqual([['TIMEOUT'], ['TIMEOUT']]);
        for (const to of targets) {
          expect(await seen(small.client, to)).toEqual([`two ${pod(1)}`]);
          expect(await seen(small.node, to)).toEqual([`two ${gateway(3)}`]);
        }
      });

      it('S24. S25. S26. source ranges admit whom they hold', async () => {
        const to = external('ranges');
        expect(await seen(small.outside, to)).toEqual(masqueraded);
        const fromBlocked = seen(small.outside, { ...to, ...once, sources: [blocked] });
        const fromPod = seen(small.client, { ...to, ...once });
        expect(await Promise.all([fromBlocked, fromPod])).toEqual([['TIMEOUT'], ['TIMEOUT']]);
        expect(await seen(small.client, clusterIP('ranges'))).toEqual(client);
      });

      it('S73. terminating endpoints that serve are used when no other is left', async () => {
        expect(await seen(small.client, clusterIP('ending'))).toEqual([`one ${pod(1)}`]);
      });

      it('S14. UDP has the same number as TCP, and is served on its own', async () => {
        const udp = { protocol: 'udp' } as const;
        expect(await seen(small.client, { ...clusterIP('datagrams'), ...udp })).toEqual(client);
        const to = { ...nodePort(nodePorts.datagrams), ...udp };
        expect(await seen(small.outside, to)).toEqual(masqueraded);
      });

      it('S13. S154. pods have target ports of their own', async () => {
        expect(await seen(small.client, clusterIP('targets'))).toEqual(client);
      });

      it('S148. with affinity a client stays with its endpoint', async () => {
        expect(await seen(small.client, clusterIP('sticky'))).toHaveLength(1);
      });

      it('pods that are not addressed through a Service see the client itself', async () => {
        const to = { host: pod(2), port: 8080 };
        expect(await small.connect(small.outside, to)).toEqual([`one ${outside}`]);
      });
    });

    it('S148. affinity ends when the client was away for its time', async () => {
      const asks = await Promise.all(
        families.map(async (family) => {
          const { pod, vip } = nets[family];
          const sources = Array.from({ length: 20 }, (_, i) => `${pod(1).slice(0, -1)}${i + 10}`);
          for (const address of sources) {
            const prefix = `${address}/${family === 'ip' ? 24 : 64}`;
            await small.client.ip(`addr add ${prefix} dev eth0 preferred_lft 0`);
          }
          const to = { host: `${vip}${numbers.shortSticky}`, port: 80, sources };
          return () => small.connect(small.client, to);
        }),
      );
      const all = (): Promise<string[][]> => Promise.all(asks.map((ask) => ask()));
      const first = await all();
      expect(await all()).toEqual(first);
      await systemClock.sleep(1_500);
      const later = await all();
      // All twenty of a family choose as before once in a million runs.
      for (const i of families.keys()) expect(later[i]).not.toEqual(first[i]);
    });

    it('S158. S116. a packet out of the window does not reset a connection', async () => {
      const agent = small.agent(small.client);
      const lasting = { host: `${nets.ip.vip}${numbers.lasting}`, port: 80 };
      const stray = async (key: string): Promise<string | undefined> => {
        await agent.openStream(key, lasting);
        await sendStraySegment(small.servers[0], 8081);
        return (await agent.closeStream(key)).error;
      };
      expect(await stray('guarded')).toBeUndefined();
      // Without the rule it reaches the client untranslated, and the client resets the server.
      await write(packetServices, { conntrackLiberal: true });
      expect(await stray('unguarded')).toMatch(/^(?:ECONNRESET|STALLED|END)$/);
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
