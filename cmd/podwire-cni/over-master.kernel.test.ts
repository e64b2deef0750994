import { existsSync } from 'node:fs';
import { describe, expect, it, type TestContext } from 'vitest';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { eachOnScratchNode } from './scratch-each.ts';
import {
  eventually,
  goPluginDir,
  reaches,
  showLink,
  type CniDocument,
  type CniOutcome,
  type ScratchNode,
} from './scratch-node.ts';

let node: ScratchNode;
let pod: ScratchNetns;
/** A machine on the wire of the node's uplink, which is the master. */
let neighbour: ScratchNetns;
eachOnScratchNode(async (fresh) => {
  node = fresh;
  pod = await node.pod();
  neighbour = await node.pod();
  await node.netns.ip(`link add up0 type veth peer name up0 netns ${neighbour.name}`);
  // No link of these networks looks a second long for who else has its address.
  await pod.exec('sysctl', ['-qw', 'net.ipv6.conf.default.accept_dad=0']);
  await node.netns.ip('link set up0 up');
  await neighbour.ip('addr add 10.1.2.200/24 dev up0');
  await neighbour.ip('addr add fd00:1::200/64 dev up0 nodad');
  await neighbour.ip('link set up0 up');
  await eventually(async () => (await node.netns.ip('link show up0')).includes('LOWER_UP'));
});

interface Ask {
  readonly type?: string;
  readonly command?: string;
  readonly id?: string;
  readonly ifName?: string;
  readonly netns?: string;
  readonly args?: string;
  readonly program?: string;
  readonly more?: object;
}

function call(ask: Ask = {}): Promise<CniOutcome> {
  const { type = 'macvlan', more = {}, netns = pod.path, ...rest } = ask;
  const ranges = [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00:1::/64' }]];
  const ipam = { type: 'host-local', dataDir: node.dataDir, ranges };
  return node.cni(type, {
    ...rest,
    netns,
    config: { cniVersion: '1.1.0', name: 'net', master: 'up0', ipam, ...more },
  });
}

async function add(ask: Ask = {}): Promise<CniDocument> {
  const { exitCode, json, stderr } = await call(ask);
  expect({ exitCode, json, stderr }).toMatchObject({ exitCode: 0, stderr: '' });
  return json;
}

async function refused(ask: Ask): Promise<string> {
  const { exitCode, json } = await call(ask);
  expect(exitCode).toBe(1);
  expect(node.leases()).toEqual([]);
  expect(await pod.ip('-br link')).not.toContain('eth0');
  return json.msg;
}

const fine = { exitCode: 0, json: undefined, stderr: '' };

async function modeOf(netns: ScratchNetns, name: string): Promise<object> {
  const { linkinfo } = await showLink(netns, name);
  return linkinfo;
}

describe('macvlan', () => {
  it('121. puts a pod on the network of the master', async () => {
    const { interfaces, ips } = await add();
    expect(interfaces).toEqual([
      { name: 'eth0', mac: (await showLink(pod, 'eth0')).address, mtu: 1500, sandbox: pod.path },
    ]);
    expect(ips.map(({ address, interface: index }) => [address, index])).toEqual([
      ['10.1.2.2/24', 0],
      ['fd00:1::2/64', 0],
    ]);
    expect(await reaches(pod, '10.1.2.200')).toBe(true);
    expect(await reaches(pod, 'fd00:1::200')).toBe(true);
    expect(await pod.ip('-6 addr show dev eth0 scope global')).not.toContain('tentative');
  });

  it.each(['bridge', 'private', 'vepa', 'passthru'])('121. mode %s', async (mode) => {
    await add({ more: { mode } });
    expect(await modeOf(pod, 'eth0')).toMatchObject({ info_kind: 'macvlan', info_data: { mode } });
  });

  it('121. takes MTU, MAC and queue length; runtimeConfig before CNI_ARGS before mac', async () => {
    const more = { mtu: 1400, mac: '02:00:00:00:00:01', bcqueuelen: 2000 };
    const mac = async (ask: Ask): Promise<string> => {
      await add(ask);
      const { address, mtu, linkinfo } = await showLink(pod, 'eth0');
      expect({ mtu, linkinfo }).toMatchObject({
        mtu: 1400,
        linkinfo: { info_data: { bcqueuelen: 2000 } },
      });
      expect(await call({ ...ask, command: 'DEL' })).toEqual(fine);
      return address;
    };
    expect(await mac({ more })).toBe('02:00:00:00:00:01');
    expect(await mac({ more, args: 'IgnoreUnknown=1;MAC=02:00:00:00:00:02' })).toBe(
      '02:00:00:00:00:02',
    );
    const runtimeConfig = { mac: '02:00:00:00:00:03' };
    expect(
      await mac({
        more: { ...more, runtimeConfig },
        args: 'IgnoreUnknown=1;MAC=02:00:00:00:00:02',
      }),
    ).toBe('02:00:00:00:00:03');
  });

  it('121. without a master takes the interface of the default route', async () => {
    expect(await refused({ more: { master: '' } })).toBe('no default route interface found');
    await node.netns.ip('addr add 10.1.2.100/24 dev up0');
    await node.netns.ip('route add default via 10.1.2.200');
    await add({ more: { master: '' } });
    expect(await reaches(pod, '10.1.2.200')).toBe(true);
  });

  it('121. may have its master in the pod, behind another plugin', async () => {
    await node.netns.ip(`link set up0 netns ${pod.name}`);
    await pod.ip('link set up0 up');
    expect(await refused({})).toContain('failed to lookup master "up0"');
    await add({ more: { linkInContainer: true } });
    expect(await reaches(pod, '10.1.2.200')).toBe(true);
    expect(await call({ command: 'STATUS', netns: '', more: { linkInContainer: true } })).toEqual(
      fine,
    );
  });

  it.each([
    ['an MTU above the master’s', { mtu: 1501 }, 'invalid MTU 1501, must be [0, master MTU(1500)]'],
    ['a mode there is not', { mode: 'wild' }, 'unknown macvlan mode: "wild"'],
    ['a MAC that is none', { mac: 'x' }, '"mac": expected a MAC address'],
    ['a queue that is none', { bcqueuelen: -1 }, '"bcqueuelen": expected a whole number'],
    ['a master there is not', { master: 'nix' }, 'failed to lookup master "nix"'],
    [
      'a broken route',
      {
        ipam: {
          type: 'static',
          addresses: [{ address: '10.1.2.9/24' }],
          routes: [{ dst: '10.9.0.0/16', gw: '192.0.2.1' }],
        },
      },
      'Cannot add route',
    ],
  ])('121. refuses %s, and leaves nothing', async (_, more, message) => {
    expect(await refused({ more })).toContain(message);
  });

  it('needs no addresses: the interface is up', async () => {
    const { ips } = await add({ more: { ipam: {} } });
    expect(ips).toBeUndefined();
    expect((await showLink(pod, 'eth0')).flags).toContain('UP');
  });

  it.runIf(existsSync(`${goPluginDir}/macvlan`))(
    'makes what the reference plugin makes',
    async () => {
      const more = { cniVersion: '1.0.0', mode: 'vepa', mtu: 1400 };
      const describePod = async (result: CniDocument): Promise<object> => {
        const { linkinfo, mtu, flags } = await showLink(pod, 'eth0');
        const routes = `${await pod.ip('-4 route')}${await pod.ip('-6 route')}`;
        return {
          linkinfo,
          mtu,
          flags,
          routes: routes.replaceAll(/10\.1\.2\.\d+ |fd00:1::\d+ /g, ''),
          interfaces: result.interfaces.map(({ name, sandbox }) => ({ name, sandbox })),
          ips: result.ips.map(({ gateway, interface: index }) => ({ gateway, index })),
        };
      };
      const ours = await describePod(await add({ more }));
      expect(await call({ command: 'DEL', more })).toEqual(fine);
      const go = await add({ more, program: `${goPluginDir}/macvlan` });
      expect(ours).toEqual(await describePod(go));
      expect(await call({ command: 'CHECK', more: { ...more, prevResult: go } })).toEqual(fine);
      expect(await call({ command: 'DEL', more })).toEqual(fine);
      expect(await pod.ip('-br link')).not.toContain('eth0');
    },
  );

  it('CHECK names what is not as it was', async () => {
    const result = await add();
    const check = async (more: object = {}): Promise<string> =>
      (await call({ command: 'CHECK', more: { ...more, prevResult: result } })).json?.msg ?? '';
    expect(await check()).toBe('');
    expect(await check({ mode: 'vepa' })).toContain('macvlan mode of eth0 is 4, not 2');
    await node.netns.ip('link add other0 type veth peer name other1');
    expect(await check({ master: 'other0' })).toContain('the master of eth0 is not other0');
    await pod.ip('link set eth0 address 02:00:00:00:00:09');
    expect(await check()).toContain('eth0 has MAC 02:00:00:00:00:09');
    await pod.ip('link del eth0');
    await pod.ip('link add eth0 type veth peer name x');
    expect(await check()).toContain('eth0 is no macvlan');
  });

  it('DEL is content with nothing, and leaves what another made', async () => {
    expect(await call({ command: 'DEL' })).toEqual(fine);
    await add();
    expect((await call()).json.msg).toContain('already exists');
    expect(await call({ command: 'DEL', id: 'pod-2' })).toEqual(fine);
    expect(await pod.ip('-br link')).toContain('eth0');
    expect(await call({ command: 'DEL', netns: '' })).toEqual(fine);
    expect(node.leases()).toEqual([]);
    expect(await call({ command: 'DEL', more: { master: '' } })).toEqual(fine);
    expect(await pod.ip('-br link')).not.toContain('eth0');
  });

  it('GC gives back the addresses that no attachment has', async () => {
    const other = await node.pod();
    await add();
    await add({ id: 'pod-2', netns: other.path });
    const valid = [{ containerID: 'pod-1', ifname: 'eth0' }];
    expect(await call({ command: 'GC', more: { 'cni.dev/valid-attachments': valid } })).toEqual(
      fine,
    );
    expect(node.leases()).toEqual(['10.1.2.2', 'fd00:1::2']);
  });

  it('66. STATUS knows whether ADD would find a master, and asks the IPAM plugin', async () => {
    const status = (more: object = {}): Promise<CniOutcome> =>
      call({ command: 'STATUS', netns: '', more });
    expect(await status()).toEqual(fine);
    expect((await status({ master: 'nix' })).json).toMatchObject({ code: 50 });
    expect((await status({ ipam: { type: 'nowhere' } })).json.msg).toContain('nowhere');
  });
});

describe('ipvlan', () => {
  const type = 'ipvlan';

  /** Whether the kernel makes such interfaces. */
  async function knowsIpvlan(): Promise<boolean> {
    try {
      await node.netns.ip('link add probe0 link up0 type ipvlan mode l2');
      await node.netns.ip('link del probe0');
      return true;
    } catch {
      return false;
    }
  }

  async function needsIpvlan(context: TestContext): Promise<void> {
    // In the VM it must be there.
    if (process.env['PODWIRE_VM'] !== undefined || (await knowsIpvlan())) return;
    context.skip('this kernel has no ipvlan (CONFIG_IPVLAN)');
  }

  it.each([
    ['a mode there is not', { mode: 'l4' }, 'unknown ipvlan mode: "l4"'],
    ['an MTU above the master’s', { mtu: 9000 }, 'invalid MTU 9000, must be [0, master MTU(1500)]'],
    ['a master there is not', { master: 'nix' }, 'failed to lookup master "nix"'],
    ['no addresses', { ipam: {} }, 'it needs ipam.type, or addresses in prevResult'],
    [
      'two interfaces before it',
      {
        master: '',
        prevResult: { cniVersion: '1.1.0', interfaces: [{ name: 'a' }, { name: 'b' }] },
      },
      'PrevResult lacks a single named interface',
    ],
    [
      'no interface before it',
      { master: '', prevResult: { cniVersion: '1.1.0' } },
      'PrevResult lacks a single named interface',
    ],
    [
      'an interface before it that is gone',
      { master: '', prevResult: { cniVersion: '1.1.0', interfaces: [{ name: 'gone' }] } },
      'failed to lookup master "gone"',
    ],
  ])('122. refuses %s, and leaves nothing', async (_, more, message) => {
    expect(await refused({ type, more })).toContain(message);
  });

  it('122. says so on a kernel without ipvlan, and leaves nothing', async (context) => {
    if (await knowsIpvlan()) context.skip('this kernel has ipvlan');
    expect(await refused({ type, more: { mode: 'l3s' } })).toContain('Cannot create ipvlan eth0');
  });

  /**
   * In the modes of layer 3 the host's routes decide where the pod's packets go, and nobody answers
   * ARP for the pod: who runs such a network routes it (Documentation/networking/ipvlan.rst, 4.2).
   */
  it('122. modes l2, l3 and l3s: on the network of the master', async (context) => {
    await needsIpvlan(context);
    await node.netns.ip('addr add 10.1.2.100/24 dev up0');
    const { address: mac } = await showLink(node.netns, 'up0');
    for (const [mode, address] of Object.entries({
      l2: '10.1.2.2',
      l3: '10.1.2.3',
      l3s: '10.1.2.4',
    })) {
      const more = { mode };
      const result = await add({ type, more });
      expect(result.ips[0]?.address).toBe(`${address}/24`);
      expect(await modeOf(pod, 'eth0')).toMatchObject({ info_kind: 'ipvlan', info_data: { mode } });
      if (mode !== 'l2') await neighbour.ip(`neigh add ${address} lladdr ${mac} dev up0`);
      expect(await reaches(pod, '10.1.2.200'), mode).toBe(true);
      if (mode === 'l3s') {
        const check = { ...more, prevResult: result };
        expect(await call({ type, command: 'CHECK', more: check })).toEqual(fine);
      }
      expect(await call({ type, command: 'DEL', more })).toEqual(fine);
    }
  });

  it('122. chained: on the interface and with the addresses of the plugin before', async (context) => {
    await needsIpvlan(context);
    const prevResult = {
      cniVersion: '1.1.0',
      interfaces: [{ name: 'up0' }],
      ips: [{ address: '10.1.2.9/24', interface: 0 }],
    };
    const { interfaces, ips } = await add({ type, more: { master: '', ipam: {}, prevResult } });
    expect(interfaces.map(({ name, sandbox }) => [name, sandbox])).toEqual([['eth0', pod.path]]);
    expect(ips).toMatchObject([{ address: '10.1.2.9/24', interface: 0 }]);
    expect(await reaches(pod, '10.1.2.200')).toBe(true);
  });

  it('DEL is content with nothing, without a master, and leaves what is no ipvlan', async () => {
    expect(await call({ type, command: 'DEL', more: { master: '' } })).toEqual(fine);
    expect(await call({ type, command: 'DEL', netns: '' })).toEqual(fine);
    await pod.ip('link add eth0 type veth peer name x');
    expect(await call({ type, command: 'DEL' })).toEqual(fine);
    expect(await pod.ip('-br link')).toContain('eth0');
  });

  it('66. STATUS knows whether ADD would find a master', async () => {
    expect(await call({ type, command: 'STATUS', netns: '' })).toEqual(fine);
    const { json } = await call({ type, command: 'STATUS', netns: '', more: { master: '' } });
    expect(json).toMatchObject({
      code: 50,
      msg: 'Cannot add pods: no default route interface found',
    });
    const chained = { master: '', ipam: {} };
    expect(await call({ type, command: 'STATUS', netns: '', more: chained })).toEqual(fine);
  });
});
