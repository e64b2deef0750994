import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { giveInput } from '#cmd/scratch/give-input.ts';
import {
  buildExecutable,
  createScratchNode,
  type CniCall,
  type CniOutcome,
  type ScratchNode,
} from '#cmd/podwire-cni/scratch-node.ts';
import { launcherMark } from '#pkg/cni-install/plugin-files.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import {
  createLauncherDir,
  startCniDaemon,
  type CniDaemon,
  type LauncherDir,
} from './scratch/cni-resident.ts';

let node: ScratchNode;
let launcher: LauncherDir;
let daemon: CniDaemon;
const canBuild = await canBuildLauncher();

beforeAll(buildExecutable);
beforeEach(async () => {
  const created = await createLauncherDir(['bridge', 'loopback']);
  if (created === undefined) throw new Error('The launcher could be built a moment ago');
  launcher = created;
  node = await createScratchNode();
  daemon = await startCniDaemon(node.netns, launcher.runDir);
  writeIpam();
});
afterEach(async () => {
  for (const command of ['ADD', 'DEL']) rmSync(hold(command), { force: true });
  await daemon[Symbol.asyncDispose]();
  await node[Symbol.asyncDispose]();
  launcher[Symbol.dispose]();
});

async function canBuildLauncher(): Promise<boolean> {
  using built = await createLauncherDir([]);
  return built !== undefined;
}

const ipam = { type: 'host-local', ranges: [[{ subnet: '10.244.1.0/24' }]] };

function config(more: object = {}): object {
  const withDir = { ...ipam, dataDir: node.dataDir };
  return {
    cniVersion: '1.1.0',
    name: 'net',
    type: 'bridge',
    isGateway: true,
    ipam: withDir,
    ...more,
  };
}

/** Calls the launcher as a runtime does. */
function call(more: Partial<CniCall> = {}): Promise<CniOutcome> {
  return node.cni('bridge', { config: config(), program: launcher.program('bridge'), ...more });
}

/** An IPAM plugin that is not ours, which does nothing for as long as the test likes. */
function writeIpam(): void {
  const script = [
    '#!/bin/sh',
    'echo "slow-ipam says $CNI_COMMAND" >&2',
    `touch ${node.dataDir}/started-$CNI_COMMAND-$CNI_CONTAINERID`,
    `while [ -e ${hold('$CNI_COMMAND')} ]; do sleep 0.05; done`,
    'echo \'{"cniVersion":"1.1.0","ips":[{"address":"10.9.0.2/24","gateway":"10.9.0.1"}]}\'',
  ];
  writeFileSync(join(node.binDir, 'slow-ipam'), script.join('\n'), { mode: 0o755 });
}

function hold(command: string): string {
  return join(node.dataDir, `hold-${command}`);
}

const slow = (): object => config({ name: 'slow', isGateway: false, ipam: { type: 'slow-ipam' } });

async function started(command: string, id: string): Promise<void> {
  const file = join(node.dataDir, `started-${command}-${id}`);
  await expect.poll(() => existsSync(file)).toBe(true);
}

describe.runIf(canBuild)('a call by the launcher', () => {
  it('is by a program that an installer knows for ours', () => {
    expect(readFileSync(launcher.program('bridge')).includes(launcherMark)).toBe(true);
  });

  it('has the result, and does the work, of the standalone executable', async () => {
    const pod = await node.pod();
    const add = { netns: pod.path, args: 'IgnoreUnknown=1;IP=10.244.1.9' };
    const before = await node.snapshot([pod]);
    const resident = await call(add);
    const connected = await node.snapshot([pod]);
    expect(resident).toMatchObject({ exitCode: 0, stderr: '' });
    expect(
      await call({ ...add, command: 'CHECK', config: config({ prevResult: resident.json }) }),
    ).toEqual({ exitCode: 0, stderr: '', json: undefined });
    expect(await call({ command: 'DEL', netns: pod.path })).toEqual({
      exitCode: 0,
      stderr: '',
      json: undefined,
    });
    expect(await node.netns.ip('-br link')).not.toContain('veth');
    expect(await call({ ...add, program: join(node.binDir, 'bridge') })).toEqual(resident);
    expect(JSON.stringify(connected)).toContain('10.244.1.9');
    expect(JSON.stringify(before)).not.toContain('10.244.1.9');
  });

  it('has its errors', async () => {
    for (const wrong of [
      { netns: '/run/netns/none' },
      { command: 'FOO' },
      { ifName: 'too-long-for-the-kernel' },
      { command: 'STATUS', config: config({ cniVersion: '1.0.0' }) },
      { command: 'GC' },
    ]) {
      const standalone = await call({ ...wrong, program: join(node.binDir, 'bridge') });
      expect(standalone.exitCode).toBe(1);
      expect(await call(wrong)).toEqual(standalone);
    }
  });

  it('for the version needs no standard input', async () => {
    const child = spawn('nsenter', [`--net=${node.netns.path}`, launcher.program('bridge')], {
      env: { CNI_COMMAND: 'VERSION' },
    });
    const [output] = (await once(child.stdout, 'data')) as [Buffer];
    expect(JSON.parse(output.toString())).toHaveProperty('supportedVersions');
    child.stdin.end();
  });

  it('may be of megabytes', async () => {
    const pod = await node.pod();
    const padding = 'x'.repeat(3_000_000);
    expect(await call({ netns: pod.path, config: config({ padding }) })).toMatchObject({
      exitCode: 0,
    });
    const attachments = Array.from({ length: 20_000 }, (_, i) => ({
      containerID: `container-${i}`,
      ifname: 'eth0',
    }));
    const gc = config({ 'cni.dev/valid-attachments': attachments });
    expect(await call({ command: 'GC', config: gc })).toMatchObject({ exitCode: 0 });
    expect(node.leases()).toEqual([]);
  });

  it('of a plugin that is not ours works, its words on standard error included', async () => {
    const pod = await node.pod();
    const outcome = await call({ netns: pod.path, config: slow() });
    expect(outcome).toMatchObject({ exitCode: 0, stderr: 'slow-ipam says ADD\n' });
    expect(outcome.json.ips[0]?.address).toBe('10.9.0.2/24');
  });

  it('from another network namespace is left to its own process', async () => {
    launcher.addStandalone();
    await using other = await createScratchNetns('pw-cni-other');
    const pod = await node.pod();
    await runIn(other, { id: 'pod-1', netns: pod.path });
    expect(await other.ip('-br link')).toContain('veth');
    expect(await node.netns.ip('-br link')).not.toContain('veth');
    await expect.poll(() => daemon.log()).toContain('it is in another network namespace');
  });
});

/** Runs an ADD by the launcher in some namespace, perhaps as another user; its standard output. */
async function runIn(
  netns: ScratchNetns,
  { id, netns: path, user }: { id: string; netns: string; user?: number },
): Promise<string> {
  const asUser = user === undefined ? [] : ['setpriv', `--reuid=${user}`, '--clear-groups'];
  const command = [`--net=${netns.path}`, ...asUser, launcher.program('bridge')];
  const env = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: id, CNI_NETNS: path, CNI_IFNAME: 'eth0' };
  const child = spawn('nsenter', command, { env: { ...env, PATH: process.env['PATH'] } });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  giveInput(child.stdin, JSON.stringify(config()));
  await once(child, 'close');
  return output;
}

describe.runIf(canBuild)('a daemon', () => {
  it('that was killed is done without', async () => {
    launcher.addStandalone();
    await daemon.kill();
    const pod = await node.pod();
    const add = await call({ netns: pod.path });
    expect(add).toMatchObject({ exitCode: 0 });
    expect(await call({ command: 'DEL', netns: pod.path })).toMatchObject({ exitCode: 0 });
    expect(node.leases()).toEqual([]);
  });

  it('that hangs is done without, after a second, and does nothing of it later', async () => {
    using impatient = await createLauncherDir(['bridge'], 1);
    if (impatient === undefined) throw new Error('The launcher could be built a moment ago');
    impatient.addStandalone();
    await using hanging = await startCniDaemon(node.netns, impatient.runDir);
    const program = impatient.program('bridge');
    const pod = await node.pod();
    hanging.process.kill('SIGSTOP');
    await stopped(hanging.process.pid ?? 0);
    const startMs = performance.now();
    expect(await call({ netns: pod.path, program })).toMatchObject({ exitCode: 0 });
    const tookMs = performance.now() - startMs;
    expect(tookMs).toBeGreaterThan(950);
    // The other launchers here have patience for 20 s.
    expect(tookMs).toBeLessThan(20_000);
    hanging.process.kill('SIGCONT');
    // Behind it in the daemon's queue: when it has been served, so has everything before it.
    expect(await call({ command: 'STATUS', program })).toMatchObject({ exitCode: 0 });
    expect(node.leases()).toHaveLength(1);
  });

  it('that is started again replaces the socket, and its end leaves that of another', async () => {
    const pod = await node.pod();
    await daemon.kill();
    const second = await startCniDaemon(node.netns, launcher.runDir);
    expect(await call({ netns: pod.path })).toMatchObject({ exitCode: 0 });
    daemon = await startCniDaemon(node.netns, launcher.runDir);
    await second[Symbol.asyncDispose]();
    expect(await call({ command: 'DEL', netns: pod.path })).toMatchObject({ exitCode: 0 });
    await daemon[Symbol.asyncDispose]();
    for (const name of ['cni.sock', 'cni-del.sock']) {
      expect(existsSync(join(launcher.runDir, name))).toBe(false);
    }
  });

  it('listens to root only, whoever may open the socket', async () => {
    const socket = join(launcher.runDir, 'cni.sock');
    expect(statSync(socket).mode & 0o777).toBe(0o600);
    chmodSync(socket, 0o666);
    const pod = await node.pod();
    const output = await runIn(node.netns, { id: 'pod-1', netns: pod.path, user: 65534 });
    // It went on to the standalone executable, which is not there.
    expect(JSON.parse(output)).toMatchObject({ code: 50 });
    expect(node.leases()).toEqual([]);
    await expect.poll(() => daemon.log()).toContain('Refused a caller with user ID 65534');
  });

  it('that dies during an ADD: try again later; what there is, DEL removes', async () => {
    launcher.addStandalone();
    const pod = await node.pod();
    writeFileSync(hold('ADD'), '');
    const adding = call({ netns: pod.path, config: slow() });
    await started('ADD', 'pod-1');
    await daemon.kill();
    expect(await adding).toMatchObject({ exitCode: 1, json: { code: 11 } });
    expect(await call({ command: 'DEL', netns: pod.path, config: slow() })).toMatchObject({
      exitCode: 0,
    });
    expect(await node.netns.ip('-br link')).not.toContain('veth');
  });

  it('that is stopped waits for no program that is not ours', async () => {
    launcher.addStandalone();
    const pod = await node.pod();
    expect(await call({ netns: pod.path, config: slow() })).toMatchObject({ exitCode: 0 });
    writeFileSync(hold('DEL'), '');
    const deleting = call({ command: 'DEL', netns: pod.path, config: slow() });
    await started('DEL', 'pod-1');
    await daemon[Symbol.asyncDispose]();
    expect(daemon.process.exitCode).toBe(0);
    await expect.poll(() => daemon.log()).toContain('Left CNI calls behind');
    rmSync(hold('DEL'));
    expect(await deleting).toMatchObject({ exitCode: 0 });
  });

  it('that dies during a DEL: the launcher does it', async () => {
    launcher.addStandalone();
    const pod = await node.pod();
    expect(await call({ netns: pod.path, config: slow() })).toMatchObject({ exitCode: 0 });
    writeFileSync(hold('DEL'), '');
    const deleting = call({ command: 'DEL', netns: pod.path, config: slow() });
    await started('DEL', 'pod-1');
    await daemon.kill();
    rmSync(hold('DEL'));
    expect(await deleting).toMatchObject({ exitCode: 0 });
    expect(await node.netns.ip('-br link')).not.toContain('veth');
  });
});

describe.runIf(canBuild)('many calls', () => {
  it('100 at once get different addresses, and all go again', async () => {
    const pods = await Promise.all(Array.from({ length: 20 }, () => node.pod()));
    const all = Array.from({ length: 100 }, (_, i) => ({
      id: `pod-${i}`,
      ifName: `eth${i}`,
      netns: pods[i % pods.length]?.path ?? '',
    }));
    const added = await Promise.all(all.map((pod) => call(pod)));
    expect(added.filter(({ exitCode }) => exitCode !== 0)).toEqual([]);
    expect(new Set(added.map(({ json }) => json.ips[0]?.address)).size).toBe(100);
    const deleted = await Promise.all(all.map((pod) => call({ ...pod, command: 'DEL' })));
    expect(deleted.filter(({ exitCode }) => exitCode !== 0)).toEqual([]);
    expect(node.leases()).toEqual([]);
  });

  it('a DEL that takes for ever delays no ADD', async () => {
    const pods = await Promise.all(Array.from({ length: 5 }, () => node.pod()));
    for (const [i, pod] of pods.slice(0, 4).entries()) {
      expect(await call({ id: `slow-${i}`, netns: pod.path, config: slow() })).toMatchObject({
        exitCode: 0,
      });
    }
    writeFileSync(hold('DEL'), '');
    const deleting = [0, 1, 2, 3].map((i) =>
      call({ command: 'DEL', id: `slow-${i}`, netns: pods[i]?.path ?? '', config: slow() }),
    );
    for (const i of [0, 1, 2, 3]) await started('DEL', `slow-${i}`);
    // No standalone executable is there: the daemon did it, while it did those.
    expect(await call({ netns: pods[4]?.path ?? '' })).toMatchObject({ exitCode: 0 });
    rmSync(hold('DEL'));
    const ended = await Promise.all(deleting);
    expect(ended.map(({ exitCode }) => exitCode)).toEqual([0, 0, 0, 0]);
  });

  it('a DEL waits for the ADD of the same container that its runtime gave up', async () => {
    const pod = await node.pod();
    writeFileSync(hold('ADD'), '');
    const child = spawn('nsenter', [`--net=${node.netns.path}`, launcher.program('bridge')], {
      env: {
        CNI_COMMAND: 'ADD',
        CNI_CONTAINERID: 'pod-1',
        CNI_NETNS: pod.path,
        CNI_IFNAME: 'eth0',
        CNI_PATH: node.binDir,
        PATH: process.env['PATH'],
      },
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    giveInput(child.stdin, JSON.stringify(slow()));
    await started('ADD', 'pod-1');
    child.kill('SIGKILL');
    const deleting = call({ command: 'DEL', netns: pod.path, config: slow() });
    rmSync(hold('ADD'));
    expect(await deleting).toMatchObject({ exitCode: 0 });
    expect(await node.netns.ip('-br link')).not.toContain('veth');
    await expect.poll(() => daemon.log()).toContain('Took back an ADD of pod-1');
  });
});

/** Resolves when the kernel has stopped the process. */
async function stopped(pid: number): Promise<void> {
  await expect.poll(() => readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ')[2]).toBe('T');
}
