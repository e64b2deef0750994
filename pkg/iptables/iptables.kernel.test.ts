/** The law of this driver, on the real kernel: what was written is what is read back. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isErrno } from '#pkg/errors/agent-error.ts';
import type { Family } from '#pkg/ip/address.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { ruleset as render, service, slice } from '#pkg/proxy/testdata/records.ts';
import { sixServices } from '#pkg/proxy/testdata/six-services.ts';
import { applyIptables } from './apply.ts';
import type { IptablesTool } from './detect.ts';
import { observeIptables } from './observe.ts';
import { planIptables, type Step } from './plan.ts';
import type { Ruleset } from './ruleset.ts';
import { probeBackends, scratchTools } from './testdata/scratch-tools.ts';

const probes = await probeBackends();

const longName = 'a'.repeat(63);
const dualServices = {
  services: [
    ...sixServices.services,
    service('ns7/six', {
      type: 'LoadBalancer',
      clusterIPs: ['172.30.0.47', 'fd00:96::47'],
      externalIPs: ['fd00:192::99'],
      loadBalancerIngress: [{ ip: 'fd00:5::8', ipMode: 'VIP' }],
      loadBalancerSourceRanges: ['2001:db8::/64', 'fd00:192::/64'],
      affinitySeconds: 60,
      externalTrafficPolicy: 'Local',
      ports: [
        { name: 'p80', protocol: 'TCP', port: 80, nodePort: 3047 },
        { name: 'dns', protocol: 'UDP', port: 53, nodePort: 0 },
        { name: 'sig', protocol: 'SCTP', port: 99, nodePort: 0 },
      ],
    }),
    service('ns8/empty', { clusterIPs: ['172.30.0.48', 'fd00:96::48'] }),
    service(`${longName}/${longName}`, {
      type: 'NodePort',
      externalTrafficPolicy: 'Local',
      clusterIPs: ['172.30.0.49', 'fd00:96::49'],
      ports: [{ name: longName, protocol: 'TCP', port: 80, nodePort: 3049 }],
    }),
  ],
  slices: [
    ...(sixServices.slices ?? []),
    slice('ns7/six', ['fd00:10::1', 'fd00:10::2', 'fd00:10::3'], {
      ports: [
        { name: 'p80', protocol: 'TCP', port: 80 },
        { name: 'dns', protocol: 'UDP', port: 53 },
        { name: 'sig', protocol: 'SCTP', port: 99 },
      ],
    }),
    slice(
      `${longName}/${longName}`,
      Array.from({ length: 50 }, (_, i) => `10.180.1.${i + 1}`),
      {
        ports: [{ name: longName, protocol: 'TCP', port: 80 }],
      },
    ),
    slice(`${longName}/${longName}`, ['fd00:10::4'], {
      ports: [{ name: longName, protocol: 'TCP', port: 80 }],
    }),
  ],
};

describe.each(probes)('iptables, backend $title', ({ backend, usable }) => {
  describe.skipIf(!usable).each(['ip', 'ip6'] as const)('family %s', (family: Family) => {
    let netns: ScratchNetns;
    let tool: IptablesTool;
    const signal = new AbortController().signal;

    beforeAll(async () => {
      netns = await createScratchNetns('pw-iptables');
      tool = (await scratchTools(netns, backend))(family);
    });
    afterAll(async () => netns?.[Symbol.asyncDispose]());

    const want = (fields: Parameters<typeof render>[1] = {}): Ruleset =>
      render(dualServices, { family, randomFully: true, ...fields });
    const reconcile = async (wanted: Ruleset): Promise<Step[]> => {
      const steps = planIptables(wanted, await observeIptables(tool, signal));
      await applyIptables(tool, steps, signal);
      return steps;
    };
    const iptables = (words: string): Promise<unknown> =>
      netns.exec(tool.save.replace('-save', ''), ['-w', '5', ...words.split(' ')]);
    const save = async (): Promise<string> => {
      const { stdout } = await netns.exec(tool.save, []);
      return stdout.replaceAll(/^#.*\n?/gm, '').replaceAll(/\[\d+:\d+\]/g, '[]');
    };

    it('after a round the kernel holds what is wanted, and nothing is left to do', async () => {
      expect((await reconcile(want())).length).toBeGreaterThan(20);
      expect(planIptables(want(), await observeIptables(tool, signal))).toEqual([]);
    });

    it.each([
      ['pods told by a bridge', { localDetector: { kind: 'bridge-interface', name: 'cni0' } }],
      [
        'pods told by interface names',
        { localDetector: { kind: 'interface-name-prefix', prefix: 'veth' } },
      ],
      ['masqueradeAll, another mark bit', { masqueradeAll: true, masqueradeBit: 31 }],
      ['no localhost node ports', { localhostNodePorts: false, randomFully: false }],
      [
        'node ports on some addresses',
        { nodePortAddresses: family === 'ip' ? ['192.168.0.2', '127.0.0.1'] : ['fd00:192::2'] },
      ],
    ] as const)('also with %s', async (_, fields) => {
      expect(await reconcile(want(fields))).not.toEqual([]);
      expect(planIptables(want(fields), await observeIptables(tool, signal))).toEqual([]);
      await reconcile(want());
    });

    it('rules and chains of others stay as they are', async () => {
      await iptables('-t nat -N DOCKER');
      await iptables('-t nat -A DOCKER -p tcp --dport 8080 -j RETURN');
      await iptables('-t nat -I PREROUTING 1 -m addrtype --dst-type LOCAL -j DOCKER');
      await iptables('-t nat -A POSTROUTING -o eth0 -j MASQUERADE');
      await iptables('-t mangle -N KUBE-KUBELET-CANARY');
      await iptables('-t filter -A FORWARD -i eth0 -j ACCEPT');
      const others = (text: string): string[] =>
        text.split('\n').filter((line) => /DOCKER|KUBELET|eth0/.test(line));
      const before = others(await save());
      expect(before).toHaveLength(6);
      expect(await reconcile(want())).toEqual([]);
      await reconcile(render({ services: [] }, { family }));
      await reconcile(want());
      expect(others(await save())).toEqual(before);
    });

    it.each([
      ['a rule of a Service deleted', `-t nat -D KUBE-SERVICES 1`],
      ['a foreign rule put into a chain of ours', '-t nat -I KUBE-SERVICES -j RETURN'],
      ['a chain flushed', '-t nat -F KUBE-POSTROUTING'],
      ['the whole table flushed', '-t nat -F'],
      ['a jump deleted', '-t filter -D FORWARD 1'],
    ])('%s: the next round heals it', async (_, words) => {
      await reconcile(want());
      const good = await save();
      await iptables(words);
      expect(await save()).not.toEqual(good);
      expect(await reconcile(want())).not.toEqual([]);
      expect(planIptables(want(), await observeIptables(tool, signal))).toEqual([]);
    });

    it('a change writes the chains it concerns, and chains of a gone Service go', async () => {
      const services = dualServices.services.filter((s) => s.namespace !== 'ns7');
      const without = render({ ...dualServices, services }, { family, randomFully: true });
      await reconcile(want());
      const steps = await reconcile(without);
      const written = steps.filter((s) => s.op === 'put-chain').map((s) => s.chain);
      expect(written.every((chain) => !/-(?:SVC|SEP|SVL)-/.test(chain))).toBe(true);
      expect(await save()).not.toContain('ns7/six');
      await reconcile(want());
    });

    it("a chain of an older kube-proxy that holds one of a gone Service is in nobody's way", async () => {
      const old = 'KUBE-XLB-AAAAAAAAAAAAAAAA';
      await reconcile(want());
      const held = [...(want().tables[1]?.chains.keys() ?? [])].find((c) => c.includes('-SVC-'));
      await iptables(`-t nat -N ${old}`);
      await iptables(`-t nat -A ${old} -j ${held}`);
      const nothing = render({ services: [] }, { family });
      await reconcile(nothing);
      expect(planIptables(nothing, await observeIptables(tool, signal))).toEqual([]);
      await iptables(`-t nat -F ${old}`);
      await iptables(`-t nat -X ${old}`);
      await reconcile(want());
    });

    it('a refused table says which line, and leaves what was there', async () => {
      await reconcile(want());
      const before = await save();
      const rules = ['-m comment --comment fine -j RETURN', '-p nonsense -j RETURN'];
      const bad: Step[] = [{ op: 'put-chain', table: 'nat', chain: 'KUBE-SERVICES', rules }];
      const error: unknown = await applyIptables(tool, bad, signal).catch((e: unknown) => e);
      expect(isErrno(error, 'IptablesRestoreFailed')).toBe(true);
      expect(String(error)).toContain('at line 4: -A KUBE-SERVICES -p nonsense -j RETURN');
      expect(await save()).toBe(before);
    });
  });
});
