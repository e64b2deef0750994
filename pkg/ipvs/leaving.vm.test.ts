/** What each scheduler of the kernel does while an endpoint is leaving, which its own code decides. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runCommand } from '#pkg/exec/run.ts';
import { createSmallCluster, type SmallCluster } from '#pkg/proxy/testdata/small-cluster.ts';
import { applyIpvs } from './apply.ts';
import { observeIpvs } from './observe.ts';
import { planIpvs } from './plan.ts';
import { schedulerFlags } from './scheduler-flags.ts';
import { serverKey, type VirtualServer } from './virtual-server.ts';

/** Tests have limits of their own, and so has each program. */
const { signal } = new AbortController();
const address = '172.30.0.1';
const reals = { one: '10.1.2.2', two: '10.1.3.2' } as const;

let small: SmallCluster;

beforeAll(async () => {
  small = await createSmallCluster();
  const device = ['link add services type dummy', `addr add ${address}/32 dev services`];
  await small.node.batch(device);
});
afterAll(() => small[Symbol.asyncDispose]());

async function write(server: VirtualServer): Promise<void> {
  // Not `ip netns exec`, which makes a mount namespace each time.
  const run: typeof runCommand = (file, args, options) =>
    runCommand('nsenter', [`--net=${small.node.path}`, file, ...args], options);
  const unwanted = { isOurs: () => true, mayEmpty: () => false };
  const want = new Map([[serverKey(server), server]]);
  const { deletions, puts } = planIpvs(want, await observeIpvs(run, signal), unwanted);
  await applyIpvs(run, [...puts, ...deletions], signal);
}

/** Of many clients some are always of the share of the one that leaves. */
const count = 20;

it.each([
  ['rr', []],
  ['sh', []],
  ['sh', ['sh-port']],
  ['dh', []],
  ['mh', []],
  ['mh', ['mh-port']],
] as const)(
  'S137. scheduler %s %j: who stays gets all new connections',
  async (scheduler, given) => {
    const served = (...names: readonly (keyof typeof reals)[]): VirtualServer => ({
      family: 'ip',
      protocol: 'tcp',
      address,
      port: 80,
      scheduler,
      flags: schedulerFlags(scheduler, given),
      persistenceSeconds: 0,
      realServers: names.map((name) => ({ address: reals[name], port: 8080, weight: 1 })),
    });
    for (const stays of ['one', 'two'] as const) {
      await write(served('one', 'two'));
      await write(served(stays));
      const answers = await small.connect(small.client, { host: address, port: 80, count });
      expect([...new Set(answers)]).toEqual([`${stays} 10.1.1.2`]);
    }
  },
);
