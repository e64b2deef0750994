import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { messageOf } from '#pkg/errors/agent-error.ts';
import { parseAddress, type Family } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { applyHostNetwork } from './apply.ts';
import type { VxlanLink } from './device.ts';
import { describeObject, type HostObject, type Sysctl } from './object.ts';
import { observeHostNetwork } from './observe.ts';
import { planHostNetwork } from './plan.ts';
import { openHostKernel, type HostKernel } from './rtnetlink.ts';
import { describeStep, type Step } from './step.ts';

const sys = await openSys();
const die = (error: Error): never => {
  throw error;
};
const never = new AbortController().signal;

let scratch: ScratchNetns;
let socket: NetlinkSocket;
let kernel: HostKernel;

beforeEach(async () => {
  scratch = await createScratchNetns('pw-host');
  // Link-local addresses would come some time later, when the kernel has made sure of them. They are
  // forbidden before the link is up: of one command the kernel does that last.
  await scratch.ip('link add eth0 address 02:ee:00:00:00:01 type veth peer name wire');
  await scratch.ip('link set wire addrgenmode none');
  await scratch.ip('link set wire up');
  await scratch.ip('link set eth0 addrgenmode none');
  await scratch.ip('link set eth0 up');
  await scratch.ip('addr add 192.0.2.1/24 dev eth0');
  await scratch.ip('addr add 2001:db8::1/64 dev eth0 nodad');
  const inside = <T>(fn: () => T): T => withNetns(sys, scratch.path, fn as never, die) as T;
  socket = inside(() => new NetlinkSocket(sys));
  const plain = openHostKernel(socket);
  kernel = {
    ...plain,
    sysctl: (path) => inside(() => plain.sysctl(path)),
    write: (steps) => inside(() => plain.write(steps)),
  };
});

afterEach(async () => {
  socket[Symbol.dispose]();
  await scratch[Symbol.asyncDispose]();
});

/** A node's whole vxlan network in both families, with `peers` other nodes. */
function vxlanNetwork(peers: number): HostObject[] {
  return [...familyNetwork('ip', peers), ...familyNetwork('ip6', peers), ...sysctls];
}

const sysctls: readonly Sysctl[] = [
  { kind: 'sysctl', path: 'net/ipv4/ip_forward', value: '1', optional: false },
  { kind: 'sysctl', path: 'net/ipv4/tcp_rmem', value: '4096 65536 1000000', optional: false },
  { kind: 'sysctl', path: 'net/ipv6/conf/podwire-v6.7/accept_ra', value: '0', optional: false },
  { kind: 'sysctl', path: 'net/podwire/no_such_thing', value: '1', optional: true },
];

function device(family: Family): VxlanLink {
  return {
    kind: 'vxlan',
    link: family === 'ip' ? 'podwire.7' : 'podwire-v6.7',
    vni: 7,
    port: 8472,
    mtuBytes: 1430,
    mac: family === 'ip' ? '02:00:00:00:00:04' : '02:00:00:00:00:06',
    local: parseAddress(family === 'ip' ? '192.0.2.1' : '2001:db8::1'),
    underlay: 'eth0',
  };
}

function familyNetwork(family: Family, peers: number): HostObject[] {
  const vtep = device(family);
  const { link } = vtep;
  const v4 = family === 'ip';
  const objects: HostObject[] = [
    vtep,
    { kind: 'address', link, prefix: parsePrefix(v4 ? '10.244.0.0/32' : 'fd00:10:244::/128') },
  ];
  for (let n = 1; n <= peers; n++) {
    const [high, low] = [n >> 8, n & 255];
    const inner = v4 ? `10.${high}.${low}.0` : `fd00:10:${n.toString(16)}::`;
    const remote = parseAddress(v4 ? `198.18.${high}.${low}` : `2001:db8:1::${n.toString(16)}`);
    const mac = `02:01:${v4 ? '04' : '06'}:00:${hex(high)}:${hex(low)}`;
    const via = parseAddress(inner);
    const destination = parsePrefix(`${inner}/${v4 ? 24 : 64}`);
    objects.push(
      { kind: 'neighbor', link, address: via, mac },
      { kind: 'fdb', link, mac, remote },
      { kind: 'route', destination, via, link, onLink: true },
    );
  }
  return objects;
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0');
}

function plan(want: readonly HostObject[]): readonly Step[] {
  return planHostNetwork(want, observeHostNetwork(kernel, want));
}

/** Applies, and checks the law of every driver: then nothing is left to do. */
async function converge(want: readonly HostObject[]): Promise<readonly string[]> {
  const steps = plan(want);
  await applyHostNetwork(kernel, steps, never);
  expect(plan(want).map(describeStep)).toEqual([]);
  return steps.map(describeStep);
}

describe('after apply, the plan is empty', () => {
  it('for a vxlan network in both families, and back to nothing', async () => {
    const want = vxlanNetwork(3);
    expect(await converge(want)).toHaveLength(want.length - 1);
    expect(await scratch.ip('-d link show podwire.7')).toMatch(
      /mtu 1430[^]*02:00:00:00:00:04[^]*vxlan id 7 local 192\.0\.2\.1 dev eth0[^]*dstport 8472[^]*nolearning/,
    );
    expect(await scratch.ip('route show proto 220')).toContain(
      '10.0.2.0/24 via 10.0.2.0 dev podwire.7 onlink',
    );
    expect(await converge([])).toEqual([
      `delete ${describeObject(device('ip'))}`,
      `delete ${describeObject(device('ip6'))}`,
    ]);
    expect(await scratch.ip('-6 route show proto 220')).toBe('');
  });

  it('for host-gw routes in both families', async () => {
    const hop = { kind: 'route', link: 'eth0', onLink: false } as const;
    const via4 = parseAddress('192.0.2.2');
    await converge([
      { ...hop, destination: parsePrefix('10.1.0.0/24'), via: via4 },
      { ...hop, destination: parsePrefix('10.2.0.0/24'), via: via4, metric: 50 },
      { ...hop, destination: parsePrefix('fd00:1::/64'), via: parseAddress('2001:db8::2') },
    ]);
    await converge([{ ...hop, destination: parsePrefix('10.1.0.0/24'), via: via4 }]);
  });

  it('moves every route off the device before the device goes', async () => {
    await converge(familyNetwork('ip', 2));
    const destination = parsePrefix('10.0.1.0/24');
    const via = parseAddress('192.0.2.2');
    const steps = await converge([
      { kind: 'route', destination, via, link: 'eth0', onLink: false },
    ]);
    expect(steps).toEqual([
      'put route 10.0.1.0/24 via 192.0.2.2 on eth0 (was route 10.0.1.0/24 via 10.0.1.0 on podwire.7 onlink)',
      `delete ${describeObject(device('ip'))}`,
    ]);
  });

  it.each<[string, Partial<VxlanLink>]>([
    ['its MAC address', { mac: '02:00:00:00:00:99' }],
    ['its MTU', { mtuBytes: 1400 }],
    ['its port', { port: 4789 }],
    ['its VNI', { vni: 8 }],
    ['its local address', { local: parseAddress('192.0.2.9') }],
    ['its underlay', { underlay: 'wire' }],
    ['its name', { link: 'podwire.x' }],
  ])('when the device changes %s', async (_, change) => {
    await converge(familyNetwork('ip', 2));
    const link = change.link ?? 'podwire.7';
    await converge(
      familyNetwork('ip', 2).map((object) =>
        object.kind === 'vxlan'
          ? { ...object, ...change }
          : object.kind === 'sysctl'
            ? object
            : { ...object, link },
      ),
    );
  });

  it('150. when a peer changes its address or MAC: one step each', async () => {
    const want = familyNetwork('ip', 2);
    await converge(want);
    const moved = want.map((object) =>
      object.kind === 'fdb' && object.mac.endsWith('02')
        ? { ...object, remote: parseAddress('198.18.9.9') }
        : object,
    );
    expect(await converge(moved)).toEqual([
      'put fdb 02:01:04:00:00:02 to 198.18.9.9 on podwire.7 (was fdb 02:01:04:00:00:02 to 198.18.0.2 on podwire.7)',
    ]);
    const renamed = moved.map((object) =>
      object.kind === 'neighbor' && object.mac.endsWith('02')
        ? { ...object, mac: '02:01:04:00:00:01' }
        : object,
    );
    expect(await converge(renamed)).toHaveLength(1);
  });
});

it('136. says whose the VNI is, as flannel leaves its device when it goes', async () => {
  await scratch.ip('link add flannel.7 type vxlan id 7 dev eth0 local 192.0.2.1 dstport 8472');
  const error = await converge([device('ip')]).catch((thrown: unknown) => thrown);
  expect(messageOf((error as AggregateError).errors[0])).toContain(
    'flannel.7 has VNI 7 and port 8472 already; if nobody uses it any more: ip link del flannel.7',
  );
  await scratch.ip('link del flannel.7');
  expect(await converge([device('ip')])).toHaveLength(1);
});

describe('what people change by hand heals', () => {
  it.each([
    ['a deleted route', 'route del 10.0.1.0/24'],
    ['a deleted IPv6 route', '-6 route del fd00:10:1::/64'],
    ['a route to elsewhere', 'route change 10.0.1.0/24 via 192.0.2.77 dev eth0 proto 220'],
    [
      'a route’s MTU',
      'route change 10.0.1.0/24 via 10.0.1.0 dev podwire.7 onlink proto 220 mtu 500',
    ],
    [
      'a route’s source',
      'route change 10.0.1.0/24 via 10.0.1.0 dev podwire.7 onlink proto 220 src 192.0.2.1',
    ],
    [
      'an IPv6 route’s MTU',
      '-6 route change fd00:10:1::/64 via fd00:10:1:: dev podwire-v6.7 onlink proto 220 mtu 1300',
    ],
    ['a second next hop', '-6 route append fd00:10:1::/64 via 2001:db8::77 dev eth0 proto 220'],
    ['a route under our number', 'route add 10.99.0.0/16 via 192.0.2.9 proto 220 metric 3'],
    ['a deleted neighbour', 'neigh del 10.0.1.0 dev podwire.7'],
    ['a changed neighbour', 'neigh replace 10.0.1.0 lladdr 02:bb:00:00:00:00 dev podwire.7'],
    ['an added neighbour', 'neigh add 10.77.0.0 lladdr 02:bb:00:00:00:00 dev podwire.7'],
    ['a deleted address', 'addr del 10.244.0.0/32 dev podwire.7'],
    ['an added address', 'addr add 10.245.0.1/24 dev podwire.7'],
    ['a changed MAC address', 'link set podwire.7 address 02:aa:00:00:00:01'],
    ['a changed MTU', 'link set podwire-v6.7 mtu 1300'],
    ['a device that is down', 'link set podwire.7 down'],
    ['an IPv6 device that is down', 'link set podwire-v6.7 down'],
    ['a deleted device', 'link del podwire.7'],
    ['a deleted IPv6 device', 'link del podwire-v6.7'],
    ['a device that learns', 'link set podwire.7 type vxlan id 7 learning'],
    ['a device’s TTL', 'link set podwire.7 type vxlan id 7 ttl 1'],
    ['an IPv6 device’s traffic class', 'link set podwire-v6.7 type vxlan id 7 tos 0x10'],
    ['a device without its mark', 'link set podwire.7 alias '],
    ['an IPv6 device with another mark', 'link set podwire-v6.7 alias theirs'],
  ])('%s', async (_, words) => {
    const want = vxlanNetwork(2);
    await converge(want);
    await scratch.ip(words);
    expect(await converge(want)).not.toEqual([]);
  });

  it.each([
    ['a deleted entry', 'del 02:01:04:00:00:01 dev podwire.7'],
    ['a changed entry', 'replace 02:01:04:00:00:01 dev podwire.7 dst 198.18.7.7 self permanent'],
    [
      'an entry’s port',
      'replace 02:01:04:00:00:01 dev podwire.7 dst 198.18.0.1 port 9 self permanent',
    ],
    [
      'an entry’s VNI',
      'replace 02:01:04:00:00:01 dev podwire.7 dst 198.18.0.1 vni 9 self permanent',
    ],
    [
      'an entry’s link',
      'replace 02:01:04:00:00:01 dev podwire.7 dst 198.18.0.1 via lo self permanent',
    ],
    ['an added port', 'add 02:cc:00:00:00:01 dev podwire.7 dst 198.18.7.7 port 9 self permanent'],
    ['an added entry', 'add 02:cc:00:00:00:01 dev podwire.7 dst 198.18.7.7 self permanent'],
    ['an entry for all', 'append 00:00:00:00:00:00 dev podwire.7 dst 198.18.7.7 self permanent'],
  ])('in the FDB: %s', async (_, words) => {
    const want = familyNetwork('ip', 2);
    await converge(want);
    await scratch.exec('bridge', ['fdb', ...words.split(' ')]);
    expect(await converge(want)).toHaveLength(1);
  });

  it('a device without its mark that is down, has another MTU and a stranger’s address, too', async () => {
    const want = vxlanNetwork(2);
    await converge(want);
    await scratch.ip('link set podwire.7 down mtu 1300 alias ');
    await scratch.ip('addr add 10.245.0.1/24 dev podwire.7');
    await converge(want);
    expect(await scratch.ip('-d link show podwire.7')).toMatch(/mtu 1430[^]*alias podwire vxlan/);
    expect(await scratch.ip('addr show podwire.7')).not.toContain('10.245.0.1');
  });

  it('a sysctl, also that of a device that was made anew', async () => {
    const want = vxlanNetwork(1);
    await converge(want);
    await scratch.exec('sysctl', ['-qw', 'net.ipv4.ip_forward=0']);
    expect(await converge(want)).toEqual([
      'put sysctl net/ipv4/ip_forward = 1 (was sysctl net/ipv4/ip_forward = 0)',
    ]);
    await scratch.ip('link del podwire-v6.7');
    expect(await converge(want)).toContain(
      'put sysctl net/ipv6/conf/podwire-v6.7/accept_ra = 0 (was sysctl net/ipv6/conf/podwire-v6.7/accept_ra (missing))',
    );
  });
});

describe('what belongs to others', () => {
  it('149. stays untouched', async () => {
    // The kernel says only after a while that both ends are up.
    const ends = (): Promise<string> => scratch.ip('-br link show type veth');
    await expect.poll(ends).toMatch(/^(?:\S+ +UP .*\n?){2}$/);
    await scratch.ip('link add other type bridge');
    await scratch.ip('link set other addrgenmode none');
    await scratch.ip('link set other up');
    await scratch.ip('addr add 10.50.0.1/24 dev other');
    await scratch.ip('link add vxlan9 type vxlan id 9 dstport 4789 local 192.0.2.1 dev eth0');
    await scratch.ip('link set vxlan9 addrgenmode none');
    await scratch.ip('link set vxlan9 up');
    await scratch.ip('neigh add 10.50.0.9 lladdr 02:cc:00:00:00:01 dev vxlan9 nud permanent');
    await scratch.exec('bridge', 'fdb add 02:cc:00:00:00:02 dev vxlan9 dst 198.18.8.8'.split(' '));
    await scratch.ip('route add 10.60.0.0/16 via 192.0.2.9');
    await scratch.ip('route add 10.61.0.0/16 via 192.0.2.9 table 100 proto 220');
    await scratch.ip('-6 route add fd00:60::/64 via 2001:db8::9 proto static');
    await scratch.ip('neigh add 192.0.2.9 lladdr 02:cc:00:00:00:03 dev eth0 nud permanent');
    const foreign = (): Promise<string[]> =>
      Promise.all([
        scratch.ip('-d -br addr show'),
        scratch.ip('route show table all'),
        scratch.ip('-6 route show table all proto static'),
        scratch.ip('neigh show nud permanent'),
        scratch.exec('bridge', ['fdb', 'show']).then(({ stdout }) => stdout),
      ]);
    const before = await foreign();
    await converge(vxlanNetwork(2));
    await converge([]);
    expect(await foreign()).toEqual(before);
  });

  it.each([
    ['another kind', 'type bridge'],
    ['another VNI', 'type vxlan id 9 dev eth0 local 192.0.2.1 dstport 8472 nolearning'],
    ['another port', 'type vxlan id 7 dev eth0 local 192.0.2.1 dstport 4789 nolearning'],
    ['another address', 'type vxlan id 7 dev eth0 local 192.0.2.2 dstport 8472 nolearning'],
    ['another underlay', 'type vxlan id 7 dev wire local 192.0.2.1 dstport 8472 nolearning'],
    ['learning', 'type vxlan id 7 dev eth0 local 192.0.2.1 dstport 8472'],
    ['group policy', 'type vxlan id 7 dev eth0 local 192.0.2.1 dstport 8472 nolearning gbp'],
    ['another MAC', 'type vxlan id 7 dev eth0 local 192.0.2.1 dstport 8472 nolearning', '05'],
  ])(
    'a device of our name with %s stays, and the error has the remedy',
    async (_, made, mac = '04') => {
      await scratch.ip(`link add podwire.7 address 02:00:00:00:00:${mac} mtu 1400 ${made}`);
      await scratch.ip('link set podwire.7 alias theirs');
      const before = await scratch.ip('-d link show podwire.7');
      const failure = await applyHostNetwork(kernel, plan(familyNetwork('ip', 1)), never).catch(
        (e: unknown) => e,
      );
      expect(failure).toMatchObject({
        errors: [
          {
            step: { object: { kind: 'vxlan', link: 'podwire.7' } },
            cause: {
              code: 'NameTaken',
              message:
                'Cannot create podwire.7: there is a device of this name that this node did not make so; if nobody uses it any more: ip link del podwire.7',
            },
          },
        ],
      });
      expect(await scratch.ip('-d link show podwire.7')).toBe(before);
      await scratch.ip('link del podwire.7');
      await converge(familyNetwork('ip', 1));
    },
  );

  it.each([
    {
      family: 'ip',
      theirs: '10.0.1.0/24 via 192.0.2.9 dev eth0 proto 4',
      step: 'put route 10.0.1.0/24 via 10.0.1.0 on podwire.7 onlink',
    },
    {
      family: 'ip6',
      theirs: 'fd00:10:1::/64 via 2001:db8::9 dev eth0 proto 4',
      step: 'put route fd00:10:1::/64 via fd00:10:1:: on podwire-v6.7 onlink',
    },
  ] as const)('$family: is an error where it is in the way, and not overwritten', async (row) => {
    const { family, step, theirs } = row;
    const ip = family === 'ip' ? '' : '-6 ';
    await scratch.ip(`${ip}route add ${theirs}`);
    const want = familyNetwork(family, 2);
    const failure = await applyHostNetwork(kernel, plan(want), never).catch((e: unknown) => e);
    const [destination = ''] = theirs.split(' ');
    const remedy = `ip ${ip}route del ${theirs}`;
    expect(failure).toMatchObject({
      errors: [
        {
          code: 'StepFailed',
          cause: {
            code: 'RouteTaken',
            message: `Cannot have the route to ${destination}: there is one of somebody else's; if nobody needs it any more: ${remedy}`,
          },
        },
      ],
      message: 'Cannot apply 1 of 8 changes to the host network',
    });
    expect(await scratch.ip(`${ip}route show ${destination}`)).toContain('dev eth0');
    expect(plan(want).map(describeStep)).toEqual([step]);
    await scratch.ip(remedy.slice('ip '.length));
    await applyHostNetwork(kernel, plan(want), never);
    expect(plan(want)).toEqual([]);
  });
});

it('a route under our number on a device that is not ours is named with the remedy, too', async () => {
  // What stays of a device that has lost its mark, when another backend takes its place.
  await scratch.ip('route add 10.0.1.0/24 dev eth0 proto 220');
  const want = familyNetwork('ip', 1);
  const failure = await applyHostNetwork(kernel, plan(want), never).catch((e: unknown) => e);
  const remedy = 'ip route del 10.0.1.0/24 dev eth0 proto 220';
  expect(messageOf((failure as AggregateError).errors[0])).toContain(
    `there is one of somebody else's; if nobody needs it any more: ${remedy}`,
  );
  await scratch.ip(remedy.slice('ip '.length));
  await converge(want);
});

it('a missing underlay fails its device alone, and what lives on it waits', async () => {
  const want = vxlanNetwork(1).map((object) =>
    object.kind === 'vxlan' && object.link === 'podwire.7'
      ? { ...object, underlay: 'eth9' }
      : object,
  );
  const failure = await applyHostNetwork(kernel, plan(want), never).catch((e: unknown) => e);
  expect(failure).toMatchObject({
    errors: [{ step: { op: 'put', object: { kind: 'vxlan', link: 'podwire.7' } } }],
  });
  expect(await scratch.ip('-6 route show proto 220')).toContain('fd00:10:1::/64');
  await converge(vxlanNetwork(1));
});
