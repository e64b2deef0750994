import { existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync, chmodSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { eachOnScratchNode } from '#cmd/podwire-cni/scratch-each.ts';
import { goPluginDir, type CniOutcome, type ScratchNode } from '#cmd/podwire-cni/scratch-node.ts';
import { callPlugin, nftRules, savedRules } from './scratch-chain.ts';

let node: ScratchNode;
eachOnScratchNode((fresh) => {
  node = fresh;
});

const go = existsSync(`${goPluginDir}/portmap`);
const backends = ['iptables', 'nftables'] as const;

function prevResult(n = 3): object {
  return {
    cniVersion: '1.0.0',
    interfaces: [{ name: 'cni0' }, { name: 'veth1' }, { name: 'eth0', sandbox: '/run/netns/x' }],
    ips: [
      { interface: 0, address: '10.1.2.1/24' },
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
  readonly ports?: readonly object[] | undefined;
  /** The container's address ends so; 0 for no prevResult. */
  readonly n?: number;
  readonly go?: boolean;
  readonly cniVersion?: string;
  readonly netns?: string;
}

const web = { hostPort: 8080, containerPort: 80, protocol: 'tcp' };
const dns = { hostPort: 53, containerPort: 5353, protocol: 'udp' };

function call({ command = 'ADD', conf = {}, ports = [web], n = 3, ...rest }: Ask) {
  return callPlugin(node, {
    cniVersion: '1.0.0',
    netns: '/run/netns/x',
    ...rest,
    command,
    plugin: { type: 'portmap', ...conf },
    runtimeConfig: { portMappings: ports },
    prevResult: n === 0 ? undefined : prevResult(n),
  });
}

async function works(ask: Ask): Promise<CniOutcome> {
  const outcome = await call(ask);
  expect(outcome).toMatchObject({ exitCode: 0, stderr: '' });
  return outcome;
}

/** All rules of the node. */
async function rules(): Promise<string> {
  return `${await savedRules(node.netns, 'nat')}${await nftRules(node.netns)}`;
}

describe('configuration', () => {
  it('97. without port mappings everything passes through', async () => {
    const { json } = await works({ ports: [] });
    expect(json).toMatchObject(prevResult());
    await works({ ports: [], command: 'CHECK' });
    await works({ ports: [], command: 'DEL' });
    expect(await rules()).not.toContain('CNI-');
  });

  it('97. without prevResult it must be called as chained plugin', async () => {
    expect((await call({ n: 0 })).json).toMatchObject({ msg: 'must be called as chained plugin' });
  });

  it.each([
    ['98. hostPort 0', { ...web, hostPort: 0 }, 'Invalid host port number: 0'],
    ['98. containerPort 0', { ...web, containerPort: 0 }, 'Invalid container port number: 0'],
    ['98. hostPort 65536', { ...web, hostPort: 65_536 }, 'Invalid host port number: 65536'],
    ['98. no hostPort', { containerPort: 1, protocol: 'tcp' }, 'Invalid host port number: 0'],
    [
      '98. protocol icmp',
      { ...web, protocol: 'icmp' },
      expect.stringContaining('tcp, udp or sctp'),
    ],
  ])('%s is an error', async (_, port, msg) => {
    expect((await call({ ports: [port] })).json).toMatchObject({ code: 7, msg });
  });

  it("98. containerd's spelling of the keys is read", async () => {
    const port = { HostPort: 8080, ContainerPort: 80, Protocol: 'TCP', HostIP: '' };
    await works({ ports: [port] });
    expect(await savedRules(node.netns, 'nat')).toContain(
      '--dport 8080 -j DNAT --to-destination 10.1.2.3:80',
    );
  });

  it.each([
    ['100.', { backend: 'nftables', conditionsV4: ['-s', '1.2.3.4'] }, /backend mismatch/],
    [
      '100.',
      { backend: 'iptables', conditionsV6: ['ip6', 'saddr', 'fd00::1'] },
      /backend mismatch/,
    ],
    ['103.', { backend: 'nftables', externalSetMarkChain: 'MARKS' }, /backend mismatch/],
    ['103.', { markMasqBit: 1, externalSetMarkChain: 'MARKS' }, /^Cannot specify externalSet/],
    ['103.', { markMasqBit: 32 }, /^MasqMarkBit must be between 0 and 31/],
    ['99.', { backend: 'ipfw' }, /"backend": expected "iptables" or "nftables"/],
  ])('%s %j is refused', async (_, conf, msg) => {
    const { json } = await call({ conf });
    expect(json).toMatchObject({ code: 7, msg: expect.stringMatching(msg) });
    expect(await rules()).not.toContain('8080');
  });

  it.each([
    ['iptables', ['iptables', 'iptables-save', 'iptables-restore', 'nft'], 'CNI-HOSTPORT-DNAT'],
    ['nftables', ['nft'], 'table ip cni_hostport'],
    ['an error', [], undefined],
  ])('99. the backend is %s where there is %j', async (_, tools, found) => {
    const directory = mkdtempSync(join(tmpdir(), 'podwire-tools-'));
    try {
      for (const tool of tools) symlinkSync(`/usr/sbin/${tool}`, join(directory, tool));
      const program = join(directory, 'run');
      writeFileSync(program, `#!/bin/sh\nPATH=${directory}\nexec ${node.binDir}/portmap\n`);
      chmodSync(program, 0o755);
      const config = {
        cniVersion: '1.0.0',
        name: 'net',
        type: 'portmap',
        prevResult: { cniVersion: '1.0.0', ips: [{ address: '10.1.2.3/24' }] },
        runtimeConfig: { portMappings: [web] },
      };
      const netns = '/run/netns/x';
      const { json } = await node.cni('portmap', { program, config, netns });
      if (found === undefined) {
        expect(json.msg).toContain('neither iptables nor nftables is usable');
        const status = { program, command: 'STATUS', config: { ...config, cniVersion: '1.1.0' } };
        expect((await node.cni('portmap', status)).json).toMatchObject({ code: 50 });
        return;
      }
      expect(json.msg).toBeUndefined();
      expect(await rules()).toContain(found);
      const status = { program, command: 'STATUS', config: { ...config, cniVersion: '1.1.0' } };
      expect(await node.cni('portmap', status)).toMatchObject({ exitCode: 0 });
      for (const command of ['CHECK', 'DEL']) {
        expect(await node.cni('portmap', { program, config, netns, command })).toMatchObject({
          exitCode: 0,
        });
      }
      expect(await rules()).not.toContain('8080');
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  it('STATUS says whether the backend is there', async () => {
    for (const backend of backends) {
      await works({ command: 'STATUS', conf: { backend }, cniVersion: '1.1.0' });
    }
  });
});

const many = Array.from({ length: 17 }, (_, i) => ({ ...web, hostPort: 9000 + i }));

const cases: readonly (readonly [string, object, readonly object[]])[] = [
  ['101. two TCP ports and one of UDP', {}, [web, { ...web, hostPort: 8081 }, dns]],
  ['101. more ports than one multiport rule takes', {}, [...many, dns]],
  [
    '102. host addresses',
    {},
    [
      { ...web, hostIP: '127.0.0.1' },
      { ...dns, hostIP: '::' },
      { ...web, hostPort: 81, hostIP: '0.0.0.0' },
      { ...web, hostPort: 82, hostIP: 'fd00:9::1' },
      { ...web, hostPort: 83, hostIP: '192.0.2.1' },
    ],
  ],
  ['103. snat false', { snat: false }, [web, dns]],
  ['103. another mark', { markMasqBit: 20 }, [web]],
  [
    '103. conditions',
    {
      conditionsV4: ['!', '-s', '192.0.2.0/24', '-m', 'comment', '--comment', 'a "b" c'],
      conditionsV6: ['-i', 'eth1'],
    },
    [web, dns],
  ],
];

describe.skipIf(!go)('rules are the very text that the reference plugin makes', () => {
  it.each(cases)('%s', async (_, conf, ports) => {
    await works({ conf, ports, go: true });
    const reference = await savedRules(node.netns, 'nat');
    // Over the reference's rules: one set, the same.
    await works({ conf, ports });
    expect(await savedRules(node.netns, 'nat')).toBe(reference);
    await works({ conf, ports, command: 'CHECK' });
    // Each takes away what the other made.
    await works({ conf, ports, command: 'DEL', go: true });
    const empty = await savedRules(node.netns, 'nat');
    await works({ conf, ports });
    expect(await savedRules(node.netns, 'nat')).toBe(reference);
    await works({ conf, ports, command: 'DEL' });
    expect(await savedRules(node.netns, 'nat')).toBe(empty);
  });

  it('103. masqAll marks whatever its source', async () => {
    await works({ conf: { masqAll: true } });
    const saved = await savedRules(node.netns, 'nat');
    const marks = saved.split('\n').filter((line) => line.endsWith('-j CNI-HOSTPORT-SETMARK'));
    expect(marks).toHaveLength(2);
    for (const mark of marks) expect(mark).not.toContain(' -s ');
    await works({ conf: { masqAll: true }, command: 'CHECK' });
  });

  it("103. a chain of somebody else's that sets the mark", async () => {
    await node.netns.exec('iptables', ['-t', 'nat', '-N', 'MARKS']);
    await node.netns.exec('ip6tables', ['-t', 'nat', '-N', 'MARKS']);
    const conf = { externalSetMarkChain: 'MARKS' };
    await works({ conf, go: true });
    const reference = await savedRules(node.netns, 'nat');
    expect(reference).toContain('--dport 8080 -j MARKS');
    expect(reference).not.toContain('CNI-HOSTPORT-SETMARK');
    await works({ conf, command: 'DEL' });
    await works({ conf });
    expect(await savedRules(node.netns, 'nat')).toBe(reference);
  });
});

describe.each(backends)('%s', (backend) => {
  const conf = { backend };

  it('107. ADD again leaves one set of rules', async () => {
    await works({ conf, ports: [web, dns] });
    const once = await rules();
    await works({ conf, ports: [web, dns] });
    expect(await rules()).toBe(once);
    await works({ conf, ports: [dns] });
    expect(await rules()).not.toContain('8080');
    await works({ conf, ports: [dns], command: 'CHECK' });
  });

  it('107. twenty DELs at once and one more: all succeed, nothing is left', async () => {
    await works({ conf, n: 9, id: 'other', ports: [dns] });
    const before = await rules();
    await works({ conf });
    await Promise.all(Array.from({ length: 20 }, () => works({ conf, command: 'DEL' })));
    await works({ conf, command: 'DEL' });
    expect(await rules()).toBe(before);
  });

  it('107. twenty ADDs at once: each has its port, shared rules are there once', async () => {
    const pods = Array.from({ length: 20 }, (_, i) => ({
      conf,
      id: `pod-${i}`,
      n: 10 + i,
      ports: [{ ...web, hostPort: 9000 + i }],
    }));
    await Promise.all(pods.map(works));
    for (const pod of pods) await works({ ...pod, command: 'CHECK' });
    const { stdout } = await node.netns.exec('iptables-save', ['-t', 'nat']);
    const added = stdout.split('\n').filter((line) => line.startsWith('-A'));
    expect(new Set(added).size).toBe(added.length);
    await Promise.all(pods.map((pod) => works({ ...pod, command: 'DEL' })));
    expect(await rules()).not.toMatch(/dport 90/);
  });

  it('108. CHECK after any one rule was deleted is an error', async () => {
    const ports = [web, { ...dns, hostIP: '192.0.2.1' }];
    await works({ conf, ports });
    const deleted = await deletions(backend);
    expect(deleted.length).toBeGreaterThan(10);
    for (const [program, args] of deleted) {
      await works({ conf, ports });
      await node.netns.exec(program, args);
      const { exitCode, json } = await call({ conf, ports, command: 'CHECK' });
      expect({ args, exitCode, json }).toMatchObject({
        exitCode: 1,
        json: { msg: expect.stringMatching(/could not check ipv[46] dnat: /) },
      });
    }
  });

  it.each([
    ['empty CNI_NETNS and no prevResult', { n: 0, netns: '' }],
    ['a path that is gone', { n: 0, netns: '/run/netns/gone' }],
    ['no port mappings any more', { n: 0, netns: '', ports: [] }],
    ['the other backend configured since', { conf: {}, n: 0 }],
  ])('143. DEL with %s leaves nothing', async (_, ask) => {
    await works({ conf, n: 9, id: 'other', ports: [{ ...web, hostPort: 1 }] });
    const before = await rules();
    await works({ conf, ports: [web, dns] });
    expect(await rules()).not.toBe(before);
    await works({ conf, ...ask, command: 'DEL' });
    expect(await rules()).toBe(before);
  });

  it('145. GC removes what is in no valid attachment of this network, and only that', async () => {
    const gc = (more: object): Promise<CniOutcome> =>
      callPlugin(node, { command: 'GC', plugin: { type: 'portmap', ...conf }, more });
    const port = (hostPort: number): Ask => ({ conf, ports: [{ ...web, hostPort }] });
    await works({ ...port(1), id: 'other', network: 'net2', n: 5 });
    const others = await rules();
    await works({ ...port(2), id: 'kept', n: 6 });
    const kept = await rules();
    await works({ ...port(3), id: 'stale', n: 7 });
    const all = await rules();
    expect((await gc({})).json).toMatchObject({ code: 7 });
    expect(await rules()).toBe(all);
    const attachments = [{ containerID: 'kept', ifname: 'eth0' }];
    expect((await gc({ 'cni.dev/valid-attachments': attachments })).exitCode).toBe(0);
    expect(await rules()).toBe(kept);
    expect((await gc({ 'cni.dev/valid-attachments': [] })).exitCode).toBe(0);
    expect(await rules()).toBe(others);
  });

  it('147. a network renamed since ADD: DEL finds the rules all the same', async () => {
    await works({ conf, n: 9, id: 'other', ports: [dns] });
    const before = await rules();
    await works({ conf, network: 'old' });
    await works({ conf, network: 'new', n: 0, command: 'DEL', netns: '' });
    expect(await rules()).toBe(before);
  });

  it('147. ports of the container by another interface are not those', async () => {
    const pod = await node.pod();
    await pod.ip('link add eth0 type veth peer name e0');
    await pod.ip('link add net1 type veth peer name e1');
    await pod.ip('addr add 10.1.2.3/24 dev eth0');
    await pod.ip('addr add fd00:1::3/64 dev eth0');
    await works({ conf, network: 'a', netns: pod.path });
    const before = await rules();
    const del = { command: 'DEL', id: 'pod-1', netns: pod.path, plugin: { type: 'portmap' } };
    const second = await callPlugin(node, { ...del, network: 'b', ifName: 'net1' });
    expect(second.exitCode).toBe(0);
    expect(await rules()).toBe(before);
  });

  it('148. a host port that another container has: code 100, and who has it', async () => {
    await works({ conf, id: 'first', network: 'a' });
    const before = await rules();
    const { json } = await call({ conf, id: 'second', network: 'b', n: 4, ports: [dns, web] });
    expect(json).toMatchObject({
      code: 100,
      msg: 'Cannot map host port tcp 8080: container first of network a has it',
      details: expect.stringContaining('10.1.2.3'),
    });
    expect(await rules()).toBe(before);
    await works({ conf, id: 'first', network: 'a', command: 'DEL' });
    await works({ conf, id: 'second', network: 'b', n: 4, ports: [dns, web] });
  });

  it('148. the same port of the other protocol, or of another host address, is free', async () => {
    await works({ conf, id: 'a', ports: [{ ...web, hostIP: '192.0.2.1' }] });
    await works({ conf, id: 'b', n: 4, ports: [{ ...web, hostIP: '192.0.2.9' }] });
    await works({ conf, id: 'c', n: 5, ports: [{ ...web, protocol: 'udp' }] });
    expect((await call({ conf, id: 'd', n: 6 })).json).toMatchObject({ code: 100 });
  });

  it('148. what leads to an address that is now of this container is stale, and goes', async () => {
    await works({ conf, id: 'dead' });
    await works({ conf, id: 'new' });
    expect(await rules()).not.toContain('dead');
    await works({ conf, id: 'new', command: 'CHECK' });
    await works({ conf, id: 'dead', command: 'DEL' });
    await works({ conf, id: 'new', command: 'CHECK' });
  });

  it('103. two networks keep their conditions, and may share a port by them', async () => {
    const on = (link: string): object => ({
      ...conf,
      conditionsV4: backend === 'iptables' ? ['-i', link] : ['iifname', link],
      conditionsV6: backend === 'iptables' ? ['-i', link] : ['iifname', link],
    });
    await works({ conf: on('eth1'), network: 'a', id: 'a' });
    const first = (await rules()).split('\n').filter((line) => line.includes('eth1'));
    await works({ conf: on('eth2'), network: 'b', id: 'b', n: 4 });
    const both = await rules();
    expect(both).toContain('eth2');
    expect(both.split('\n').filter((line) => line.includes('eth1'))).toEqual(first);
    await works({ conf: on('eth1'), network: 'a', id: 'a', command: 'CHECK' });
    expect((await call({ conf: on('eth1'), network: 'a', id: 'c', n: 6 })).json.code).toBe(100);
  });
});

/** Commands that delete one rule each. */
async function deletions(backend: string): Promise<[string, string[]][]> {
  if (backend === 'iptables') {
    const found: [string, string[]][] = [];
    for (const program of ['iptables', 'ip6tables']) {
      const { stdout } = await node.netns.exec(program, ['-t', 'nat', '-S']);
      for (const [, chain = ''] of stdout.matchAll(/^-A (\S+)/gm)) {
        const args = ['-t', 'nat', '-D', chain, '1'];
        if (!found.some(([p, a]) => p === program && a.join() === args.join())) {
          found.push([program, args]);
        }
      }
    }
    return found;
  }
  // Each ADD gives rules new handles: delete by place, through a script.
  const found: [string, string[]][] = [];
  for (const family of ['ip', 'ip6']) {
    for (const chain of ['prerouting', 'output', 'hostports', 'hostip_hostports', 'masquerading']) {
      const list = `nft -a list chain ${family} cni_hostport ${chain}`;
      const { stdout } = await node.netns.exec('sh', ['-c', `${list} | grep -c handle`]);
      for (let n = 2; n <= Number(stdout); n++) {
        const handle = `$(${list} | grep -o 'handle [0-9]*' | sed -n ${n}p)`;
        const script = `nft delete rule ${family} cni_hostport ${chain} ${handle}`;
        found.push(['sh', ['-c', script]]);
      }
    }
  }
  return found;
}
