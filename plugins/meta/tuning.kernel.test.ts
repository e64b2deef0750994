import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { eachOnScratchNode } from '#cmd/podwire-cni/scratch-each.ts';
import { goPluginDir, type CniOutcome, type ScratchNode } from '#cmd/podwire-cni/scratch-node.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { callPlugin } from './scratch-chain.ts';

let node: ScratchNode;
let pod: ScratchNetns;
let dataDir: string;
eachOnScratchNode(async (fresh) => {
  node = fresh;
  pod = await node.pod();
  dataDir = join(node.dataDir, 'tuning');
  await pod.ip('link add eth0 address 02:00:00:00:00:01 mtu 1450 type veth peer name peer0');
  await pod.ip('link set peer0 up');
  await pod.ip('link set eth0 up');
});

const go = existsSync(`${goPluginDir}/tuning`);
const mac = '02:00:00:00:00:05';
const all = { mac, mtu: 1400, promisc: true, allmulti: true };

interface Ask {
  readonly command?: string;
  readonly id?: string;
  readonly conf?: object;
  readonly args?: string;
  readonly netns?: string;
  readonly go?: boolean;
  readonly more?: object;
  readonly network?: string;
  readonly cniVersion?: string;
  readonly withoutResult?: boolean;
}

function prevResult(cniVersion = '1.1.0'): object {
  return {
    cniVersion,
    interfaces: [
      { name: 'eth0', mac: '0a:00:00:00:00:01' },
      { name: 'eth0', mac: '02:00:00:00:00:01', mtu: 1450, sandbox: pod.path },
    ],
    ips: [{ interface: 1, address: '10.1.2.3/24' }],
  };
}

function call({ command = 'ADD', conf = {}, withoutResult = false, ...rest }: Ask) {
  const plugin = { type: 'tuning', dataDir, ...conf };
  return callPlugin(node, {
    netns: pod.path,
    ...rest,
    command,
    plugin,
    ...(withoutResult ? {} : { prevResult: prevResult(rest.cniVersion) }),
  });
}

async function works(ask: Ask): Promise<CniOutcome> {
  const outcome = await call(ask);
  expect(outcome).toMatchObject({ exitCode: 0, stderr: '' });
  return outcome;
}

/** The interface's attributes, as far as tuning has to do with them. */
async function link(): Promise<object> {
  const [shown] = JSON.parse(await pod.ip('-d -j link show eth0')) as [Record<string, unknown>];
  const { address, mtu, promiscuity, allmulti, txqlen, flags } = shown;
  return { address, mtu, promiscuity, allmulti, txqlen, flags };
}

async function sysctl(name: string): Promise<string> {
  const { stdout } = await pod.exec('sysctl', ['-n', name]);
  return stdout;
}

function files(): string[] {
  return existsSync(dataDir) ? readdirSync(dataDir) : [];
}

const martians = 'net.ipv4.conf.IFNAME.log_martians';

describe('ADD', () => {
  it('88. sets sysctls in the namespace of the container, and there alone', async () => {
    await works({ conf: { sysctl: { [martians]: '1', 'net.core.somaxconn': '500' } } });
    expect(await sysctl('net.ipv4.conf.eth0.log_martians')).toBe('1');
    expect(await sysctl('net.core.somaxconn')).toBe('500');
    const { stdout } = await node.netns.exec('sysctl', ['-n', 'net.core.somaxconn']);
    expect(stdout).not.toBe('500');
    expect(files()).toEqual([]);
  });

  it.each([
    ['88.', { sysctl: { 'kernel.panic': '1' } }, /^invalid net sysctl key: "kernel.panic"/],
    ['88.', { sysctl: { 'net/../kernel/panic': '1' } }, /^invalid net sysctl key/],
    ['90.', { sysctl: { 'net.core.nothing': '1' } }, /net\/core\/nothing/],
  ])('%s %j is refused, and nothing is changed', async (_, conf, msg) => {
    const before = await link();
    const { json } = await call({ conf: { ...all, ...conf } });
    expect(json.msg).toMatch(msg);
    expect(await link()).toEqual(before);
    expect(files()).toEqual([]);
  });

  it('89. sets attributes, keeps what they were; DEL restores them', async () => {
    const before = await link();
    const { json } = await works({ conf: { ...all, txQLen: 77 } });
    expect(json.interfaces).toEqual([
      { name: 'eth0', mac: '0a:00:00:00:00:01' },
      { name: 'eth0', mac, mtu: 1400, sandbox: pod.path },
    ]);
    expect(await link()).toMatchObject({ address: mac, mtu: 1400, promiscuity: 1, txqlen: 77 });
    expect(await link()).toMatchObject({ flags: expect.arrayContaining(['ALLMULTI', 'PROMISC']) });
    expect(files()).toEqual(['pod-1_eth0.json']);
    expect(JSON.parse(readFileSync(join(dataDir, 'pod-1_eth0.json'), 'utf8'))).toEqual({
      mac: '02:00:00:00:00:01',
      promisc: false,
      mtu: 1450,
      allmulti: false,
      txQLen: 1000,
      network: 'net',
    });
    await works({ conf: { ...all, txQLen: 77 }, command: 'DEL', withoutResult: true });
    expect(await link()).toEqual(before);
    expect(files()).toEqual([]);
    await works({ command: 'DEL' });
  });

  it.skipIf(!go)('89. each restores what the other kept', async () => {
    const before = await link();
    for (const [adds, deletes] of [
      [true, false],
      [false, true],
    ]) {
      await works({ conf: all, go: adds === true, cniVersion: '1.0.0' });
      expect(await link()).toMatchObject({ address: mac, mtu: 1400, promiscuity: 1 });
      await works({ conf: all, command: 'CHECK', go: adds !== true, cniVersion: '1.0.0' });
      await works({ conf: all, command: 'DEL', go: deletes === true, cniVersion: '1.0.0' });
      expect(await link()).toEqual(before);
      expect(files()).toEqual([]);
    }
  });

  it('89. a new MAC address is announced to the neighbours', async () => {
    await pod.ip('addr add 10.1.2.3/24 dev eth0');
    const count =
      'add table netdev t; add chain netdev t c { type filter hook ingress device peer0 priority 0; }; add rule netdev t c ether type arp arp operation request counter';
    await pod.exec('nft', [count]);
    await works({ conf: { mac } });
    const { stdout } = await pod.exec('nft', ['list', 'table', 'netdev', 't']);
    expect(stdout).toMatch(/counter packets [1-9]/);
    expect(await sysctl('net.ipv4.conf.eth0.arp_notify')).toBe('0');
  });

  it('an ADD that fails half-way leaves all as it was', async () => {
    const before = await link();
    const conf = { ...all, mtu: 1_000_000, sysctl: { [martians]: '1' } };
    expect((await call({ conf })).exitCode).toBe(1);
    expect(await link()).toEqual(before);
    expect(await sysctl('net.ipv4.conf.eth0.log_martians')).toBe('0');
    expect(files()).toEqual([]);
  });

  it('needs a result, and a namespace', async () => {
    for (const command of ['ADD', 'CHECK']) {
      const { json } = await call({ command, withoutResult: true });
      expect(json.msg).toBe('Required prevResult missing');
      expect((await call({ command, netns: '/run/netns/gone' })).json.code).toBe(8);
    }
  });
});

describe('the allowlist of the node', () => {
  /** The plugin with an /etc of its own. */
  function withAllowlist(text: string): string {
    const program = join(node.dataDir, 'tuning');
    const etc = join(node.dataDir, 'etc/cni/tuning');
    mkdirSync(etc, { recursive: true });
    writeFileSync(join(etc, 'allowlist.conf'), text);
    const script = `mount --bind ${node.dataDir}/etc /etc && exec ${node.binDir}/tuning`;
    writeFileSync(program, `#!/bin/sh\nexec unshare --mount sh -c '${script}'\n`);
    chmodSync(program, 0o755);
    return program;
  }

  it.each([
    ['^net\\.ipv4\\.conf\\.IFNAME\\.log_martians$\n', undefined],
    ['^net\\.core\\..*$\n', `Sysctl ${martians} is not allowed`],
    ['log_martians', `Sysctl ${martians} is not allowed`],
  ])('90. %j', async (text, refusal) => {
    const config = {
      cniVersion: '1.1.0',
      name: 'net',
      type: 'tuning',
      dataDir,
      sysctl: { [martians]: '1' },
      prevResult: prevResult(),
    };
    const program = withAllowlist(text);
    const { json } = await node.cni('tuning', { program, netns: pod.path, config });
    expect(await sysctl('net.ipv4.conf.eth0.log_martians')).toBe(refusal === undefined ? '1' : '0');
    if (refusal === undefined) expect(json.msg).toBeUndefined();
    else expect(json.msg).toContain(refusal);
  });
});

describe('CHECK', () => {
  const conf = { ...all, txQLen: 77, sysctl: { [martians]: '1' } };
  it.each([
    ['sysctl -qw net.ipv4.conf.eth0.log_martians=0', /log_martians is 1, current value is 0/],
    ['ip link set eth0 address 02:00:00:00:00:09', /Ethernet of eth0 is .*:05, current.*:09/],
    ['ip link set eth0 mtu 1300', /MTU of eth0 is 1400, current value is 1300/],
    ['ip link set eth0 promisc off', /promisc of eth0 is true, current value is false/],
    ['ip link set eth0 allmulticast off', /all-multicast mode of eth0 is true, current .* false/],
    ['ip link set eth0 txqueuelen 5', /queue length of eth0 is 77, current value is 5/],
    ['ip link del eth0', /Cannot find container link eth0|log_martians is 1, current .* missing/],
  ])('91. after `%s` is an error that says so', async (command, msg) => {
    await works({ conf });
    await works({ conf, command: 'CHECK' });
    await pod.exec('sh', ['-c', command]);
    const { exitCode, json } = await call({ conf, command: 'CHECK' });
    expect({ exitCode, json }).toMatchObject({
      exitCode: 1,
      json: { msg: expect.stringMatching(msg) },
    });
  });
});

describe('DEL and GC', () => {
  it.each([
    ['no namespace', ''],
    ['a path that is gone', '/run/netns/gone'],
  ])('143. DEL with %s succeeds and leaves no file', async (_, netns) => {
    await works({ conf: all });
    await works({ conf: all, command: 'DEL', netns, withoutResult: true });
    expect(files()).toEqual([]);
  });

  it('DEL with a file that is no JSON succeeds', async () => {
    await works({ conf: all });
    writeFileSync(join(dataDir, 'pod-1_eth0.json'), '{');
    await works({ conf: all, command: 'DEL' });
    expect(files()).toEqual([]);
  });

  it('145. GC removes what is in no valid attachment of this network, and only that', async () => {
    const gc = (more: object): Promise<CniOutcome> =>
      call({ command: 'GC', withoutResult: true, more });
    await works({ conf: all, id: 'other', network: 'net2' });
    await works({ conf: all, id: 'kept' });
    await works({ conf: all, id: 'stale' });
    writeFileSync(join(dataDir, 'reference_eth0.json'), '{"mtu":1500}');
    expect((await gc({})).json).toMatchObject({ code: 7 });
    expect(files()).toHaveLength(4);
    const attachments = [{ containerID: 'kept', ifname: 'eth0' }];
    await gc({ 'cni.dev/valid-attachments': attachments });
    expect(files()).toEqual(['kept_eth0.json', 'other_eth0.json', 'reference_eth0.json']);
    await gc({ 'cni.dev/valid-attachments': [] });
    expect(files()).toEqual(['other_eth0.json', 'reference_eth0.json']);
  });
});
