import { expect, it } from 'vitest';
import { FakeClock } from '#pkg/clock/fake-clock.ts';
import type { KubeClient } from '#pkg/kube/client.ts';
import type { WritableStore } from '#pkg/kube/store.ts';
import type { NodeAddressesRecord } from '#pkg/kube/types.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import { watchOtherHosts } from './other-hosts.ts';

const clock = new FakeClock();
const { signal } = new AbortController();

function rig(server = 'https://10.96.0.1:443') {
  const lines: string[] = [];
  const log = { ...silentLogger, warn: (_: object, line: string) => void lines.push(line) };
  let store: WritableStore<NodeAddressesRecord> | undefined;
  const watchResource = ((_: unknown, __: unknown, given: WritableStore<NodeAddressesRecord>) => {
    store = given;
  }) as unknown as KubeClient['watchResource'];
  const client = { watchResource };
  const others = watchOtherHosts({ client, clock, log, nodeName: 'here', server }, signal);
  if (store === undefined) throw new Error('nothing is watched');
  return { others, store, lines };
}

const node = (name: string, ...addresses: string[]): NodeAddressesRecord => ({
  namespace: '',
  name,
  uid: name,
  resourceVersion: '1',
  addresses,
});

it.each([
  ['https://192.0.2.10:6443', '192.0.2.10'],
  ['https://[2001:DB8::10]:6443', '2001:db8::10'],
])('the API server %s is one', (server, address) => {
  expect([...rig(server).others.current()]).toEqual([address]);
});

it('so are other nodes, in canonical text, as they come and go; this node is not', async () => {
  const { others, store } = rig('https://api.example:6443');
  expect([...others.current()]).toEqual([]);
  store.replace([
    node('here', '192.168.0.1'),
    node('there', '192.168.0.2', 'FD00:192::2', 'no address', '198.51.100.2'),
  ]);
  const changed = Promise.withResolvers<void>();
  using _ = others.onChange(changed.resolve);
  await changed.promise;
  expect([...others.current()]).toEqual(['192.168.0.2', 'fd00:192::2', '198.51.100.2']);
  expect(others.current()).toBe(others.current());
  store.remove('there');
  await Promise.resolve();
  expect([...others.current()]).toEqual([]);
});

it('they are waited for, but not for ever', async () => {
  const { lines, others, store } = rig();
  let isKnown = false;
  const waiting = others.whenKnown(signal).then(() => (isKnown = true));
  await clock.advance(14_000);
  expect(isKnown).toBe(false);
  await clock.advance(1_000);
  await waiting;
  expect(lines.join('\n')).toContain('Nodes are not known');
  store.replace([]);
  const after = rig();
  after.store.replace([]);
  await after.others.whenKnown(signal);
  await clock.advance(15_000);
  expect(after.lines).toEqual([]);
});
