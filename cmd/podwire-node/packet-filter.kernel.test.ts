import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AgentError } from '#pkg/errors/agent-error.ts';
import { parsePrefix } from '#pkg/ip/prefix.ts';
import { probeBackends } from '#pkg/iptables/testdata/scratch-tools.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { packetFilterRulesets } from '#pkg/pod-network/packet-filter.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { IptablesDriver } from './packet-filter-driver.ts';

/**
 * A pod behind the host, and the outside, which knows no way back to pods: it answers what comes
 * from the host's address only. The host drops what it forwards, as one with Docker does.
 */
const signal = new AbortController().signal;
const backends = await probeBackends();
const sys = await openSys();
const opened = new AsyncDisposableStack();
let host: ScratchNetns;
let pod: ScratchNetns;
let outside: ScratchNetns;

beforeAll(async () => {
  host = opened.use(await createScratchNetns('pw-pf-host'));
  pod = opened.use(await createScratchNetns('pw-pf-pod'));
  outside = opened.use(await createScratchNetns('pw-pf-out'));
  await host.ip(`link add pod0 type veth peer name eth0 netns ${pod.name}`);
  await host.ip(`link add out0 type veth peer name eth0 netns ${outside.name}`);
  for (const [netns, link] of [
    [host, 'pod0'],
    [host, 'out0'],
    [pod, 'eth0'],
    [outside, 'eth0'],
  ] as const) {
    await netns.ip(`link set ${link} up`);
  }
  await host.exec('sysctl', ['-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']);
  await host.ip('addr add 10.244.1.1/24 dev pod0');
  await host.ip('addr add fd00:244:1::1/64 dev pod0 nodad');
  await pod.ip('addr add 10.244.1.9/24 dev eth0');
  await pod.ip('addr add fd00:244:1::9/64 dev eth0 nodad');
  await pod.ip('route add default via 10.244.1.1');
  await pod.ip('-6 route add default via fd00:244:1::1');
  await host.ip('addr add 192.0.2.1/24 dev out0');
  await host.ip('addr add 2001:db8::1/64 dev out0 nodad');
  await outside.ip('addr add 192.0.2.2/24 dev eth0');
  await outside.ip('addr add 2001:db8::2/64 dev eth0 nodad');
});
afterAll(() => opened.disposeAsync());

const ownPodCIDRs = ['10.244.1.0/24', 'fd00:244:1::/64'].map(parsePrefix);
const masquerade = {
  ownPodCIDRs,
  podCIDRs: ownPodCIDRs,
  nodeAddresses: [],
  nonMasqueradeCIDRs: [],
};
const want = packetFilterRulesets({ ownPodCIDRs, forward: true, masquerade });
const nothing = packetFilterRulesets({ ownPodCIDRs, forward: false, masquerade: undefined });

/** @param patienceSeconds little where no answer is expected */
async function reaches(address: string, patienceSeconds = 20): Promise<boolean> {
  return pod.exec('ping', ['-c1', `-W${patienceSeconds}`, '-q', address]).then(
    () => true,
    () => false,
  );
}

describe.each(backends)('iptables, $title', ({ backend, usable }) => {
  const variant = backend === 'legacy' ? '-legacy' : '-nft';
  const hidden = backend === 'legacy' ? '-nft' : '-legacy';
  const programs = [`iptables${variant}`, `ip6tables${variant}`] as const;
  let told = 0;
  let driver: IptablesDriver;

  beforeAll(async () => {
    if (!usable) return;
    for (const program of programs) await host.exec(program, ['-P', 'FORWARD', 'DROP']);
    driver = new IptablesDriver({
      run: (file, args, options) =>
        file.includes(hidden)
          ? Promise.reject(new AgentError('CommandMissing', `Cannot run ${file}: hidden`))
          : host.exec(file, args, options),
      sys: inHost,
      log: silentLogger,
      onChange: () => (told += 1),
    });
  });
  afterAll(async () => {
    if (!usable) return;
    driver?.[Symbol.dispose]();
    for (const program of programs) await host.exec(program, ['-P', 'FORWARD', 'ACCEPT']);
  });

  test.skipIf(!usable)('pods pass where the host drops, as the host', async () => {
    expect(await reaches('192.0.2.2', 1)).toBe(false);
    expect(await driver.converge(want, signal)).not.toEqual([]);
    expect(await reaches('192.0.2.2')).toBe(true);
    expect(await reaches('2001:db8::2')).toBe(true);
    driver.doubt();
    expect(await driver.converge(want, signal)).toEqual([]);
    expect(told).toBe(0);
  });

  test.skipIf(!usable)(
    'pods keep their addresses where they are to, in both families',
    async () => {
      const nonMasqueradeCIDRs = ['192.0.2.0/24', '2001:db8::/32'].map(parsePrefix);
      const kept = { ...masquerade, nonMasqueradeCIDRs };
      const keeping = packetFilterRulesets({ ownPodCIDRs, forward: true, masquerade: kept });
      await driver.converge(keeping, signal);
      const to = ['192.0.2.2', '2001:db8::2'];
      // Outside knows no way to pods, until it is told one.
      for (const address of to) expect([address, await reaches(address)]).toEqual([address, false]);
      await outside.ip('route add 10.244.1.0/24 via 192.0.2.1');
      await outside.ip('-6 route add fd00:244:1::/64 via 2001:db8::1');
      for (const address of to) expect([address, await reaches(address)]).toEqual([address, true]);
      await outside.ip('route del 10.244.1.0/24');
      await outside.ip('-6 route del fd00:244:1::/64');
      expect(await driver.converge(want, signal)).not.toEqual([]);
      for (const address of to) expect([address, await reaches(address)]).toEqual([address, true]);
    },
  );

  test.skipIf(!usable)('132. tells of what others delete, and brings it back', async () => {
    const [program] = programs;
    for (const args of [
      ['-t', 'filter', '-F', 'FORWARD'],
      ['-t', 'nat', '-F', 'PODWIRE-MASQUERADE'],
      ['-t', 'filter', '-F'],
    ]) {
      told = 0;
      await host.exec(program, args);
      // Nothing but a look of its own tells.
      await expect.poll(() => told).toBeGreaterThan(0);
      expect(await driver.converge(want, signal)).not.toEqual([]);
      expect(await reaches('192.0.2.2')).toBe(true);
    }
  });

  test.skipIf(!usable)("leaves others' rules alone, and nothing of its own", async () => {
    const [program] = programs;
    await host.exec(program, ['-A', 'FORWARD', '-s', '203.0.113.0/24', '-j', 'ACCEPT']);
    expect(await driver.converge(nothing, signal)).not.toEqual([]);
    const { stdout } = await host.exec(`${program}-save`, []);
    expect(stdout).not.toContain('PODWIRE');
    expect(stdout).toContain('-A FORWARD -s 203.0.113.0/24 -j ACCEPT');
    await host.exec(program, ['-F', 'FORWARD']);
  });
});

/** Opens its sockets in the host's namespace, whenever that is. */
const inHost: typeof sys = new Proxy(sys, {
  get(target, name, receiver) {
    if (name !== 'socket') return Reflect.get(target, name, receiver) as unknown;
    const socket: typeof sys.socket = (...args) =>
      withNetns(
        sys,
        host.path,
        () => target.socket(...args),
        (error) => {
          throw error;
        },
      );
    return socket;
  },
});

test('without iptables it wants none, unless it is to masquerade', async () => {
  const missing = (file: string): Promise<never> =>
    Promise.reject(new AgentError('CommandMissing', `Cannot run ${file}: there is none`));
  using driver = new IptablesDriver({
    run: missing,
    sys,
    log: silentLogger,
    onChange: () => undefined,
  });
  const forward = packetFilterRulesets({ ownPodCIDRs, forward: true, masquerade: undefined });
  expect(await driver.converge(forward, signal)).toEqual([]);
  await expect(driver.converge(want, signal)).rejects.toThrow('there is no program nft');
});
