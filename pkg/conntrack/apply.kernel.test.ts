import { setImmediate } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { NETLINK_NETFILTER } from '#pkg/netlink/constants.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { withNetns } from '#pkg/netns/netns.ts';
import { createScratchNetns, type ScratchNetns } from '#pkg/netns/scratch.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import { openConntrack, removeFlows, type ConntrackKernel } from './apply.ts';
import type { FlowSearch } from './flow.ts';
import { entryCreation, parseEntry } from './testdata/entry.ts';

const sys = await openSys();
const signal = new AbortController().signal;
const die = (error: Error): never => {
  throw error;
};

let netns: ScratchNetns;
let kernel: ConntrackKernel;
beforeEach(async () => {
  netns = await createScratchNetns('pw-ct');
  kernel = withNetns(sys, netns.path, () => openConntrack(sys), die);
});
afterEach(async () => {
  kernel[Symbol.dispose]();
  await netns[Symbol.asyncDispose]();
});

function put(entries: readonly string[]): void {
  const open = (): NetlinkSocket => new NetlinkSocket(sys, NETLINK_NETFILTER);
  using socket = withNetns(sys, netns.path, open, die);
  for (const { error } of socket.batch(entries.map((e) => entryCreation(parseEntry(e))))) {
    if (error !== undefined) throw error;
  }
}

/** What conntrack(8) lists, in our words. */
async function entries(family: 'ipv4' | 'ipv6' = 'ipv4'): Promise<string[]> {
  const { stdout } = await netns.exec('conntrack', ['-L', '-f', family]);
  const form =
    /^(\w+) .*? src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+) .*?src=(\S+) dst=\S+ sport=(\d+)/gm;
  const at = (address = '', port = ''): string =>
    family === 'ipv6' ? `[${address}]:${port}` : `${address}:${port}`;
  return [...stdout.matchAll(form)]
    .map(([, protocol, src, dst, sport, dport, server, port]) => {
      return `${protocol} ${at(src, sport)} > ${at(dst, dport)} = ${at(server, port)}`;
    })
    .toSorted();
}

const stale = 'udp 10.1.0.1:4000 > 172.30.0.1:53 = 10.1.0.9:53';
const others = [
  'tcp 10.1.0.3:4000 > 172.30.0.1:53 = 10.1.0.9:53',
  'udp 10.1.0.2:4000 > 172.30.0.1:53 = 10.1.0.8:53',
  'udp 10.1.0.4:4000 > 172.30.0.1:54 = 10.1.0.9:53',
  'udp 10.1.0.5:4000 > 172.30.0.2:53 = 10.1.0.9:53',
];
const search = (fields: Partial<FlowSearch> = {}): FlowSearch => ({
  family: 'ip',
  protocol: 17,
  destinations: [{ addresses: ['172.30.0.1'], port: 53 }],
  isStale: ({ server }) => server === '10.1.0.9:53',
  ...fields,
});

describe('on the real kernel', () => {
  it('the kernel lists one destination only, and what is stale there is deleted', async () => {
    put([stale, ...others]);
    expect(await entries()).toEqual([stale, ...others].toSorted());
    const removed = await removeFlows(kernel, search(), signal);
    expect(removed).toEqual({ deleted: 1, listed: 2, requests: 2, complete: true });
    expect(await entries()).toEqual(others);
  });

  it('by port alone', async () => {
    put([stale, ...others]);
    const destinations = [{ addresses: ['172.30.0.1', '172.30.0.2'], port: 53 }];
    const removed = await removeFlows(kernel, search({ destinations }), signal);
    expect(removed).toMatchObject({ deleted: 2, listed: 3 });
    expect(await entries()).toEqual(others.slice(0, 3));
  });

  it('many destinations at once, of one protocol', async () => {
    put([stale, ...others]);
    const addresses = Array.from({ length: 9 }, (_, i) => `172.30.0.${i + 1}`);
    const destinations = addresses.map((address) => ({ addresses: [address], port: 53 }));
    const removed = await removeFlows(kernel, search({ destinations }), signal);
    expect(removed).toEqual({ deleted: 2, listed: 4, requests: 3, complete: true });
    expect(await entries()).toEqual(others.slice(0, 3));
  });

  it('IPv6 alike, though this kernel’s filter for IPv6 addresses lists the others', async () => {
    const gone = 'udp [fd00::1]:4000 > [fd00:30::1]:53 = [fd00::9]:53';
    const kept = 'udp [fd00::2]:4000 > [fd00:30::1]:53 = [fd00::8]:53';
    const other = 'udp [fd00::2]:4000 > [fd00:30::2]:53 = [fd00::9]:53';
    put([gone, kept, other, stale]);
    const removed = await removeFlows(
      kernel,
      search({
        family: 'ip6',
        destinations: [{ addresses: ['fd00:30::1'], port: 53 }],
        isStale: ({ destination, server }) =>
          destination === '[fd00:30::1]:53' && server === '[fd00::9]:53',
      }),
      signal,
    );
    expect(removed).toMatchObject({ deleted: 1, listed: 3 });
    expect(await entries('ipv6')).toEqual([kept, other]);
    expect(await entries()).toEqual([stale]);
  });

  it('S122. of a large table: few requests, and the event loop goes on meanwhile', async () => {
    const count = 20_000;
    put(
      Array.from({ length: count }, (_, i) => {
        const server = i % 1_000 === 0 ? '10.1.0.9:53' : '10.1.0.8:53';
        return `udp 10.${2 + (i >> 14)}.${(i >> 6) & 255}.${i & 63}:4000 > 172.30.${i % 50}.1:53 = ${server}`;
      }),
    );
    const narrow = search({ destinations: [{ addresses: ['172.30.7.1'], port: 53 }] });
    expect(await removeFlows(kernel, narrow, signal)).toEqual({
      deleted: 0,
      listed: count / 50,
      requests: 1,
      complete: true,
    });
    const destinations = Array.from({ length: 50 }, (_, i) => ({
      addresses: [`172.30.${i}.1`],
      port: 53,
    }));
    let turns = 0;
    let isDone = false;
    const others = (async () => {
      for (; !isDone; turns++) await setImmediate();
    })();
    const removed = await removeFlows(kernel, search({ destinations }), signal);
    isDone = true;
    await others;
    expect(removed).toEqual({ deleted: 20, listed: count, requests: 21, complete: true });
    expect(turns).toBeGreaterThan(5);
  });
});
