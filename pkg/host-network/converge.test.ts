import { expect, it } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { applyHostNetwork } from './apply.ts';
import { FakeHostKernel } from './fake-kernel.ts';
import type { HostObject } from './object.ts';
import { observeHostNetwork } from './observe.ts';
import { planHostNetwork } from './plan.ts';
import { describeStep } from './step.ts';

/** A device with all that lives on it, for two peers. */
function network(change: { readonly port: number; readonly remote: string }): HostObject[] {
  const link = 'podwire.1';
  const local = parseAddress('192.0.2.1');
  const own = { mtuBytes: 1450, mac: '02:00:00:00:00:01', underlay: '' };
  return [
    { kind: 'sysctl', path: 'net/ipv4/ip_forward', value: '1', optional: false },
    { kind: 'vxlan', link, vni: 1, port: change.port, local, ...own },
    { kind: 'address', link, prefix: parsePrefix('10.244.1.0/32') },
    ...['2', '3'].flatMap((n): HostObject[] => {
      const via = parseAddress(`10.244.${n}.0`);
      const mac = `02:00:00:00:00:0${n}`;
      const destination = parsePrefix(`10.244.${n}.0/24`);
      return [
        { kind: 'neighbor', link, address: via, mac },
        { kind: 'fdb', link, mac, remote: parseAddress(change.remote) },
        { kind: 'route', destination, via, link, onLink: true },
      ];
    }),
  ];
}

/** WireGuard and tunnels of both families at once, to two peers. */
function tunnels(change: { readonly port: number; readonly local: string }): HostObject[] {
  const local = parseAddress(change.local);
  const [local6, remote6] = ['2001:db8::1', '2001:db8::2'].map(parseAddress);
  if (local6 === undefined || remote6 === undefined) throw new Error('two were parsed');
  const [wg, ip, ip6] = ['podwire-wg', 'podwire.ipip', 'podwire-v6.ipip'] as const;
  return [
    { kind: 'wireguard', link: wg, port: change.port, mtuBytes: 1420, publicKey: 'own' },
    { kind: 'address', link: wg, prefix: parsePrefix('10.244.1.0/32') },
    { kind: 'tunnel', link: ip, mtuBytes: 1480, local },
    { kind: 'tunnel', link: ip6, mtuBytes: 1460, local: undefined },
    { kind: 'tun', link: 'podwire.udp', mtuBytes: 1452 },
    {
      kind: 'wireguard-peer',
      link: wg,
      publicKey: 'peer',
      endpoint: { address: parseAddress('192.0.2.2'), port: change.port },
      allowedIPs: [parsePrefix('10.244.2.0/24')],
      keepaliveSeconds: 0,
      presharedKey: undefined,
    },
    { kind: 'route', destination: parsePrefix('10.244.2.0/24'), link: wg, onLink: false },
    {
      kind: 'route',
      destination: parsePrefix('10.244.3.0/24'),
      via: parseAddress('192.0.2.3'),
      link: ip,
      onLink: true,
    },
    {
      kind: 'route',
      destination: parsePrefix('fd00:10:244:3::/64'),
      link: ip6,
      onLink: false,
      encap: { local: local6, remote: remote6 },
    },
  ];
}

const never = new AbortController().signal;

async function round(kernel: FakeHostKernel, want: readonly HostObject[]): Promise<void> {
  const steps = planHostNetwork(want, observeHostNetwork(kernel, want));
  await applyHostNetwork(kernel, steps, never);
}

const before = network({ port: 8472, remote: '198.18.0.1' });
const scenarios: readonly [string, readonly HostObject[], readonly HostObject[]][] = [
  ['from nothing', [], before],
  ['to nothing', before, []],
  ['to other peers', before, network({ port: 8472, remote: '198.18.0.2' })],
  ['to another device', before, network({ port: 4789, remote: '198.18.0.1' })],
  ['from nothing to tunnels', [], tunnels({ port: 51_820, local: '192.0.2.1' })],
  ['from vxlan to tunnels', before, tunnels({ port: 51_820, local: '192.0.2.1' })],
  [
    'to other tunnels',
    tunnels({ port: 51_820, local: '192.0.2.1' }),
    tunnels({ port: 51_821, local: '192.0.2.9' }),
  ],
  ['from tunnels to vxlan', tunnels({ port: 51_820, local: '192.0.2.1' }), before],
];

it.each(scenarios)('%s: whichever kernel call fails, the next round heals', async (_, from, to) => {
  const calm = new FakeHostKernel();
  await round(calm, from);
  const started = calm.calls;
  await round(calm, to);
  const calls = calm.calls - started;
  expect(calls).toBeGreaterThan(4);
  for (let failing = 1; failing <= calls; failing++) {
    const kernel = new FakeHostKernel();
    await round(kernel, from);
    kernel.failAt = kernel.calls + failing;
    await expect(round(kernel, to), `call ${failing}`).rejects.toThrow();
    expect(kernel.calls).toBeGreaterThanOrEqual(kernel.failAt);
    await round(kernel, to);
    const left = planHostNetwork(to, observeHostNetwork(kernel, to));
    expect(left.map(describeStep), `after call ${failing} failed`).toEqual([]);
  }
});

it('applyHostNetwork() tries the rest after a failure, except what lives on the failed link', async () => {
  const kernel = new FakeHostKernel();
  const other: HostObject = {
    kind: 'sysctl',
    path: 'net/ipv4/ip_forward',
    value: '1',
    optional: false,
  };
  const steps = planHostNetwork([...before.slice(1), other], []);
  kernel.failAt = 1;
  await expect(applyHostNetwork(kernel, steps, never)).rejects.toMatchObject({
    message: 'Cannot apply 1 of 9 changes to the host network',
    errors: [{ code: 'StepFailed', step: steps[0], cause: { code: 'EIO' } }],
  });
  expect(kernel.calls).toBe(2);
});

it('applyHostNetwork() reports every step of a batch that could not be sent', async () => {
  const steps = planHostNetwork(before, []);
  const deaf = {
    write(): never {
      throw new Error('Cannot send');
    },
  };
  const failure: unknown = await applyHostNetwork(deaf, steps.slice(1), never).catch((e) => e);
  expect(failure).toBeInstanceOf(AggregateError);
  expect((failure as AggregateError).errors).toHaveLength(steps.length - 1);
});

it('applyHostNetwork() stops between batches when aborted', async () => {
  const kernel = new FakeHostKernel();
  const stop = AbortSignal.abort(new Error('stopped'));
  await expect(applyHostNetwork(kernel, planHostNetwork(before, []), stop)).rejects.toThrow(
    'stopped',
  );
  expect(kernel.calls).toBe(0);
});
