import { copyFileSync, existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { eachOnScratchNode } from './scratch-each.ts';
import {
  reaches,
  showLink,
  writeNodeFacts,
  type CniOutcome,
  type ScratchNode,
} from './scratch-node.ts';

let node: ScratchNode;
let pod: ScratchNetns;
eachOnScratchNode(async (fresh) => {
  node = fresh;
  pod = await node.pod();
});

const dual = ['10.244.1.0/24', 'fd00:10:244:1::/64'];

function config(more: object = {}): object {
  return {
    cniVersion: '1.1.0',
    name: 'podwire',
    type: 'podwire',
    nodeFile: node.nodeFile,
    stateDir: node.stateDir,
    ipam: { dataDir: node.dataDir },
    ...more,
  };
}

function podwire(command: string, more: object = {}, netns = pod.path): Promise<CniOutcome> {
  return node.cni('podwire', { command, netns, config: config(more) });
}

describe('podwire', () => {
  it.each([
    ['IPv4', ['10.244.1.0/24'], ['10.244.1.2/24'], ['10.244.1.1']],
    ['IPv6', ['fd00:10:244:1::/64'], ['fd00:10:244:1::2/64'], ['fd00:10:244:1::1']],
    ['both', dual, ['10.244.1.2/24', 'fd00:10:244:1::2/64'], ['10.244.1.1', 'fd00:10:244:1::1']],
  ])(
    "%s: gives a pod addresses of the node's subnets, and the way out",
    async (_, cidrs, ips, gateways) => {
      writeNodeFacts(node, cidrs);
      const { exitCode, json } = await podwire('ADD');
      expect({ exitCode, ips: json.ips.map((ip) => ip.address) }).toEqual({ exitCode: 0, ips });
      expect(json.routes.map((r) => r.gw)).toEqual(gateways);
      for (const gateway of gateways) expect(await reaches(pod, gateway)).toBe(true);
      const port = await showLink(node.netns, json.interfaces[1]?.name ?? '');
      expect(port).toMatchObject({ mtu: 1450, linkinfo: { info_slave_data: { hairpin: true } } });
      expect(await showLink(pod, 'eth0')).toMatchObject({ mtu: 1450 });
      expect(await podwire('CHECK', { prevResult: json })).toMatchObject({ exitCode: 0 });
      expect(await podwire('DEL')).toEqual({ exitCode: 0, json: undefined, stderr: '' });
      expect(node.leases()).toEqual([]);
    },
  );

  it('uses what the configuration says itself', async () => {
    writeNodeFacts(node, dual);
    const ipam = { type: 'host-local', dataDir: node.dataDir, subnet: '10.99.0.0/24' };
    const { json } = await podwire('ADD', { bridge: 'pods', mtu: 1300, hairpinMode: false, ipam });
    expect(json.ips.map((ip) => ip.address)).toEqual(['10.99.0.2/24']);
    expect(await showLink(node.netns, 'pods')).toMatchObject({ mtu: 1300 });
  });

  it("without the node's facts refuses ADD, but not DEL", async () => {
    const before = await node.snapshot([pod]);
    const { exitCode, json } = await podwire('ADD');
    expect({ exitCode, json }).toMatchObject({ exitCode: 1, json: { code: 11 } });
    expect(json.msg).toContain(`Cannot read node facts ${node.nodeFile}: no such file`);
    expect(await node.snapshot([pod])).toEqual(before);
    writeNodeFacts(node, dual);
    expect(await podwire('ADD')).toMatchObject({ exitCode: 0 });
    rmSync(node.nodeFile);
    expect(await podwire('DEL', {}, '')).toMatchObject({ exitCode: 0 });
    expect(node.leases()).toEqual([]);
  });

  it('STATUS says whether ADD would work', async () => {
    const status = (): Promise<CniOutcome> => podwire('STATUS', {}, '');
    expect(await status()).toMatchObject({ exitCode: 1, json: { code: 50 } });
    writeFileSync(node.nodeFile, '{"podCIDRs":');
    expect(await status()).toMatchObject({ exitCode: 1, json: { code: 50 } });
    writeFileSync(node.nodeFile, '{"podCIDRs":["10.244.1.7/24"],"mtuBytes":1450}');
    const { json } = await status();
    expect(json.msg).toContain('podCIDRs[0]": expected a subnet as 10.244.1.0/24');
    writeNodeFacts(node, dual);
    expect(await status()).toEqual({ exitCode: 0, json: undefined, stderr: '' });
  });

  it('keeps two interfaces of one pod apart', async () => {
    writeNodeFacts(node, dual);
    const net1 = { netns: pod.path, ifName: 'net1', config: config({ name: 'second' }) };
    const other = {
      ...net1,
      config: config({
        name: 'second',
        bridge: 'cni1',
        ipam: { type: 'host-local', dataDir: node.dataDir, subnet: '10.99.0.0/24' },
      }),
    };
    expect(await podwire('ADD')).toMatchObject({ exitCode: 0 });
    expect(await node.cni('podwire', other)).toMatchObject({ exitCode: 0 });
    expect(await node.cni('podwire', { ...other, command: 'DEL' })).toMatchObject({ exitCode: 0 });
    expect(await reaches(pod, '10.244.1.1')).toBe(true);
  });

  it('GC frees what no valid attachment has', async () => {
    writeNodeFacts(node, dual);
    await podwire('ADD');
    const gc = await podwire('GC', { 'cni.dev/valid-attachments': [] }, '');
    expect(gc).toEqual({ exitCode: 0, json: undefined, stderr: '' });
    expect(node.leases()).toEqual([]);
    expect(await node.netns.ip('-br link')).not.toContain('veth');
  });
});

describe('loopback', () => {
  const conf = (more: object = {}): object => ({
    cniVersion: '1.0.0',
    name: 'lo',
    type: 'loopback',
    ...more,
  });
  const call = (command: string, netns = pod.path, more: object = {}): Promise<CniOutcome> =>
    node.cni('loopback', { command, ifName: 'lo', netns, config: conf(more) });

  it('94. sets lo up and says its addresses, DEL sets it down', async () => {
    await pod.ip('link set lo down');
    expect(await call('CHECK')).toMatchObject({ exitCode: 1 });
    expect((await call('ADD')).json).toEqual({
      cniVersion: '1.0.0',
      interfaces: [{ name: 'lo', mac: '00:00:00:00:00:00', sandbox: pod.path }],
      ips: [
        { interface: 0, address: '127.0.0.1/8' },
        { interface: 0, address: '::1/128' },
      ],
    });
    expect(await reaches(pod, '127.0.0.1')).toBe(true);
    expect(await reaches(pod, '::1')).toBe(true);
    expect(await call('CHECK')).toMatchObject({ exitCode: 0 });
    expect(await call('DEL')).toEqual({ exitCode: 0, json: undefined, stderr: '' });
    expect((await showLink(pod, 'lo')).flags).not.toContain('UP');
    expect(await call('DEL', '')).toMatchObject({ exitCode: 0 });
    expect(await call('DEL', '/run/netns/pw-cni-gone')).toMatchObject({ exitCode: 0 });
  });

  it('passes the result before it on', async () => {
    const prevResult = { cniVersion: '1.0.0', ips: [{ address: '10.0.0.2/24' }] };
    expect((await call('ADD', pod.path, { prevResult })).json).toEqual(prevResult);
  });

  it("refuses the host's own namespace and leaves its lo up", async () => {
    const { json } = await call('DEL', node.netns.path);
    expect(json).toMatchObject({ code: 8 });
    expect((await showLink(node.netns, 'lo')).flags).toContain('UP');
  });
});

describe('host-local as a program', () => {
  it("answers in the configuration's version", async () => {
    const ipam = { type: 'host-local', dataDir: node.dataDir, subnet: '10.1.2.0/24' };
    const conf = { cniVersion: '0.2.0', name: 'net', type: 'bridge', ipam };
    const { json } = await node.cni('host-local', { netns: pod.path, config: conf });
    expect(json).toEqual({
      cniVersion: '0.2.0',
      ip4: { ip: '10.1.2.2/24', gateway: '10.1.2.1' },
      dns: {},
    });
  });
});

describe('the executable', () => {
  it('is what its copy is called, and nothing else', async () => {
    const copy = join(node.dataDir, 'loopback');
    copyFileSync(join(import.meta.dirname, '../../dist/podwire-cni'), copy);
    const { stderr } = await node.netns.exec(copy, []);
    expect(stderr).toContain('Podwire loopback');
    const odd = join(node.dataDir, 'odd');
    renameSync(copy, odd);
    const call = { netns: pod.path, config: config(), program: odd };
    expect(await node.cni('', call)).toMatchObject({ exitCode: 1, json: { code: 50 } });
  });

  it.each([{ BUN_BE_BUN: '1' }, { BUN_OPTIONS: '--version' }, { BUN_BYTECODE_ORDER_OUT: 'order' }])(
    'stays a plugin with %j in its environment',
    async (env) => {
      const copy = join(node.dataDir, 'bridge');
      copyFileSync(join(import.meta.dirname, '../../dist/podwire-cni'), copy);
      const names = Object.entries(env).map(([name, value]) => `${name}=${value}`);
      const args = ['-C', node.dataDir, ...names, copy, '--version'];
      const { stdout, stderr } = await node.netns.exec('env', args);
      expect(existsSync(join(node.dataDir, 'order'))).toBe(false);
      expect(stdout).toBe('');
      expect(stderr).toContain('Podwire bridge');
    },
  );

  it('has its heap in huge pages, and no thread that gives them back', async () => {
    const copy = join(node.dataDir, 'bridge');
    copyFileSync(join(import.meta.dirname, '../../dist/podwire-cni'), copy);
    const { stderr } = await node.netns.exec('env', ['MIMALLOC_VERBOSE=1', copy]);
    expect(stderr).toContain("option 'allow_thp': 2");
    expect(stderr).toContain("option 'scavenger': 0");
  });

  it('reads no configuration from the directory it runs in', async () => {
    writeFileSync(join(node.dataDir, '.env'), 'CNI_COMMAND=VERSION\n');
    writeFileSync(join(node.dataDir, 'bunfig.toml'), 'preload = ["./nowhere.ts"]\n');
    const copy = join(node.dataDir, 'bridge');
    copyFileSync(join(import.meta.dirname, '../../dist/podwire-cni'), copy);
    const { stdout, stderr } = await node.netns.exec('env', ['-C', node.dataDir, copy]);
    expect({ stdout, stderr }).toMatchObject({
      stdout: '',
      stderr: expect.stringContaining('Podwire bridge'),
    });
  });
});
