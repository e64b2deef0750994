/** Interfaces of a pod beside eth0. */
import { describe, expect, it } from 'vitest';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { addressOf, eachWithMultus, type Multus, type Network } from './scratch-multus.ts';
import { reaches, showLink, type CniDocument, type ScratchNode } from './scratch-node.ts';

let multus: Multus;
let node: ScratchNode;
let pod: ScratchNetns;
let neighbour: ScratchNetns;
eachWithMultus((fresh) => {
  multus = fresh;
  ({ node, pod, neighbour } = fresh);
});

describe('beside eth0', () => {
  const pods = (): Network => ({ name: 'pods', plugins: [multus.podwire()] });
  const lan = (more: object = {}): Network => ({
    name: 'lan',
    plugins: [{ type: 'macvlan', master: 'up0', ipam: multus.ipam('10.1.2.0/24'), ...more }],
  });

  /** What a chain of the reference conflist makes, with an address of its own for each. */
  const chain = (name: string, subnet: string, hostPort: number): Network => ({
    name,
    plugins: [
      {
        type: 'bridge',
        bridge: `${name}0`,
        isGateway: true,
        ipMasq: true,
        ipam: multus.ipam(subnet),
      },
      {
        type: 'tuning',
        sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' },
        mtu: 1400,
        dataDir: `${node.stateDir}/tuning`,
      },
      { type: 'bandwidth', ingressRate: 8e6, ingressBurst: 8e6, egressRate: 8e6, egressBurst: 8e6 },
      {
        type: 'portmap',
        backend: 'nftables',
        snat: true,
        runtimeConfig: { portMappings: [{ hostPort, containerPort: 80, protocol: 'tcp' }] },
      },
      { type: 'firewall', backend: 'iptables' },
    ],
  });

  it('a whole chain for net1, and another for eth0: each goes with its own things only', async () => {
    const [first, second] = [chain('one', '10.8.0.0/24', 8081), chain('two', '10.9.0.0/24', 8082)];
    const [eth0, net1] = [await multus.attach('eth0', first), await multus.attach('net1', second)];
    const state = async (): Promise<Record<string, boolean>> => {
      const { stdout: rules } = await node.netns.exec('sh', [
        '-c',
        'iptables-save; nft list ruleset',
      ]);
      const links = await node.netns.ip('-br link show type ifb');
      const seen = (at: CniDocument): boolean => rules.includes(addressOf(at));
      return {
        'rules of eth0': seen(eth0),
        'rules of net1': seen(net1),
        'port of eth0': rules.includes('8081'),
        'port of net1': rules.includes('8082'),
        'two limits': links.trim().split('\n').length === 2,
      };
    };
    for (const ifName of ['eth0', 'net1']) {
      const { stdout } = await pod.exec('cat', [`/proc/sys/net/ipv4/conf/${ifName}/arp_filter`]);
      expect([ifName, stdout.trim(), (await showLink(pod, ifName)).mtu]).toEqual([
        ifName,
        '1',
        1400,
      ]);
    }
    expect(Object.values(await state())).not.toContain(false);
    expect(await multus.run('CHECK', ['eth0', first], { prevResult: eth0 })).toBeUndefined();
    expect(await multus.run('CHECK', ['net1', second], { prevResult: net1 })).toBeUndefined();
    expect(
      await multus.run('DEL', ['net1', second], { prevResult: net1, netns: '' }),
    ).toBeUndefined();
    expect(await state()).toEqual({
      'rules of eth0': true,
      'rules of net1': false,
      'port of eth0': true,
      'port of net1': false,
      'two limits': false,
    });
    expect(await multus.run('CHECK', ['eth0', first], { prevResult: eth0 })).toBeUndefined();
    expect(await reaches(pod, '10.8.0.1')).toBe(true);
  });

  it('routes of net1 lead out of net1; the way out stays eth0’s, unless Multus says otherwise', async () => {
    const routes = [{ dst: '10.50.0.0/16', gw: '10.1.2.200' }];
    const behind = lan({ ipam: multus.ipam('10.1.2.0/24', { routes }) });
    await multus.attach('eth0', pods());
    const result = await multus.attach('net1', behind);
    expect(result.routes).toEqual(routes);
    expect(await reaches(pod, '10.50.0.1')).toBe(true);
    const other: Network = {
      name: 'side',
      plugins: [
        {
          type: 'bridge',
          bridge: 'side0',
          isDefaultGateway: true,
          ipam: multus.ipam('10.9.0.0/24'),
        },
      ],
    };
    const side = await multus.attach('net2', other);
    expect(await pod.ip('route get 192.0.2.1')).toContain('via 10.244.1.1 dev eth0');
    // "default-route" of the annotation: Multus takes the others away (pkg/multus, DelGatewayOfInterface).
    await pod.ip('route del default dev eth0');
    expect(await pod.ip('route get 192.0.2.1')).toContain('via 10.9.0.1 dev net2');
    expect(await multus.run('CHECK', ['net2', other], { prevResult: side })).toBeUndefined();
    expect(await multus.run('CHECK', ['net1', behind], { prevResult: result })).toBeUndefined();
    expect(await multus.run('DEL', ['eth0', pods()])).toBeUndefined();
    expect(await reaches(pod, '10.50.0.1')).toBe(true);
  });

  it('takes address and MAC that the annotation asks for', async () => {
    const runtimeConfig = { ips: ['10.1.2.77/24'], mac: 'c2:11:22:33:44:66' };
    const asked = await multus.attach('net1', lan({ capabilities: { ips: true, mac: true } }), {
      runtimeConfig,
      args: 'IgnoreUnknown=true;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=u',
    });
    expect(asked.ips[0]?.address).toBe('10.1.2.77/24');
    expect((await showLink(pod, 'net1')).address).toBe(runtimeConfig.mac);
    const byArgs = lan({ args: { cni: { ips: ['10.1.2.78'] } } });
    expect((await multus.attach('net2', byArgs)).ips[0]?.address).toBe('10.1.2.78/24');
    expect(await reaches(neighbour, '10.1.2.77')).toBe(true);
  });

  it('what cannot be had leaves the rest of the pod as it was', async () => {
    await multus.attach('eth0', pods());
    const before = await node.snapshot([pod]);
    expect(await multus.run('ADD', ['net1', lan({ master: 'nix' })])).toContain(
      'failed to lookup master',
    );
    const chained = { ...chain('side', '10.9.0.0/24', 8081) };
    expect(
      await multus.run('ADD', [
        'net1',
        {
          ...chained,
          plugins: [...chained.plugins, { type: 'tuning', sysctl: { 'kernel.hostname': 'x' } }],
        },
      ]),
    ).toContain('kernel.hostname');
    // The runtime's part: libcni deletes nothing by itself.
    expect(await multus.run('DEL', ['net1', chained])).toBeUndefined();
    await node.netns.ip('link del side0');
    expect(await node.snapshot([pod])).toEqual(before);
    expect(await reaches(pod, '10.244.1.1')).toBe(true);
  });

  it('all at once, coming and going', async () => {
    const side: Network = {
      name: 'side',
      plugins: [
        {
          type: 'bridge',
          bridge: 'side0',
          isGateway: true,
          ipMasq: true,
          ipam: multus.ipam('10.9.0.0/24'),
        },
      ],
    };
    const wanted = Object.entries({
      eth0: pods(),
      net1: lan(),
      net2: lan(),
      net3: side,
      net4: side,
    });
    const results = await Promise.all(
      wanted.map(([ifName, network]) => multus.attach(ifName, network)),
    );
    expect(new Set(results.map(addressOf)).size).toBe(wanted.length);
    for (const [i, [ifName, network]] of wanted.entries()) {
      const prevResult = results[i];
      if (prevResult === undefined) throw new Error(`no result of ${ifName}`);
      expect([ifName, await multus.run('CHECK', [ifName, network], { prevResult })]).toEqual([
        ifName,
        undefined,
      ]);
    }
    const gone = await Promise.all(wanted.map((attachment) => multus.run('DEL', attachment)));
    expect(gone).toEqual(wanted.map(() => undefined));
    expect(node.leases()).toEqual([]);
    expect((await pod.ip('-br link')).trim().split('\n')).toHaveLength(1);
  });

  it('GC of a network knows interfaces of one container apart, and other networks', async () => {
    const [first, second] = [
      lan(),
      { ...lan({ ipam: multus.ipam('10.7.0.0/24') }), name: 'other' },
    ];
    await multus.attach('net1', first);
    await multus.attach('net2', first);
    await multus.attach('net3', second);
    const attachments = [{ containerID: 'pod-1', ifname: 'net2' }];
    const more = { 'cni.dev/valid-attachments': attachments };
    expect(await multus.run('GC', ['', first], { id: '', netns: '', more })).toBeUndefined();
    expect(node.leases()).toEqual(['10.1.2.3', '10.7.0.2']);
  });
});
