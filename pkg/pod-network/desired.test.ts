import { describe, expect, test } from 'vitest';
import { formatPrefix, parsePrefix } from '#pkg/ip/prefix.ts';
import type { NodeRecord } from '#pkg/kube/types.ts';
import type { BackendType } from '#pkg/overlay/backend.ts';
import { desiredPodNetwork, type HostFacts, type PodNetworkOptions } from './desired.ts';
import { nodeRecord, vxlanOptions } from './testdata/vxlan-node.ts';

const options: PodNetworkOptions = vxlanOptions('a');

const host: HostFacts = {
  links: [
    {
      name: 'eth0',
      mtuBytes: 1500,
      addresses: ['192.168.1.1/24', 'fd00:1::1/64'].map(parsePrefix),
      onLinkPrefixes: ['192.168.1.0/24', 'fd00:1::/64'].map(parsePrefix),
    },
  ],
  advertisedLinks: [],
  acceptRa: () => '0',
};

function node(name: string, fields: Partial<NodeRecord> = {}): NodeRecord {
  return nodeRecord(name, {
    podCIDRs: ['10.244.1.0/24', 'fd00:10:244:1::/64'],
    internalIPs: ['192.168.1.1', 'fd00:1::1'],
    ...fields,
  });
}

const far = node('b', {
  podCIDRs: ['10.244.2.0/24'],
  internalIPs: ['192.168.2.2'],
  annotations: {
    'podwire.dev/backend-type': 'vxlan',
    'podwire.dev/backend-data': '{"VNI":1,"VtepMAC":"02:00:00:00:04:02"}',
    'podwire.dev/public-ip': '192.168.2.2',
  },
});

function desired(
  nodes: readonly NodeRecord[],
  changes: Partial<PodNetworkOptions> = {},
  facts: HostFacts = host,
): ReturnType<typeof desiredPodNetwork> {
  return desiredPodNetwork(new Map(nodes.map((n) => [n.name, n])), facts, {
    ...options,
    ...changes,
  });
}

function ready(
  ...args: Parameters<typeof desired>
): Extract<ReturnType<typeof desired>, { kind: 'desired' }> {
  const result = desired(...args);
  if (result.kind !== 'desired') throw new Error(result.reason);
  return result;
}

describe('desiredPodNetwork()', () => {
  test('a new address of the link takes no family away from the one that is announced', () => {
    const [eth0] = host.links;
    if (eth0 === undefined) throw new Error('there is no link');
    const addresses = ['192.168.1.1/24', 'fd00:1::99/64', 'fd00:1::1/64'].map(parsePrefix);
    const own = node('a', {
      internalIPs: ['192.168.1.1'],
      annotations: {
        'podwire.dev/backend-type': 'vxlan',
        'podwire.dev/backend-v6-data': '{"VNI":1,"VtepMAC":"02:00:00:00:04:01"}',
        'podwire.dev/public-ipv6': 'fd00:1::1',
      },
    });
    const { annotationPatch } = ready([own], {}, { ...host, links: [{ ...eth0, addresses }] });
    expect(annotationPatch).not.toHaveProperty(['podwire.dev/public-ipv6']);
  });

  test('sums up sysctls, overlay and masquerade', () => {
    const want = ready([node('a'), far]);
    expect(want.objects.map(({ kind }) => kind).join(' ')).toBe(
      'sysctl sysctl sysctl sysctl sysctl vxlan address neighbor fdb route vxlan address',
    );
    expect(want.nodeFile).toBe(
      '{"podCIDRs":["10.244.1.0/24","fd00:10:244:1::/64"],"mtuBytes":1430,"backend":"vxlan"}\n',
    );
    expect(want.problems).toEqual([]);
    const nomasq4 = want.ruleset.tables[0]?.sets.find(({ name }) => name === 'nomasq4');
    expect([...(nomasq4?.elements ?? [])]).toEqual([
      '10.244.1.0/24',
      '10.244.2.0/24',
      '192.168.1.1',
      '192.168.2.2',
      '224.0.0.0/4',
      '255.255.255.255',
    ]);
  });

  test('turns IPv6 on on each device that carries it, and on no other', () => {
    const paths = (backend: BackendType): readonly string[] =>
      ready([node('a'), far], { backend }).objects.flatMap((o) =>
        o.kind === 'sysctl' && o.path.endsWith('/disable_ipv6') ? [`${o.path} ${o.value}`] : [],
      );
    expect(paths('vxlan')).toEqual(['net/ipv6/conf/podwire-v6.1/disable_ipv6 0']);
    expect(paths('udp')).toEqual(['net/ipv6/conf/podwire.udp/disable_ipv6 0']);
    expect(paths('host-gw')).toEqual([]);
  });

  test('announces us once, and then has nothing more to say', () => {
    const first = ready([node('a')]);
    expect(Object.keys(first.annotationPatch)).toHaveLength(5);
    const annotations = Object.fromEntries(
      Object.entries(first.annotationPatch).map(([key, value]) => [key, String(value)]),
    );
    expect(ready([node('a', { annotations })]).annotationPatch).toEqual({});
  });

  test('a backend switch keeps the pods’ ranges and takes the device away', () => {
    const want = ready([node('a'), far], { backend: 'host-gw' });
    expect(want.objects.map(({ kind }) => kind)).toEqual(['sysctl', 'sysctl', 'sysctl', 'sysctl']);
    expect(want.nodeFile).toContain('"mtuBytes":1500,"backend":"host-gw"');
    expect(want.problems.map(({ node: name }) => name)).toEqual(['b']);
  });

  test('node.json lists the families in the Node’s order', () => {
    const podCIDRs = ['fd00:10:244:1::/64', '10.244.1.0/24'];
    expect(ready([node('a', { podCIDRs })]).nodeFile).toContain(
      '"podCIDRs":["fd00:10:244:1::/64","10.244.1.0/24"]',
    );
  });

  test('136. a family that is not wanted is not there, whatever Nodes say of it', () => {
    const odd = { ...far.annotations, 'podwire.dev/public-ipv6': '10.0.0.1' };
    const peer = { ...far, podCIDRs: [...far.podCIDRs, 'fd00:10:244:2::/64'], annotations: odd };
    const want = ready([node('a'), peer], { families: ['ip'] });
    expect(want.nodeFile).toContain('"podCIDRs":["10.244.1.0/24"],"mtuBytes":1450,');
    expect(want.subnetEnv).not.toContain('IPV6');
    expect(Object.keys(want.annotationPatch)).not.toContain('podwire.dev/public-ipv6');
    expect(want.objects.filter(({ kind }) => kind === 'vxlan')).toHaveLength(1);
    expect(want.problems).toEqual([]);
    expect(desired([node('a', { podCIDRs: ['10.244.1.0/24'] })], { families: ['ip6'] })).toEqual({
      kind: 'not-ready',
      reason: expect.stringContaining('IPv6') as string,
    });
  });

  test('masquerade off: no table', () => {
    expect(ready([node('a')], { masquerade: false }).ruleset.tables).toEqual([]);
  });

  test('a family that cannot work is not given to pods', () => {
    const links = host.links.map((link) => ({ ...link, mtuBytes: 1300 }));
    const want = ready([node('a')], {}, { ...host, links });
    expect(want.nodeFile).toBe(
      '{"podCIDRs":["10.244.1.0/24"],"mtuBytes":1250,"backend":"vxlan"}\n',
    );
    expect(want.problems).toHaveLength(1);
  });

  test.each([
    ['1', '2'],
    ['2', '2'],
    ['0', undefined],
  ])('accept_ra %s becomes %s, before forwarding is on', (acceptRa, value) => {
    const want = ready([node('a')], {}, { ...host, acceptRa: () => acceptRa });
    const paths = want.objects.flatMap((o) => (o.kind === 'sysctl' ? [o.path] : []));
    const acceptRaSysctl = want.objects.find(
      (o) => o.kind === 'sysctl' && o.path === 'net/ipv6/conf/eth0/accept_ra',
    );
    expect(acceptRaSysctl?.kind === 'sysctl' ? acceptRaSysctl.value : undefined).toBe(value);
    if (value !== undefined) {
      expect(paths.indexOf('net/ipv6/conf/eth0/accept_ra')).toBeLessThan(
        paths.indexOf('net/ipv6/conf/all/forwarding'),
      );
    }
  });

  test('backend bgp is something for a routing daemon to say, and no objects of the overlay', () => {
    const bgp = { asNumber: 64_512, reflectors: [] };
    const want = ready([node('a'), far], { backend: 'bgp', bgp });
    expect(want.objects.every(({ kind }) => kind === 'sysctl')).toBe(true);
    expect(want.routing?.families.map(({ podCIDR }) => formatPrefix(podCIDR))).toEqual([
      '10.244.1.0/24',
      'fd00:10:244:1::/64',
    ]);
    expect(want.nodeFile).toContain('"mtuBytes":1500,"backend":"bgp"');
    expect(ready([node('a')]).routing).toBeUndefined();
  });

  test('backend udp is a device, and what a forwarder shall do with it', () => {
    const want = ready([node('a'), far], { backend: 'udp', port: 8285 });
    expect(want.objects.map(({ kind }) => kind)).toContain('tun');
    expect(want.forwarding).toMatchObject({ link: 'podwire.udp', port: 8285 });
    expect(ready([node('a')]).forwarding).toBeUndefined();
  });

  test('a node that changed to host-gw keeps receiving what its neighbour still wraps', () => {
    const near = node('b', {
      podCIDRs: ['10.244.2.0/24'],
      internalIPs: ['192.168.1.2'],
      annotations: { ...far.annotations, 'podwire.dev/public-ip': '192.168.1.2' },
    });
    const kinds = (nodes: readonly NodeRecord[]): string[] => [
      ...ready(nodes, { backend: 'host-gw' }).retainedDevices,
    ];
    expect(kinds([node('a'), near])).toEqual(['vxlan']);
    // From behind a router it cannot be answered.
    expect(kinds([node('a'), far])).toEqual([]);
  });

  test('forwarding takes no advertised route from a link that is not the underlay', () => {
    const facts = { ...host, advertisedLinks: ['wan', 'eth0'], acceptRa: () => '1' };
    const want = ready([node('a')], {}, facts);
    const kept = want.objects.flatMap((o) =>
      o.kind === 'sysctl' && o.path.endsWith('/accept_ra') ? [o.path] : [],
    );
    expect(kept).toEqual(['net/ipv6/conf/eth0/accept_ra', 'net/ipv6/conf/wan/accept_ra']);
  });

  test.each<[string, readonly NodeRecord[], string]>([
    ['without its Node', [far], 'Cannot find Node a: it is not registered with the API server'],
    [
      'without podCIDRs',
      [node('a', { podCIDRs: [] })],
      'Cannot find podCIDRs of Node a: none assigned yet (kube-controller-manager does it with --allocate-node-cidrs and --cluster-cidr)',
    ],
    [
      'with podCIDRs nobody can read',
      [node('a', { podCIDRs: ['10.244.1.0'] })],
      'Cannot use podCIDRs of Node a: 10.244.1.0: expected IPv4 or IPv6',
    ],
    [
      'without a link of its own',
      [node('a', { internalIPs: ['10.9.9.9'] })],
      'Cannot choose a link: none has an InternalIP of the Node (10.9.9.9)',
    ],
  ])('waits %s and says why', (_, nodes, reason) => {
    expect(desired(nodes)).toEqual({ kind: 'not-ready', reason });
  });

  test('136. takes the address that people set for it, and announces the one they set', () => {
    const eth1 = {
      name: 'eth1',
      mtuBytes: 1450,
      addresses: ['10.9.0.1/24'].map(parsePrefix),
      onLinkPrefixes: ['10.9.0.0/24'].map(parsePrefix),
    };
    const annotations = {
      'podwire.dev/node-public-ip': '10.9.0.1',
      'podwire.dev/public-ip-overwrite': '203.0.113.9',
      'podwire.dev/public-ipv6-overwrite': 'no',
    };
    const own = node('a', { podCIDRs: ['10.244.1.0/24'], annotations });
    const want = desired([own, far], {}, { ...host, links: [...host.links, eth1] });
    expect(want).toMatchObject({
      underlay: 'eth1',
      annotationPatch: { 'podwire.dev/public-ip': '203.0.113.9' },
      problems: [
        { node: 'a', message: expect.stringContaining('public-ipv6-overwrite') as string },
      ],
    });
  });

  test("the cluster's networks are not masqueraded, and are in subnet.env", () => {
    const want = desired([node('a'), far], { clusterCIDRs: [parsePrefix('10.244.0.0/16')] });
    if (want.kind !== 'desired') throw new Error(want.reason);
    const set = want.ruleset.tables[0]?.sets.find(({ name }) => name === 'nomasq4');
    expect([...(set?.elements ?? [])]).toContain('10.244.0.0/16');
    expect(want.subnetEnv).toContain(
      'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n',
    );
  });
});
