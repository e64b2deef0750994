import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { eachOnScratchNode } from './scratch-each.ts';
import { writeNodeFacts, type CniOutcome, type ScratchNode } from './scratch-node.ts';
import { everythingOn, records, settledOn } from './scratch-traffic.ts';

let node: ScratchNode;
eachOnScratchNode((fresh) => {
  node = fresh;
  writeNodeFacts(node, ['10.244.1.0/24', 'fd00:10:244:1::/64']);
});

const port = (hostPort: number): object => ({
  portMappings: [{ hostPort, containerPort: 80, protocol: 'tcp' }],
});
const bandwidth = { ingressRate: 8e6, ingressBurst: 8e5, egressRate: 8e6, egressBurst: 8e5 };

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

function call(command: string, id: string, netns: string, more: object = {}): Promise<CniOutcome> {
  return node.cni('podwire', { command, id, netns, config: config(more) });
}

async function start(id: string, more: object = {}): Promise<CniOutcome & { netns: string }> {
  const { path } = await node.pod();
  const outcome = await call('ADD', id, path, more);
  expect(outcome).toMatchObject({ exitCode: 0 });
  return { ...outcome, netns: path };
}

const done = { exitCode: 0, json: undefined, stderr: '' };

describe('the record of an attachment', () => {
  it('is readable, for root alone, and gone after DEL', async () => {
    await start('web', { runtimeConfig: { ...port(80), bandwidth } });
    const [[file, text] = ['', '{}']] = [...records(node)];
    expect(file).toBe(join(node.stateDir, 'attachments/podwire/web:eth0'));
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(JSON.parse(text)).toMatchObject({
      containerId: 'web',
      addresses: ['10.244.1.2/24', 'fd00:10:244:1::2/64'],
      mac: '0a:58:0a:f4:01:02',
      hostPorts: [{ protocol: 'tcp', hostPort: 80, containerPort: 80 }],
    });
    expect(await call('DEL', 'web', '')).toEqual(done);
    expect(records(node).size).toBe(0);
  });

  it('a second ADD of one container changes nothing of the first', async () => {
    const first = await start('web', { runtimeConfig: port(80) });
    const before = await settledOn(node);
    const { path } = await node.pod();
    const { json } = await call('ADD', 'web', path);
    expect(json).toMatchObject({ code: 4 });
    expect(json.msg).toContain('it was added before and not deleted');
    expect(await everythingOn(node)).toEqual(before);
    const check = await call('CHECK', 'web', first.netns, {
      runtimeConfig: port(80),
      prevResult: first.json,
    });
    expect(check).toEqual(done);
  });

  it.each([
    ['lost', (file: string) => rmSync(file)],
    ['empty', (file: string) => writeFileSync(file, '')],
    ['of another version', (file: string) => writeFileSync(file, '{"mode":"tunnel"}')],
  ])('%s: DEL removes all the same', async (_, spoil) => {
    await start('first', { runtimeConfig: port(79) });
    const before = await settledOn(node);
    await start('web', { runtimeConfig: { ...port(80), bandwidth } });
    spoil(join(node.stateDir, 'attachments/podwire/web:eth0'));
    expect(await call('DEL', 'web', '')).toEqual(done);
    expect(await everythingOn(node)).toEqual(before);
  });

  it('147. a network that was renamed since: DEL finds everything', async () => {
    await start('first', { runtimeConfig: port(79) });
    const before = await settledOn(node);
    await start('web', { runtimeConfig: { ...port(80), bandwidth } });
    expect(await call('DEL', 'web', '', { name: 'renamed' })).toEqual(done);
    expect(await everythingOn(node)).toEqual(before);
  });
});

describe('143. 157. with the daemon gone', () => {
  it.each(['', '/run/netns/pw-cni-gone'])(
    'DEL with the namespace %j leaves nothing',
    async (path) => {
      await start('first', { runtimeConfig: port(79) });
      const before = await settledOn(node);
      const more = { runtimeConfig: { ...port(80), bandwidth } };
      await start('bridged', more);
      await start('routed', { ...more, mode: 'routed', runtimeConfig: { ...port(81), bandwidth } });
      rmSync(node.nodeFile);
      expect(await call('DEL', 'bridged', path)).toEqual(done);
      expect(await call('DEL', 'routed', path)).toEqual(done);
      const tables = (line: string): boolean => !/^[\t }]|^table|^$/.test(line);
      // The tables of the other mode are made, and stay.
      expect((await everythingOn(node)).filter(tables)).toEqual(before.filter(tables));
      expect((await node.netns.exec('nft', ['list', 'ruleset'])).stdout).not.toMatch(
        /bridged|routed/,
      );
      const { json } = await call('ADD', 'web', (await node.pod()).path);
      expect(json).toMatchObject({ code: 11 });
      expect((await call('STATUS', '', '')).json).toMatchObject({ code: 50 });
    },
  );
});

describe('145. GC', () => {
  it('without the list refuses; with an empty one takes this network alone', async () => {
    await start('first', {
      runtimeConfig: port(79),
      name: 'other',
      bridge: 'cni1',
      ipam: otherIpam(),
    });
    const before = await settledOn(node);
    await start('one', { runtimeConfig: { ...port(80), bandwidth } });
    await start('two');
    const full = await settledOn(node);
    expect((await call('GC', '', '')).json).toMatchObject({ code: 7 });
    expect(await everythingOn(node)).toEqual(full);
    expect(await call('GC', '', '', { 'cni.dev/valid-attachments': [] })).toEqual(done);
    const own = (lines: readonly string[]): readonly string[] =>
      lines.filter((line) => !/cni0|10\.244\.1\.|fd00:10:244|\/\.boot|\/\.?lock$/.test(line));
    expect(own(await everythingOn(node))).toEqual(own(before));
    expect(records(node).size).toBe(1);
  });

  it('keeps what is valid, whole', async () => {
    const kept = await start('kept', { runtimeConfig: { ...port(80), bandwidth } });
    const before = await settledOn(node);
    await start('gone', { runtimeConfig: { ...port(81), bandwidth } });
    const valid = [{ containerID: 'kept', ifname: 'eth0' }];
    expect(await call('GC', '', '', { 'cni.dev/valid-attachments': valid })).toEqual(done);
    expect(await everythingOn(node)).toEqual(before);
    const more = { runtimeConfig: { ...port(80), bandwidth }, prevResult: kept.json };
    expect(await call('CHECK', 'kept', kept.netns, more)).toEqual(done);
  });

  function otherIpam(): object {
    const ranges = [[{ subnet: '10.99.0.0/24' }], [{ subnet: 'fd99::/64' }]];
    return { type: 'host-local', dataDir: node.dataDir, ranges };
  }
});

describe('146. after a reboot', () => {
  it('the next ADD takes back what pods of the old boot had', async () => {
    await start('old', { runtimeConfig: port(80) });
    await start('torn');
    await start('living');
    const boot = (name: string): string => join(node.stateDir, 'attachments/podwire', name);
    const age = (name: string): void =>
      writeFileSync(
        boot(name),
        readFileSync(boot(name), 'utf8').replace(/"bootId":"[^"]*"/, '"bootId":"x"'),
      );
    age('old:eth0');
    age('.boot');
    // What a file system may leave of a file that was just written.
    writeFileSync(boot('torn:eth0'), '');
    await start('new', { runtimeConfig: port(80) });
    expect([...records(node).keys()].map((f) => f.replace(/.*\//, '')).toSorted()).toEqual([
      'living:eth0',
      'new:eth0',
    ]);
    expect(node.leases()).toHaveLength(4);
  });

  it('nothing is taken back within a boot', async () => {
    await start('one');
    await start('two');
    expect(node.leases()).toHaveLength(4);
  });
});

describe('STATUS', () => {
  const status = (more: object = {}): Promise<CniOutcome> => call('STATUS', '', '', more);

  it('is code 50 with the reason', async () => {
    expect(await status()).toEqual(done);
    const file = join(node.dataDir, 'file');
    writeFileSync(file, '');
    for (const [more, reason] of [
      [{ ipam: { dataDir: `${file}/networks` } }, `${file} is no directory`],
      [{ stateDir: file }, `${file} is no directory`],
      [{ mode: 'tunnel' }, '"mode": expected bridge or routed'],
    ] as const) {
      const { json } = await status(more);
      expect(json).toMatchObject({ code: 50 });
      expect(json.msg).toContain(reason);
    }
  });

  it('on a file system that became read-only is code 50; ADD fails and leaves nothing', async () => {
    await start('first');
    const program = join(node.binDir, 'podwire-read-only');
    const script = (directory: string): string =>
      `mount --bind ${directory} ${directory} && mount -o remount,bind,ro ${directory}`;
    for (const directory of [node.dataDir, node.stateDir]) {
      const inside = `${script(directory)} && exec ${node.binDir}/podwire`;
      writeFileSync(program, `#!/bin/sh\nexec unshare -m sh -c '${inside}'\n`, { mode: 0o755 });
      const before = await settledOn(node);
      const { path } = await node.pod();
      const readOnly = (command: string, netns: string): Promise<CniOutcome> =>
        node.cni('podwire', { command, id: 'web', netns, config: config(), program });
      expect((await readOnly('STATUS', '')).json).toMatchObject({ code: 50 });
      const { exitCode, json } = await readOnly('ADD', path);
      expect({ exitCode, code: json.code }).toEqual({ exitCode: 1, code: 999 });
      expect(json.msg).toContain('EROFS');
      expect(await everythingOn(node)).toEqual(before);
    }
  });
});

describe('CHECK', () => {
  it('finds that a limit is gone', async () => {
    const runtimeConfig = { ...port(80), bandwidth };
    const { json, netns } = await start('web', { runtimeConfig });
    const ifb = json.interfaces.find(({ name }) => name.startsWith('bwp'))?.name ?? '';
    await node.netns.ip(`link del ${ifb}`);
    const check = await call('CHECK', 'web', netns, { runtimeConfig, prevResult: json });
    expect(check.json.msg).toContain(ifb);
  });

  it('finds a changed sysctl, a missing element, a missing record', async () => {
    const sysctl = { 'net.ipv4.conf.IFNAME.log_martians': '1' };
    const { json, netns } = await start('web', { sysctl, runtimeConfig: port(80) });
    const more = { sysctl, runtimeConfig: port(80), prevResult: json };
    const check = async (): Promise<string> => (await call('CHECK', 'web', netns, more)).json?.msg;
    expect(await check()).toBeUndefined();
    const set = (value: number): string[] => ['-qw', `net.ipv4.conf.eth0.log_martians=${value}`];
    const inPod = (args: string[]): Promise<unknown> =>
      node.netns.exec('nsenter', [`--net=${netns}`, 'sysctl', ...args]);
    await inPod(set(0));
    expect(await check()).toContain('sysctl net.ipv4.conf.IFNAME.log_martians is 0, not 1');
    await inPod(set(1));
    await node.netns.exec('nft', ['flush', 'map', 'inet', 'podwire-hostport', 'any4']);
    expect(await check()).toContain('podwire-hostport any4 lacks');
    rmSync(join(node.stateDir, 'attachments/podwire/web:eth0'));
    expect(await check()).toContain('there is no record of eth0 of container web');
  });

  it.each([
    [{ 'kernel.hostname': 'x' }, 'kernel.hostname'],
    [{ 'net.ipv4..ip_forward': '1' }, 'net.ipv4..ip_forward'],
    [{ 'net/../kernel/hostname': 'x' }, 'kernel/hostname'],
    [{ 'net.ipv4.ip_forward': true }, 'expected a string'],
  ])('ADD refuses the sysctl %j', async (sysctl, text) => {
    const { json } = await call('ADD', 'web', (await node.pod()).path, { sysctl });
    expect(json).toMatchObject({ code: 7 });
    expect(json.msg).toContain(text);
  });
});

describe('155. many pods at once', () => {
  it("110 come and go together: every address is one pod's, nothing stays", async () => {
    await start('first', { runtimeConfig: port(79) });
    const before = await settledOn(node);
    const pods = await Promise.all(Array.from({ length: 110 }, () => node.pod()));
    const added = await Promise.all(
      pods.map((pod, i) => call('ADD', `p${i}`, pod.path, { runtimeConfig: port(1000 + i) })),
    );
    expect(added.filter(({ exitCode }) => exitCode !== 0)).toEqual([]);
    const addresses = added.flatMap(({ json }) => json.ips.map(({ address }) => address));
    expect(new Set(addresses).size).toBe(220);
    const deleted = await Promise.all(pods.map((pod, i) => call('DEL', `p${i}`, pod.path)));
    expect(deleted.filter(({ exitCode }) => exitCode !== 0)).toEqual([]);
    expect(await everythingOn(node)).toEqual(before);
  });
});
