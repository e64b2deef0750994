import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ScratchNetns } from '#pkg/netns/scratch.ts';
import { hostLinkName } from '#plugins/main/attachment-link.ts';
import { eachOnScratchNode } from './scratch-each.ts';
import { reaches, type ScratchNode } from './scratch-node.ts';

/**
 * ADD is all or nothing. Each case makes a later step fail than the one before, on a fresh node and
 * on one with a pod, and compares all that the kernel and the disk hold.
 */
let node: ScratchNode;
let pod: ScratchNetns;
eachOnScratchNode(async (fresh) => {
  node = fresh;
  pod = await node.pod();
});

const id = 'victim';

interface Failure {
  readonly name: string;
  /** Makes the node so that ADD must fail. */
  readonly arrange?: () => Promise<unknown>;
  readonly config?: object;
  readonly ipam?: object;
  readonly netns?: () => string;
  readonly message: string;
  /** Needs a bridge that other pods use. */
  readonly withPodOnly?: boolean;
}

const failures: readonly Failure[] = [
  {
    name: 'the namespace is gone',
    netns: () => '/run/netns/pw-cni-gone',
    message: 'failed to open netns "/run/netns/pw-cni-gone"',
  },
  {
    name: 'the path is no namespace',
    netns: () => {
      const file = join(node.dataDir, 'not-a-namespace');
      writeFileSync(file, '');
      return file;
    },
    message: 'failed to open netns',
  },
  {
    name: "the interface's name is taken",
    arrange: () => pod.ip('link add eth0 type bridge'),
    message: 'container veth name (eth0) already exists',
  },
  {
    name: 'the range has no address left',
    ipam: { ranges: [[{ subnet: '10.1.2.0/24', rangeStart: '10.1.2.1', rangeEnd: '10.1.2.1' }]] },
    message: 'no IP addresses available in range set: 10.1.2.1-10.1.2.1',
  },
  {
    name: 'the second range has no address left',
    ipam: {
      ranges: [
        [{ subnet: '10.1.2.0/24' }],
        [{ subnet: 'fd00::/64', rangeStart: 'fd00::1', rangeEnd: 'fd00::1' }],
      ],
    },
    message: 'no IP addresses available in range set: fd00::1-fd00::1',
  },
  {
    name: "the bridge's name is another link's",
    arrange: () => node.netns.ip('link add cni9 type veth peer name other'),
    config: { bridge: 'cni9' },
    message: '"cni9" already exists but is not a bridge',
  },
  {
    name: 'the bridge serves another subnet',
    ipam: { ranges: [[{ subnet: '10.7.0.0/24' }]] },
    withPodOnly: true,
    message: '"cni0" already has an IP address different from 10.7.0.1/24',
  },
  {
    name: 'the second gateway cannot be added: the first one goes again',
    arrange: () => node.netns.exec('sysctl', ['-qw', 'net.ipv6.conf.cni0.disable_ipv6=1']),
    ipam: { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00::/64' }]] },
    withPodOnly: true,
    message: 'Cannot add address fd00::1/64',
  },
  {
    name: "the host's end cannot be made",
    arrange: () =>
      node.netns.ip(`link add ${hostLinkName({ containerId: id, ifName: 'eth0' })} type bridge`),
    message: 'it exists already; victim was added before',
  },
  {
    name: "IPv6 does not take the link's MTU",
    config: { mtu: 1000 },
    ipam: { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00::/64' }]] },
    message: 'fd00::',
  },
  {
    name: 'a route leads nowhere',
    ipam: {
      ranges: [[{ subnet: '10.1.2.0/24' }]],
      routes: [{ dst: '10.8.0.0/16' }, { dst: '10.9.0.0/16', gw: '192.0.2.1' }],
    },
    message: 'Cannot add route 10.9.0.0/16 via 192.0.2.1',
  },
];

const defaultIpam = { ranges: [[{ subnet: '10.1.2.0/24' }]] };

function configOf({ config = {}, ipam = defaultIpam }: Partial<Failure>): object {
  return {
    cniVersion: '1.1.0',
    name: 'net',
    type: 'bridge',
    isDefaultGateway: true,
    ipam: { type: 'host-local', dataDir: node.dataDir, ...ipam },
    ...config,
  };
}

async function expectNothingLeft(failure: Failure, others: readonly ScratchNetns[]): Promise<void> {
  await failure.arrange?.();
  const netns = failure.netns?.() ?? pod.path;
  const before = await node.snapshot([pod, ...others]);
  const { exitCode, json } = await node.cni('bridge', { id, netns, config: configOf(failure) });
  expect(exitCode).toBe(1);
  expect(json.msg).toContain(failure.message);
  expect(await node.snapshot([pod, ...others])).toEqual(before);
  const deleted = await node.cni('bridge', {
    command: 'DEL',
    id,
    netns,
    config: configOf(failure),
  });
  expect(deleted).toMatchObject({ exitCode: 0, json: undefined });
}

describe('an ADD that fails leaves nothing on a fresh node:', () => {
  it.each(failures.filter((f) => f.withPodOnly !== true))('$name', async (failure) => {
    await expectNothingLeft(failure, []);
  });
});

describe('an ADD that fails leaves a node with a pod as it was:', () => {
  it.each(failures)('$name', async (failure) => {
    const neighbour = await node.pod();
    const there = { id: 'neighbour', netns: neighbour.path, config: configOf({}) };
    expect(await node.cni('bridge', there)).toMatchObject({ exitCode: 0 });
    await expectNothingLeft(failure, [neighbour]);
    expect(await reaches(neighbour, '10.1.2.1')).toBe(true);
  });
});

describe('an ADD that failed', () => {
  it.each([
    ['address', defaultIpam],
    ['host end', undefined],
  ])('because it was the second of one container leaves the first its %s', async (_, ipam) => {
    const config =
      ipam === undefined
        ? { ...configOf({}), isDefaultGateway: false, ipam: {} }
        : configOf({ ipam });
    const first = await node.pod();
    const call = { id, config };
    expect(await node.cni('bridge', { ...call, netns: first.path })).toMatchObject({ exitCode: 0 });
    const before = await node.snapshot([first, pod]);
    expect(await node.cni('bridge', { ...call, netns: pod.path })).toMatchObject({ exitCode: 1 });
    expect(await node.snapshot([first, pod])).toEqual(before);
  });

  it('works once the cause is gone', async () => {
    await pod.ip('link add eth0 type bridge');
    const call = { id, netns: pod.path, config: configOf({}) };
    expect(await node.cni('bridge', call)).toMatchObject({ exitCode: 1 });
    await pod.ip('link del eth0');
    expect(await node.cni('bridge', call)).toMatchObject({ exitCode: 0 });
    expect(await reaches(pod, '10.1.2.1')).toBe(true);
  });
});
