import { expect, it } from 'vitest';
import { parseAddress } from '#pkg/ip/address.ts';
import { silentLogger } from '#pkg/log/logger.ts';
import type { KernelChange } from '#pkg/netlink/monitor.ts';
import { watchHostAddresses } from './host-addresses.ts';

async function watched() {
  const host = { now: ['192.168.0.2'], reads: 0, isRefused: false };
  const seen = { changes: 0, dropped: [] as string[] };
  let tell: (change: KernelChange) => void = () => undefined;
  const watch = await watchHostAddresses(
    {
      addresses: () => {
        host.reads += 1;
        if (host.isRefused) throw new Error('EMFILE');
        return host.now;
      },
    },
    {
      onChange: () => void (seen.changes += 1),
      client: { dropFrom: (address) => void seen.dropped.push(address) },
      log: silentLogger,
      watch: async (onChange) => {
        tell = onChange;
        return { [Symbol.dispose]: () => undefined };
      },
    },
  );
  return { host, seen, tell: (change: KernelChange) => tell(change), watch };
}

const change = (address: string, deleted = false): KernelChange => ({
  kind: 'address',
  deleted,
  linkIndex: 7,
  address: parseAddress(address),
});

it('many changes that are told together cost one look: mode ipvs makes thousands itself', async () => {
  const { host, seen, tell, watch } = await watched();
  using _ = watch;
  host.reads = 0;
  host.now = ['192.168.0.2', '192.168.0.3'];
  for (let n = 0; n < 1000; n++) tell(change('10.96.0.1'));
  await Promise.resolve();
  expect({ reads: host.reads, changes: seen.changes }).toEqual({ reads: 1, changes: 1 });
  // And the next one is looked at, too.
  host.now = ['192.168.0.2'];
  tell(change('192.168.0.3', true));
  await Promise.resolve();
  expect({ ...seen, reads: host.reads }).toEqual({
    reads: 2,
    changes: 2,
    dropped: ['192.168.0.3'],
  });
});

it('what leaves the addresses as they were is no change', async () => {
  const { host, seen, tell, watch } = await watched();
  using _ = watch;
  host.now = ['192.168.0.2', '192.168.0.2'];
  tell({ kind: 'resync' });
  await Promise.resolve();
  expect(seen).toEqual({ changes: 0, dropped: [] });
});

it('addresses that cannot be read may be others, and are read again at the next change', async () => {
  const { host, seen, tell, watch } = await watched();
  using _ = watch;
  host.isRefused = true;
  tell(change('192.168.0.3'));
  await Promise.resolve();
  expect(seen.changes).toBe(1);
  host.isRefused = false;
  tell(change('192.168.0.3'));
  await Promise.resolve();
  expect(seen.changes).toBe(1);
  host.now = ['192.168.0.2', '192.168.0.3'];
  tell(change('192.168.0.3'));
  await Promise.resolve();
  expect(seen.changes).toBe(2);
});

it('a kernel that cannot be watched is no failure, and nothing is told after the end', async () => {
  const parts = { onChange: () => undefined, client: { dropFrom: () => undefined } };
  const watch = await watchHostAddresses(
    { addresses: () => [] },
    {
      ...parts,
      log: silentLogger,
      watch: async () => {
        throw new Error('no socket');
      },
    },
  );
  expect(() => watch[Symbol.dispose]()).not.toThrow();
  const { host, seen, tell, watch: ended } = await watched();
  host.now = [];
  tell(change('192.168.0.2', true));
  ended[Symbol.dispose]();
  await Promise.resolve();
  expect(seen.changes).toBe(0);
});
