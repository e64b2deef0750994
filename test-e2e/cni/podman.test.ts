import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { buildExecutable } from '#cmd/podwire-cni/scratch-node.ts';
import { pauseRunsHere } from './pause-image.ts';
import { createPodman, type Podman } from './podman.ts';
import { recordCalls } from './record-calls.ts';
import { createRuntimeNode, reaches, type RuntimeNode } from './runtime-node.ts';
import { ask, createOutside, nodeAddress, serveText } from './traffic.ts';

let node: RuntimeNode;
let podman: Podman;

beforeAll(buildExecutable);
beforeEach(async () => {
  node = await createRuntimeNode();
  // What podman's package brings as its default network.
  node.configure({
    cniVersion: '0.4.0',
    name: 'podman',
    plugins: [
      {
        type: 'bridge',
        bridge: 'cni-podman0',
        isGateway: true,
        ipMasq: true,
        hairpinMode: true,
        ipam: {
          type: 'host-local',
          routes: [{ dst: '0.0.0.0/0' }],
          ranges: [[{ subnet: '10.88.0.0/16', gateway: '10.88.0.1' }]],
        },
      },
      { type: 'portmap', capabilities: { portMappings: true } },
      { type: 'firewall' },
      { type: 'tuning' },
    ],
  });
  podman = createPodman(node);
});
afterEach(() => node[Symbol.asyncDispose]());

/** What containers leave once the first has come and gone: the bridge, and chains for all. */
async function tracesOfNone(): Promise<object> {
  await podman.start('first', '--publish', '7000:80');
  await podman.remove('first');
  return node.traces();
}

describe.runIf(pauseRunsHere)("podman's containers", () => {
  it('get addresses, reach each other, and leave nothing behind', async () => {
    const before = await tracesOfNone();
    const [one, two] = [await podman.start('one'), await podman.start('two')];
    expect(one.networks).toMatchObject({ podman: { IPAddress: '10.88.0.3' } });
    expect(two.networks).toMatchObject({ podman: { IPAddress: '10.88.0.4' } });
    expect(await reaches(node, one.netns, '10.88.0.4')).toBe(true);
    expect(await reaches(node, two.netns, '10.88.0.3')).toBe(true);
    expect((await podman.run('ps', '--format', '{{.Names}}')).split('\n').toSorted()).toEqual([
      'one',
      'two',
    ]);
    await podman.remove('one', 'two');
    expect(await node.traces()).toEqual(before);
  });

  it('are reached through a published port of the node, from it and from outside', async () => {
    await using outside = await createOutside(node);
    const before = await tracesOfNone();
    const one = await podman.start('one', '--publish', '8080:80');
    await serveText(node, { netns: one.netns, port: 80, text: 'one' });
    expect(await ask(outside, nodeAddress, 8080)).toBe('one');
    expect(await ask(node.netns, nodeAddress, 8080)).toBe('one');
    expect(await ask(node.netns, '127.0.0.1', 8080)).toBe('one');
    await podman.remove('one');
    expect(await ask(outside, nodeAddress, 8080)).toBe('');
    expect(await node.traces()).toEqual(before);
  });

  it('keep the address and MAC they are started with', async () => {
    const one = await podman.start(
      'one',
      '--ip',
      '10.88.7.7',
      '--mac-address',
      '02:00:00:00:07:07',
    );
    expect(one.networks).toMatchObject({
      podman: { IPAddress: '10.88.7.7', MacAddress: '02:00:00:00:07:07' },
    });
  });

  it('are created on a network podman made, and the network goes', async () => {
    const before = await tracesOfNone();
    await podman.run('network', 'create', '--subnet', '10.89.5.0/24', 'made');
    const one = await podman.start('one', '--network', 'made');
    const two = await podman.start('two', '--network', 'podman,made');
    expect(one.networks['made']?.IPAddress).toMatch(/^10\.89\.5\./);
    expect(await reaches(node, two.netns, one.networks['made']?.IPAddress ?? '')).toBe(true);
    expect(Object.keys(two.networks)).toEqual(expect.arrayContaining(['made', 'podman']));
    await podman.remove('one', 'two');
    await podman.run('network', 'rm', 'made');
    expect(await node.traces()).toEqual(before);
  });
});

describe.runIf(pauseRunsHere)('what podman passes', () => {
  it('is one DEL with a namespace and the result of ADD', async () => {
    const calls = recordCalls(node, 'bridge');
    const { netns, id } = await podman.start('one');
    await podman.remove('one');
    const attached = { netns, id, args: 'IgnoreUnknown=1;K8S_POD_NAME=one', exitCode: 0 };
    const summary = calls()
      .filter(({ env }) => env['CNI_COMMAND'] !== 'VERSION')
      .map(({ env, config, exitCode }) => ({
        command: env['CNI_COMMAND'],
        netns: env['CNI_NETNS'],
        id: env['CNI_CONTAINERID'],
        args: env['CNI_ARGS'],
        prevResult: config?.prevResult !== undefined,
        exitCode,
      }));
    expect(summary).toEqual([
      { ...attached, command: 'ADD', prevResult: false },
      { ...attached, command: 'DEL', prevResult: true },
    ]);
  });

  it('is a VERSION call of each plugin, before anything else', async () => {
    const calls = recordCalls(node, 'bridge');
    await podman.run('network', 'ls');
    await podman.start('one');
    const versions = calls().filter(({ env }) => env['CNI_COMMAND'] === 'VERSION');
    expect(versions.length).toBeGreaterThan(0);
    for (const { env, config, exitCode } of versions) {
      expect(env).toMatchObject({ CNI_NETNS: 'dummy', CNI_IFNAME: 'dummy', CNI_PATH: 'dummy' });
      expect({ config, exitCode }).toEqual({ config: { cniVersion: '1.0.0' }, exitCode: 0 });
    }
  });
});
