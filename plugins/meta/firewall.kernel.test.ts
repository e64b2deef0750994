import { existsSync } from 'node:fs';
import { beforeEach, describe, expect, it } from 'vitest';
import { eachOnScratchNode } from '#cmd/podwire-cni/scratch-each.ts';
import { goPluginDir, type CniOutcome, type ScratchNode } from '#cmd/podwire-cni/scratch-node.ts';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import {
  addChain,
  ask,
  briefly,
  callPlugin,
  connectOutside,
  delChain,
  nftRules,
  savedRules,
  startServer,
} from './scratch-chain.ts';

let node: ScratchNode;
eachOnScratchNode((fresh) => {
  node = fresh;
});

const go = existsSync(`${goPluginDir}/firewall`);

function prevResult(n = 3): object {
  return {
    cniVersion: '1.0.0',
    interfaces: [{ name: 'cni0' }, { name: 'veth1' }, { name: 'eth0', sandbox: '/run/netns/x' }],
    ips: [
      { interface: 2, address: `10.1.2.${n}/24`, gateway: '10.1.2.1' },
      { interface: 2, address: `fd00:1::${n}/64`, gateway: 'fd00:1::1' },
    ],
  };
}

interface Ask {
  readonly command?: string;
  readonly id?: string;
  readonly network?: string;
  readonly conf?: object;
  /** The container's address ends so; 0 for no prevResult. */
  readonly n?: number;
  readonly go?: boolean;
  readonly netns?: string;
  readonly more?: object;
  readonly cniVersion?: string;
}

function call({ command = 'ADD', conf = {}, n = 3, ...rest }: Ask): Promise<CniOutcome> {
  return callPlugin(node, {
    cniVersion: '1.0.0',
    netns: '/run/netns/x',
    ...rest,
    command,
    plugin: { type: 'firewall', ...conf },
    prevResult: n === 0 ? undefined : prevResult(n),
  });
}

async function works(ask_: Ask): Promise<CniOutcome> {
  const outcome = await call(ask_);
  expect(outcome).toMatchObject({ exitCode: 0, stderr: '' });
  return outcome;
}

async function rules(): Promise<string> {
  return `${await savedRules(node.netns, 'filter')}${await nftRules(node.netns)}`;
}

/** Without the comments by which we find our rules again. */
function withoutLabels(text: string): string {
  return text.replaceAll(/ -m comment --comment "CNI firewall net [^"]*"/g, '');
}

describe('configuration', () => {
  it.each([
    [{ backend: 'firewalld' }, 999, /firewalld does not answer/],
    [{ backend: 'ipfw' }, 7, /"backend": expected "iptables", "nftables" or "firewalld"/],
    [{ ingressPolicy: 'closed' }, 7, /^unknown ingress policy: "closed"/],
    [{ iptablesAdminChainName: 'a chain' }, 7, /"iptablesAdminChainName": expected/],
  ])('119. %j is refused', async (conf, code, msg) => {
    expect((await call({ conf })).json).toMatchObject({ code, msg: expect.stringMatching(msg) });
    expect(await rules()).not.toContain('CNI');
  });

  it('without prevResult ADD and CHECK are errors', async () => {
    for (const command of ['ADD', 'CHECK']) {
      const { json } = await call({ command, n: 0 });
      expect(json.msg).toBe('missing prevResult from earlier plugin');
    }
  });

  it('passes the result through, and STATUS succeeds', async () => {
    expect((await works({})).json).toMatchObject(prevResult());
    await works({ command: 'STATUS', cniVersion: '1.1.0' });
  });
});

describe('rules are those of the reference plugin, with a comment that says whose', () => {
  it.skipIf(!go).each([
    ['116. open', {}],
    ['118. same-bridge', { ingressPolicy: 'same-bridge' }],
    ['117. an admin chain of another name', { iptablesAdminChainName: 'MINE' }],
  ])('%s', async (_, more) => {
    const conf = { backend: 'iptables', ...more };
    await works({ conf, go: true });
    const reference = await savedRules(node.netns, 'filter');
    // A container that the reference plugin added passes, and goes with its result.
    await works({ conf, command: 'CHECK' });
    await works({ conf, command: 'DEL' });
    const empty = await savedRules(node.netns, 'filter');
    await works({ conf });
    const ours = await savedRules(node.netns, 'filter');
    expect(ours).not.toBe(reference);
    expect(withoutLabels(ours)).toBe(reference);
    await works({ conf, command: 'CHECK' });
    await works({ conf, n: 0, command: 'DEL' });
    expect(await savedRules(node.netns, 'filter')).toBe(empty);
  });

  it('116. CNI-FORWARD is first in FORWARD, the admin chain first in it, two rules an address', async () => {
    await node.netns.exec('iptables', ['-A', 'FORWARD', '-j', 'DROP']);
    await works({ conf: { backend: 'iptables' } });
    const { stdout } = await node.netns.exec('iptables', ['-S']);
    const [first] = stdout.split('\n').filter((line) => line.startsWith('-A FORWARD'));
    expect(first).toContain('-j CNI-FORWARD');
    const forward = stdout.split('\n').filter((line) => line.startsWith('-A CNI-FORWARD'));
    expect(forward[0]).toContain('-j CNI-ADMIN');
    expect(forward).toHaveLength(3);
  });

  it("117. a person's own rules stay", async () => {
    await node.netns.exec('iptables', ['-N', 'MINE']);
    await node.netns.exec('iptables', ['-A', 'MINE', '-d', '10.1.2.9', '-j', 'DROP']);
    const conf = { backend: 'iptables', iptablesAdminChainName: 'MINE' };
    await works({ conf });
    await works({ conf, command: 'DEL', n: 0 });
    const { stdout } = await node.netns.exec('iptables', ['-S', 'MINE']);
    expect(stdout).toContain('-d 10.1.2.9/32 -j DROP');
  });
});

describe.each(['iptables', 'nftables'])('%s', (backend) => {
  const conf = { backend };

  it('116. ADD again leaves one set; DEL twice takes just the container’s', async () => {
    await works({ conf, id: 'other', n: 9 });
    const before = await rules();
    await works({ conf });
    const once = await rules();
    await works({ conf });
    expect(await rules()).toBe(once);
    await works({ conf, n: 4 });
    expect(await rules()).not.toContain('10.1.2.3');
    await works({ conf, n: 4, command: 'CHECK' });
    await works({ conf, command: 'DEL' });
    await works({ conf, command: 'DEL' });
    expect(await rules()).toBe(before);
  });

  it('117. CHECK after a rule was deleted is an error', async () => {
    const policy = { ...conf, ingressPolicy: 'isolated' };
    await works({ conf: policy });
    let checked = 0;
    const chains = ['FORWARD', 'CNI-FORWARD', 'CNI-ISOLATION-STAGE-1', 'CNI-ISOLATION-STAGE-2'];
    for (const name of chains) {
      const chain = backend === 'nftables' && name === 'FORWARD' ? 'forward' : name;
      for (let n = 1; n <= 2; n++) {
        const list = `nft -a list chain inet cni_firewall ${chain} | grep -o 'handle [0-9]*'`;
        const script =
          backend === 'iptables'
            ? `iptables -D ${chain} ${n}`
            : `nft delete rule inet cni_firewall ${chain} $(${list} | sed -n ${n + 1}p)`;
        const there = await node.netns.exec('sh', ['-c', script]).then(
          () => true,
          () => false,
        );
        if (!there) continue;
        checked += 1;
        const { exitCode, json } = await call({ conf: policy, command: 'CHECK' });
        expect({ script, exitCode, json }).toMatchObject({
          exitCode: 1,
          json: { msg: expect.stringMatching(/^expected .* not found|found \d$/) },
        });
        await works({ conf: policy });
        await works({ conf: policy, command: 'CHECK' });
      }
    }
    expect(checked).toBeGreaterThanOrEqual(7);
  });

  it.each([
    ['143. DEL with empty CNI_NETNS and no prevResult', { netns: '' }],
    ['147. DEL with a network renamed since', { network: 'new' }],
    ['143. DEL with the other backend configured since', { conf: {} }],
  ])('%s leaves nothing', async (_, more) => {
    await works({ conf, id: 'other', n: 9 });
    const before = await rules();
    await works({ conf });
    await works({ conf, n: 0, ...more, command: 'DEL' });
    expect(await rules()).toBe(before);
  });

  it('145. GC removes what is in no valid attachment of this network, and only that', async () => {
    const gc = (more: object): Promise<CniOutcome> =>
      call({ command: 'GC', conf, n: 0, more, cniVersion: '1.1.0' });
    await works({ conf, id: 'other', network: 'net2', n: 5 });
    const others = await rules();
    await works({ conf, id: 'kept', n: 6 });
    const kept = await rules();
    await works({ conf, id: 'stale', n: 7 });
    const all = await rules();
    expect((await gc({})).json).toMatchObject({ code: 7 });
    expect(await rules()).toBe(all);
    const attachments = [{ containerID: 'kept', ifname: 'eth0' }];
    expect((await gc({ 'cni.dev/valid-attachments': attachments })).exitCode).toBe(0);
    expect(await rules()).toBe(kept);
    expect((await gc({ 'cni.dev/valid-attachments': [] })).exitCode).toBe(0);
    expect(await rules()).toBe(others);
  });

  it('twenty containers at once: each has its rules, shared ones are there once', async () => {
    const policy = { ...conf, ingressPolicy: 'same-bridge' };
    const ids = Array.from({ length: 20 }, (_, i) => ({ conf: policy, id: `pod-${i}`, n: 10 + i }));
    await Promise.all(ids.map(works));
    for (const id of ids) await works({ ...id, command: 'CHECK' });
    const family = backend === 'iptables' ? 'ip' : 'inet';
    const { stdout } = await node.netns.exec('nft', ['-s', 'list', 'ruleset', family]);
    expect(stdout.match(/jump CNI-ISOLATION-STAGE-1/g)).toHaveLength(1);
    expect(stdout.match(/jump CNI-FORWARD/g)).toHaveLength(1);
    await Promise.all(ids.map((id) => works({ ...id, command: 'DEL' })));
    expect(await rules()).not.toContain('10.1.2.1');
  });
});

describe('packets', () => {
  let pods: ScratchNetns[];
  let outside: ScratchNetns;
  beforeEach(async () => {
    pods = [await node.pod(), await node.pod(), await node.pod()];
    outside = await node.pod();
    await connectOutside(node.netns, outside);
    for (const [subnet, via] of [
      ['10.1.0.0/16', '192.0.2.1'],
      ['fd00:1::/32', 'fd00:9::1'],
    ]) {
      await outside.ip(`route add ${subnet} via ${via}`);
    }
  });

  /** Pods 0 and 1 are on one bridge, pod 2 on another. */
  function chainOf(i: number, conf: object) {
    const b = i === 2 ? 2 : 1;
    const ranges = [[{ subnet: `10.1.${b}.0/24` }], [{ subnet: `fd00:1:0:${b}::/64` }]];
    const ipam = { type: 'host-local', dataDir: node.dataDir, ranges };
    return {
      id: `pod-${i}`,
      network: `net${b}`,
      netns: pods[i]?.path ?? '',
      plugins: [
        { type: 'bridge', bridge: `br${b}`, isDefaultGateway: true, ipam },
        { type: 'firewall', ...conf },
      ],
    };
  }

  async function addPods(conf: object): Promise<void> {
    for (const [i, pod] of pods.entries()) {
      expect(await addChain(node, chainOf(i, conf))).toMatchObject({ exitCode: 0 });
      await startServer(pod, `pod${i}`, [80]);
    }
    await startServer(outside, 'outside', [80]);
    const settled = async (): Promise<boolean> =>
      !(await node.netns.ip('-6 addr')).includes('tentative');
    await expect.poll(settled).toBe(true);
  }

  /** Whether pod 0 gets an answer from its neighbour, the other bridge, outside. */
  async function reaches(): Promise<Record<string, string[]>> {
    const [pod] = pods;
    if (pod === undefined) throw new Error('No pods');
    const hosts = {
      neighbour: ['10.1.1.3', 'fd00:1:0:1::3'],
      otherBridge: ['10.1.2.2', 'fd00:1:0:2::2'],
      outside: ['192.0.2.2', 'fd00:9::2'],
    };
    const answers: Record<string, string[]> = {};
    for (const [name, addresses] of Object.entries(hosts)) {
      const got = await ask(
        pod,
        addresses.map((host) => ['tcp', host, 80] as const),
        briefly,
      );
      answers[name] = got.map((text) => text.split(' ')[0] ?? '');
    }
    return answers;
  }

  const no = ['no', 'no'];
  const yes = (name: string): string[] => [name, name];

  it.each(['iptables', 'nftables'])('118. %s: open lets all through', async (backend) => {
    await addPods({ backend });
    await expect.poll(reaches).toEqual({
      neighbour: yes('pod1'),
      otherBridge: yes('pod2'),
      outside: yes('outside'),
    });
  });

  it.each(['iptables', 'nftables'])('118. %s: same-bridge keeps bridges apart', async (backend) => {
    await addPods({ backend, ingressPolicy: 'same-bridge' });
    await expect.poll(reaches).toEqual({
      neighbour: yes('pod1'),
      otherBridge: no,
      outside: yes('outside'),
    });
  });

  it.each([
    ['iptables', '1'],
    ['iptables', '0'],
    ['nftables', '0'],
  ])('118. %s: isolated keeps pods apart, with br_netfilter %s', async (backend, bridged) => {
    const probe = await node.netns
      .exec('sysctl', ['-qw', `net.bridge.bridge-nf-call-iptables=${bridged}`])
      .catch(() => undefined);
    if (probe === undefined && bridged === '1') return;
    await addPods({ backend, ingressPolicy: 'isolated' });
    await expect.poll(reaches).toEqual({
      neighbour: no,
      otherBridge: no,
      outside: yes('outside'),
    });
  });

  it('116. a host that drops what it forwards lets containers through, and their answers', async () => {
    for (const program of ['iptables', 'ip6tables']) {
      await node.netns.exec(program, ['-P', 'FORWARD', 'DROP']);
    }
    await addPods({ backend: 'iptables' });
    await expect.poll(reaches).toMatchObject({ outside: yes('outside') });
    // Only answers: nobody outside opens a connection.
    expect(await ask(outside, [['tcp', '10.1.1.2', 80]], briefly)).toEqual(['no answer']);
    await node.netns.exec('iptables', ['-A', 'CNI-ADMIN', '-d', '10.1.1.2', '-j', 'ACCEPT']);
    expect(await ask(outside, [['tcp', '10.1.1.2', 80]])).toEqual(['pod0 192.0.2.2']);
    expect(await delChain(node, chainOf(0, { backend: 'iptables' }))).toMatchObject({
      exitCode: 0,
    });
  });
});
