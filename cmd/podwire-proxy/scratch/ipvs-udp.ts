/** UDP clients that never change their port, in mode ipvs beside the clean-up of their flows. */
import { expect } from 'vitest';
import { systemClock } from '#pkg/clock/clock.ts';
import { openConntrack, removeFlows } from '#pkg/conntrack/apply.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import type { ProxiedPort } from '#pkg/proxy/proxied-port.ts';
import { nets } from '#pkg/proxy/testdata/packet-services.ts';
import { portsOf, service, slice, type Cluster } from '#pkg/proxy/testdata/records.ts';
import type { SmallCluster } from '#pkg/proxy/testdata/small-cluster.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { createConntrackCleaner } from '#cmd/podwire-proxy/conntrack-cleaner.ts';
import type { IpvsNode } from './ipvs-node.ts';
import { startUdpClient } from './udp.ts';

const die = (error: Error): never => {
  throw error;
};

/** @param write what there is beside the rest, of which the port of this key may be different */
export async function testUdpClients(
  { ipvs, small }: { readonly ipvs: IpvsNode; readonly small: SmallCluster },
  write: (key: string, ...more: Partial<Cluster>[]) => Promise<void>,
): Promise<void> {
  const key = 'demo/names:u/udp';
  const host = '172.30.0.56';
  const ports = [{ name: 'u', protocol: 'UDP', port: 53, nodePort: 30_056 }] as const;
  const names = service('demo/names', { type: 'NodePort', clusterIPs: [host], ports });
  const target8080 = { ports: [{ name: 'u', protocol: 'UDP', port: 8080 }] } as const;
  await using stack = new AsyncDisposableStack();
  const cleaner = createConntrackCleaner({
    remove: async (search, signal) => {
      const sys = await openSys();
      using kernel = withNetns(sys, small.node.path, () => openConntrack(sys), die);
      return await removeFlows(kernel, search, signal);
    },
    nodePortAddresses: () => [nets.ip.node],
    onCleaned: () => undefined,
    clock: systemClock,
    log: silentLogger,
  });
  const stop = new AbortController();
  const running = cleaner.run(stop.signal);
  stack.defer(async () => {
    stop.abort();
    await running;
  });
  let old: ProxiedPort | undefined;
  const serve = async (...endpoints: string[]): Promise<void> => {
    const slices = [slice('demo/names', endpoints, target8080)];
    await write(key, { services: [names], slices });
    const now = portsOf({ services: [names], slices }).get(key);
    cleaner.afterWrite('ip', [{ key, old, new: now }], { kind: 'partial', written: 1 });
    old = now;
  };
  await serve('10.1.2.2');
  const clients = [
    startUdpClient(small.client, host, 53),
    // Masqueraded: connection tracking has a part in it.
    startUdpClient(small.outside, nets.ip.node, 30_056),
  ].map((client) => stack.use(client));
  const latest = (): string[] => clients.map((client) => client.latest());
  const soon = { timeout: 60_000, interval: 250 };
  await expect.poll(latest, soon).toEqual(clients.map(() => 'one'));
  await serve('10.1.3.2');
  await expect.poll(latest, soon).toEqual(clients.map(() => 'two'));
  await serve();
  await expect.poll(latest, soon).toEqual(clients.map(() => 'ECONNREFUSED'));
  await serve('10.1.2.2');
  await expect.poll(latest, soon).toEqual(clients.map(() => 'one'));
  await write(key);
  expect(await ipvs.differences()).toEqual([]);
}
