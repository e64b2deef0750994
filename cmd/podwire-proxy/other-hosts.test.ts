import { expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import type { KubeClient } from '#pkg/kube/client.ts';
import type { WritableStore } from '#pkg/kube/store.ts';
import type { NodeAddressesRecord } from '#pkg/kube/types.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { createOtherHosts, hasExternalAddress } from './other-hosts.ts';

const clock = new FakeClock();
const { signal } = new AbortController();

function rig(server = 'https://10.96.0.1:443') {
  const lines: string[] = [];
  const stores: WritableStore<NodeAddressesRecord>[] = [];
  const log = { ...silentLogger, warn: (_: object, line: string) => void lines.push(line) };
  const watchResource = ((_: unknown, __: unknown, given: WritableStore<NodeAddressesRecord>) => {
    stores.push(given);
  }) as unknown as KubeClient['watchResource'];
  const client = { watchResource };
  const others = createOtherHosts({ client, clock, log, nodeName: 'here', server }, signal);
  return { others, stores, lines };
}

/** Asked for the first time; `nodes` is what the server has. */
async function known(server: string, nodes: readonly NodeAddressesRecord[] = []) {
  const { lines, others, stores } = rig(server);
  expect(others.current()).toBeUndefined();
  const [store, ...more] = stores;
  if (store === undefined || more.length > 0) throw new Error('not one watch');
  const told = Promise.withResolvers<void>();
  using _ = others.onChange(told.resolve);
  store.replace(nodes);
  await told.promise;
  return { lines, others, store };
}

const list = ({ current }: { readonly current: () => ReadonlySet<string> | undefined }) => [
  ...(current() ?? ['not known']),
];

const node = (name: string, ...addresses: string[]): NodeAddressesRecord => ({
  namespace: '',
  name,
  uid: name,
  resourceVersion: '1',
  addresses,
});

it('nothing is watched before somebody asks', async () => {
  const { others, stores } = rig();
  using _ = others.onChange(() => undefined);
  await clock.advance(60_000);
  expect(stores).toEqual([]);
  others.current();
  void others.whenKnown(signal);
  expect(stores).toHaveLength(1);
});

it.each([
  ['https://192.0.2.10:6443', '192.0.2.10'],
  ['https://[2001:DB8::10]:6443', '2001:db8::10'],
])('the API server %s is one', async (server, address) => {
  const { others } = await known(server);
  expect(list(others)).toEqual([address]);
});

it('so are other nodes, in canonical text, as they come and go; this node is not', async () => {
  const { others, store } = await known('https://api.example:6443', [
    node('here', '192.168.0.1'),
    node('there', '192.168.0.2', 'FD00:192::2', 'no address', '198.51.100.2'),
  ]);
  expect(list(others)).toEqual(['192.168.0.2', 'fd00:192::2', '198.51.100.2']);
  expect(others.current()).toBe(others.current());
  const changed = Promise.withResolvers<void>();
  using _ = others.onChange(changed.resolve);
  store.remove('there');
  await changed.promise;
  expect(list(others)).toEqual([]);
});

it('a new version of a Node that is where it was is no news', async () => {
  const there = node('there', '192.168.0.2');
  const { others, store } = await known('https://api.example:6443', [there]);
  let told = 0;
  using _ = others.onChange(() => (told += 1));
  store.put({ ...there, resourceVersion: '2' });
  await clock.advance(1);
  expect(told).toBe(0);
  store.put(node('other', '192.168.0.3'));
  await clock.advance(1);
  expect(told).toBe(1);
});

it('they are waited for, but not for ever', async () => {
  const { lines, others } = rig();
  let isKnown = false;
  const waiting = others.whenKnown(signal).then(() => (isKnown = true));
  await clock.advance(14_000);
  expect([isKnown, others.current()]).toEqual([false, undefined]);
  await clock.advance(1_000);
  await waiting;
  expect(list(others)).toEqual(['10.96.0.1']);
  expect(lines.join('\n')).toContain('Nodes are not known');
  const after = await known('https://10.96.0.1:443');
  await clock.advance(15_000);
  expect(after.lines).toEqual([]);
});

it('who is told to stop waits no longer', async () => {
  const stop = new AbortController();
  const waiting = rig().others.whenKnown(stop.signal);
  stop.abort(new Error('told to'));
  await expect(waiting).rejects.toThrow('told to');
});

it.each([
  [false, { externalIPs: [], loadBalancerIngress: [] }],
  [true, { externalIPs: ['192.0.2.1'], loadBalancerIngress: [] }],
  [true, { externalIPs: [], loadBalancerIngress: [{ ip: '192.0.2.1', ipMode: 'VIP' as const }] }],
])('hasExternalAddress(): %s', (expected, service) => {
  const none = { externalIPs: [], loadBalancerIngress: [] };
  expect(hasExternalAddress([none, service])).toBe(expected);
});
