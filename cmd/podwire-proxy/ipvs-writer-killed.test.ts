/** A proxy that is killed after any line it writes, and the next one: what it makes of the rest. */
import { expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { ipvsOptions } from '#pkg/proxy/testdata/ipvs-trace.ts';
import { local, p80, portsOf, service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import { createIpvsWriter, type IpvsWriter } from './ipvs-writer.ts';
import { FakeIpvsKernel } from './scratch/fake-ipvs-kernel.ts';
import { noRules as rules } from './scratch/no-rules.ts';

const signal = new AbortController().signal;

function writerOf(kernel: FakeIpvsKernel, scheduler = 'rr'): IpvsWriter {
  return createIpvsWriter({
    family: 'ip',
    driver: kernel,
    rules,
    options: (_, own) =>
      ipvsOptions({ scheduler, nodePortAddresses: own, hostAddresses: own, nodeAddress: own[0] }),
    otherHosts: () => new Set(),
    isOurs: () => true,
    observeIntervalMs: 3_600_000,
    onParked: ({ name }) => expect.unreachable(name),
    clock: new FakeClock(1_000_000),
    log: silentLogger,
  });
}

async function write(writer: IpvsWriter, cluster: Cluster): Promise<number> {
  const want = { ports: portsOf(cluster), changed: 'all', node: undefined } as const;
  return (await writer.write(want, signal)).written;
}

const balanced = {
  type: 'LoadBalancer',
  ports: p80(30080),
  loadBalancerIngress: [{ ip: '203.0.113.1', ipMode: 'VIP' }],
} as const;
const old: Cluster = {
  services: [
    service('a/goes', { clusterIPs: ['10.96.0.1'], externalIPs: ['203.0.113.9'] }),
    service('a/changes', { clusterIPs: ['10.96.0.2'], ...balanced }),
    service('a/empties', { clusterIPs: ['10.96.0.3'] }),
    service('a/filled', { clusterIPs: ['10.96.0.4'] }),
  ],
  slices: [
    slice('a/goes', ['10.1.0.1']),
    slice('a/changes', ['10.1.0.2', local('10.1.0.3')]),
    slice('a/empties', ['10.1.0.4', '10.1.0.5']),
  ],
};
const next: Cluster = {
  services: [
    service('a/comes', { clusterIPs: ['10.96.0.5'], externalIPs: ['203.0.113.9'] }),
    service('a/changes', {
      clusterIPs: ['10.96.0.2'],
      ...balanced,
      affinitySeconds: 60,
      externalTrafficPolicy: 'Local',
      loadBalancerSourceRanges: ['192.0.2.0/24'],
    }),
    service('a/empties', { clusterIPs: ['10.96.0.3'] }),
    service('a/filled', { clusterIPs: ['10.96.0.4'] }),
  ],
  slices: [
    slice('a/comes', [local('10.1.0.1')]),
    slice('a/changes', [local('10.1.0.3'), '10.1.0.6']),
    slice('a/filled', ['10.1.0.7']),
  ],
};

/** As the old one left it, and with a set that has no room for what comes. */
async function kernelOfOld(): Promise<FakeIpvsKernel> {
  const kernel = new FakeIpvsKernel();
  kernel.makeSet('create KUBE-LOOP-BACK hash:ip,port,ip family inet maxelem 1');
  kernel.makeSet('create KUBE-CLUSTER-IP hash:ip,port family inet maxelem 3');
  await write(writerOf(kernel), old);
  for (const n of [2, 4, 5]) kernel.connectionsOf.set(`10.1.0.${n}:80`, 1);
  const kinds = kernel.savedSets().filter((line) => line.startsWith('create'));
  expect(kinds).toContain('create KUBE-CLUSTER-IP hash:ip,port family inet maxelem 3');
  kernel.makeSet('create KUBE-EXTERNAL-IP-NEW hash:ip,port family inet maxelem 7');
  kernel.take();
  return kernel;
}

it('the next proxy arrives at the same, whichever line was the last', async () => {
  const undisturbed = await kernelOfOld();
  await write(writerOf(undisturbed, 'lc'), next);
  const lines = undisturbed.take();
  expect(lines.length).toBeGreaterThan(35);
  expect(lines).toContain('ipset swap KUBE-LOOP-BACK-NEW KUBE-LOOP-BACK');
  const wanted = undisturbed.state();
  expect(wanted.join('\n')).not.toContain('-NEW');
  for (let n = 1; n <= lines.length; n++) {
    const kernel = await kernelOfOld();
    kernel.linesToLive = n;
    await expect(write(writerOf(kernel, 'lc'), next)).rejects.toThrow('killed');
    kernel.linesToLive = Number.POSITIVE_INFINITY;
    await write(writerOf(kernel, 'lc'), next);
    expect([n, kernel.state()]).toEqual([n, wanted]);
    expect([n, await write(writerOf(kernel, 'lc'), next)]).toEqual([n, 0]);
  }
});
