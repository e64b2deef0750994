import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { referenceIfbName } from '#plugins/meta/bandwidth-names.ts';
import { eachOnScratchNode } from './scratch-each.ts';
import {
  eventually,
  goPluginDir,
  type CniDocument,
  type CniOutcome,
  type ScratchNode,
} from './scratch-node.ts';

let node: ScratchNode;
let pod: ScratchNetns;
eachOnScratchNode(async (fresh) => {
  node = fresh;
  pod = await node.pod();
});

const both = { ingressRate: 8e6, ingressBurst: 8e6, egressRate: 16e6, egressBurst: 16e6 };

interface Chained {
  readonly result: CniDocument;
  readonly hostLink: string;
}

interface Ask {
  readonly ifName?: string;
  readonly limits?: object;
  readonly prevResult?: object | undefined;
  readonly program?: string;
  readonly netns?: string;
  readonly cniVersion?: string;
}

/** A bridge's ADD, whose result the plugin gets. */
async function connect(ifName = 'eth0'): Promise<CniDocument> {
  const { json, exitCode } = await node.cni('bridge', {
    ifName,
    netns: pod.path,
    config: {
      cniVersion: '1.0.0',
      name: 'net',
      isGateway: true,
      ipam: { type: 'host-local', dataDir: node.dataDir, subnet: '10.1.2.0/24' },
    },
  });
  expect(exitCode, JSON.stringify(json)).toBe(0);
  return json;
}

function call(command: string, ask: Ask = {}): Promise<CniOutcome> {
  const { ifName = 'eth0', limits = both, prevResult, program, cniVersion = '1.0.0' } = ask;
  return node.cni('bandwidth', {
    command,
    ifName,
    netns: ask.netns ?? pod.path,
    config: { cniVersion, name: 'net', ...limits, prevResult },
    ...(program === undefined ? {} : { program }),
  });
}

async function add(ask: Ask = {}): Promise<Chained> {
  const prevResult = ask.prevResult ?? (await connect(ask.ifName));
  const { exitCode, json, stderr } = await call('ADD', { ...ask, prevResult });
  expect({ exitCode, json, stderr }).toMatchObject({ exitCode: 0, stderr: '' });
  return { result: json, hostLink: json.interfaces[1]?.name ?? '' };
}

const fine = { exitCode: 0, json: undefined, stderr: '' };
const goProgram = `${goPluginDir}/bandwidth`;

/** What `tc` shows of a device, without what moves by itself and the device's number. */
async function shaping(device: string): Promise<string[]> {
  const qdiscs = await node.netns.exec('tc', ['-d', 'qdisc', 'show', 'dev', device]);
  const filters = await node.netns.exec('tc', ['-d', 'filter', 'show', 'dev', device, 'ingress']);
  return `${qdiscs.stdout}${filters.stdout}`
    .replace(/action order 2: .*/s, '')
    .replaceAll(/bwp\w+/g, 'IFB')
    .split('\n')
    .map((line) => line.trim().replace(/refcnt \d+ |^index .*/g, ''))
    .filter((line) => line !== '');
}

async function ifbs(): Promise<string[]> {
  const links = JSON.parse(await node.netns.ip('-j link show type ifb')) as { ifname?: string }[];
  return links.flatMap((link) => link.ifname ?? []);
}

describe('ADD', () => {
  it.each([
    ['ingress only', { ingressRate: 8e6, ingressBurst: 8e6 }, ['tbf'], 0],
    ['egress only', { egressRate: 8e6, egressBurst: 8e6 }, ['noqueue', 'ingress'], 1],
    ['both', both, ['tbf', 'ingress'], 1],
  ])('109. %s', async (_, limits, kinds, ifbCount) => {
    const { hostLink, result } = await add({ limits });
    const { stdout } = await node.netns.exec('tc', ['qdisc', 'show', 'dev', hostLink]);
    expect(stdout.match(/(?<=^qdisc )\w+/gm)).toEqual(kinds);
    expect(await ifbs()).toHaveLength(ifbCount);
    expect(result.interfaces.slice(3).map((i) => i.name)).toEqual(await ifbs());
  });

  it('111. passes the result on when nothing is limited', async () => {
    const prevResult = await connect();
    const { json } = await call('ADD', { limits: {}, prevResult });
    expect(json).toEqual(prevResult);
    expect(await ifbs()).toEqual([]);
  });

  it.runIf(existsSync(goProgram)).each([
    ['usual limits', both],
    [
      'the bursts of containerd and CRI-O, and a rate of 64 bits',
      {
        ingressRate: 1e6,
        ingressBurst: 4_294_967_295,
        egressRate: 4e10,
        egressBurst: 34_359_738_359,
      },
    ],
  ])('shapes exactly as the reference plugin does: %s', async (_, limits) => {
    const { hostLink, result } = await add({ limits });
    const ifb = result.interfaces[3]?.name ?? '';
    const ours = { host: await shaping(hostLink), ifb: await shaping(ifb) };
    expect(await call('DEL', { limits })).toEqual(fine);
    await node.netns.exec('tc', ['qdisc', 'del', 'dev', hostLink, 'root']);
    await node.netns.exec('tc', ['qdisc', 'del', 'dev', hostLink, 'ingress']);
    const prevResult = { ...result, interfaces: result.interfaces.slice(0, 3) };
    const go = await call('ADD', { limits, prevResult, program: goProgram });
    const theirs = go.json.interfaces[3]?.name ?? '';
    expect(ours).toEqual({ host: await shaping(hostLink), ifb: await shaping(theirs) });
    expect(result.interfaces.map(({ name }) => name.replace(/^bwp.*/, 'IFB'))).toEqual(
      go.json.interfaces.map(({ name }) => name.replace(/^bwp.*/, 'IFB')),
    );
    // Each takes the other's work for its own.
    expect(await call('CHECK', { limits, prevResult: go.json })).toEqual(fine);
    expect(await call('DEL', { limits, prevResult: go.json })).toEqual(fine);
    expect(await ifbs()).toEqual([]);
  });

  it('limits two interfaces of one container in one network', async () => {
    const first = await add();
    const second = await add({ ifName: 'net1' });
    expect(await ifbs()).toHaveLength(2);
    expect(await call('DEL', { ifName: 'net1' })).toEqual(fine);
    expect(await ifbs()).toEqual([first.result.interfaces[3]?.name]);
    expect(await call('CHECK', { prevResult: first.result })).toEqual(fine);
    expect((await call('CHECK', { ifName: 'net1', prevResult: second.result })).exitCode).toBe(1);
  });

  it('113. finds the host’s end by the pod’s, whatever else the result lists', async () => {
    await node.netns.ip('link add vethother type veth peer name vethpeer');
    const prevResult = await connect();
    const other = { name: 'vethother', mac: '02:00:00:00:00:01' };
    const { interfaces } = prevResult;
    const { result } = await add({
      prevResult: { ...prevResult, interfaces: [other, ...interfaces] },
    });
    expect((await shaping('vethother')).join()).not.toContain('tbf');
    expect((await shaping(result.interfaces[2]?.name ?? '')).join()).toContain('tbf');
  });

  it('113. says what is missing', async () => {
    const prevResult = await connect();
    const message = async (ask: Ask): Promise<string> => (await call('ADD', ask)).json.msg;
    expect(await message({})).toContain('must be called as a chained plugin');
    expect(await message({ prevResult: { ...prevResult, interfaces: [] } })).toContain(
      'no interfaces provided',
    );
    const [, , inPod] = prevResult.interfaces;
    expect(await message({ prevResult: { ...prevResult, interfaces: [inPod] } })).toContain(
      'no veth peer of container interface found in host ns',
    );
    expect(await message({ prevResult, ifName: 'lo' })).toContain('lo has no veth peer');
    expect(await ifbs()).toEqual([]);
  });

  it('leaves nothing when it fails half-way', async () => {
    const prevResult = await connect();
    const hostLink = prevResult.interfaces[1]?.name ?? '';
    await node.netns.exec('tc', ['qdisc', 'add', 'dev', hostLink, 'ingress']);
    const before = await shaping(hostLink);
    const { json } = await call('ADD', { prevResult });
    expect(json.msg).toContain(`Cannot add ingress qdisc`);
    expect(await ifbs()).toEqual([]);
    expect(await shaping(hostLink)).toEqual(before);
  });
});

describe('DEL', () => {
  it('114. removes the IFB, with and without prevResult and namespace, and again', async () => {
    const { result } = await add();
    expect(await call('DEL', { cniVersion: '0.3.0', netns: '' })).toEqual(fine);
    expect(await ifbs()).toEqual([]);
    expect(await call('DEL', { prevResult: result })).toEqual(fine);
    expect(await call('DEL', { limits: {}, netns: '/run/netns/gone' })).toEqual(fine);
  });

  it('114. removes what the reference plugin made', async () => {
    const name = referenceIfbName('net', { containerId: 'pod-1', ifName: 'eth0' });
    await node.netns.ip(`link add ${name} type ifb`);
    expect(await call('DEL', { netns: '' })).toEqual(fine);
    expect(await ifbs()).toEqual([]);
  });
});

describe('GC', () => {
  it('removes the IFBs of this network that no attachment has', async () => {
    const first = await add();
    await add({ ifName: 'net1' });
    await node.netns.ip('link add other0 type ifb');
    const alias = 'podwire-bandwidth net2 x eth0';
    await node.netns.exec('ip', ['link', 'set', 'other0', 'alias', alias]);
    const gc = (more: object): Promise<CniOutcome> =>
      node.cni('bandwidth', {
        command: 'GC',
        config: { cniVersion: '1.1.0', name: 'net', ...more },
      });
    expect((await gc({})).json.code).toBe(7);
    expect(await ifbs()).toHaveLength(3);
    const valid = [{ containerID: 'pod-1', ifname: 'eth0' }];
    expect(await gc({ 'cni.dev/valid-attachments': valid })).toEqual(fine);
    expect(new Set(await ifbs())).toEqual(new Set([first.result.interfaces[3]?.name, 'other0']));
  });
});

describe('CHECK', () => {
  it('115. names what is not as it was', async () => {
    const { result, hostLink } = await add();
    const ifb = result.interfaces[3]?.name ?? '';
    const check = async (limits: object = both): Promise<string> =>
      (await call('CHECK', { limits, prevResult: result })).json?.msg ?? '';
    const tc = (words: string): Promise<unknown> => node.netns.exec('tc', words.split(' '));
    expect(await check()).toBe('');
    expect(await check({ ...both, ingressRate: 9e6 })).toContain(`${hostLink} has rate 1000000`);
    expect(await check({ ...both, egressBurst: 8e6 })).toContain(`${ifb} has rate 2000000`);
    await tc(`filter del dev ${hostLink} ingress`);
    expect(await check()).toContain(`not redirected to ${ifb}`);
    await tc(`qdisc del dev ${ifb} root`);
    await tc(`qdisc del dev ${hostLink} root`);
    expect(await check()).toContain(`${hostLink} has no tbf`);
    await node.netns.ip(`link del ${ifb}`);
    expect(await check({ egressRate: 16e6, egressBurst: 16e6 })).toContain('is missing');
  });

  it('is content without limits', async () => {
    expect(await call('CHECK', { limits: {}, prevResult: await connect() })).toEqual(fine);
  });
});

it('STATUS is well', async () => {
  expect(await call('STATUS', { cniVersion: '1.1.0' })).toEqual(fine);
});

/** Sends for a time over the pod's link; the rate that came in at the other end. */
async function measureMbit(reverse: boolean): Promise<number> {
  const server = node.netns.exec('iperf3', ['-s', '-1', '-B', '10.1.2.1']);
  await eventually(async () =>
    (await node.netns.exec('ss', ['-ltn'])).stdout.includes('10.1.2.1:5201'),
  );
  const words = '-c 10.1.2.1 -t 4 -O 1 -J'.split(' ');
  const { stdout } = await pod.exec('iperf3', reverse ? [...words, '-R'] : words);
  await server;
  const { end } = JSON.parse(stdout) as { end: { sum_received: { bits_per_second: number } } };
  return end.sum_received.bits_per_second / 1e6;
}

it.runIf(existsSync('/usr/bin/iperf3'))(
  '110. the rates are those of the traffic, each direction its own',
  async () => {
    // A burst of 50 ms of the rate: gone before the measuring starts.
    await add({
      limits: { ingressRate: 20e6, ingressBurst: 1e6, egressRate: 60e6, egressBurst: 3e6 },
    });
    // Headers take 5 %; iperf3 counts only what they carry. Nothing else may take more than half.
    const received = await measureMbit(true);
    expect(received).toBeGreaterThan(10);
    expect(received).toBeLessThan(22);
    const sent = await measureMbit(false);
    expect(sent).toBeGreaterThan(30);
    expect(sent).toBeLessThan(66);
  },
);
