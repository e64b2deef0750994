/** Reads what the nftables mode's elements count, set by set and never the table as a whole. */
import type { Family } from '#pkg/ip/address.ts';
import { readCounts, type ElementCount } from '#pkg/nfnetlink/element-counters.ts';
import { elementLayout } from '#pkg/nfnetlink/element-text.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import {
  countingMaps,
  countingSets,
  proxyMaps,
  proxySets,
  proxyTableName,
} from '#pkg/proxy/nftables-sets.ts';
import { inSlices } from '#pkg/reconcile/slices.ts';
import type { FrontendCounts, ServiceCounters } from './proxy-mode.ts';

/** @param socket for this alone: reading takes turns with others, and a socket serves one at a time */
export function createNftablesCounters(
  socket: NetlinkSocket,
  what: 'services' | 'endpoints',
): ServiceCounters {
  let work: Promise<unknown> = Promise.resolve();

  /** One at a time. */
  function inTurn<T>(read: () => Promise<T>): Promise<T> {
    const result = work.then(read);
    work = result.catch(() => undefined);
    return result;
  }

  async function each(
    family: Family,
    names: readonly string[],
    take: (set: string, count: ElementCount) => void,
  ): Promise<void> {
    for (const { name, type, ...rest } of [...proxySets(family, what), ...proxyMaps(family)]) {
      if (!names.includes(name)) continue;
      const layout = elementLayout(type, 'valueType' in rest ? rest.valueType : undefined);
      const of = { family, table: proxyTableName, set: name, layout };
      await inSlices(readCounts(socket, of), (part) => {
        for (const count of part) take(name, count);
      });
    }
  }

  return {
    services: (family) =>
      inTurn(async () => {
        const counts = new Map<string, FrontendCounts>();
        await each(family, countingSets, (set, { bytes, key, packets }) => {
          const known = counts.get(key) ?? nothing;
          if (set.startsWith('refused-')) {
            counts.set(key, { ...known, refused: { packets, bytes } });
          } else if (set.startsWith('dropped-')) {
            counts.set(key, { ...known, dropped: { packets, bytes } });
          } else if (set === 'barred-services') {
            counts.set(key, { ...known, barred: { packets, bytes } });
          } else counts.set(key, { ...known, connections: packets });
        });
        return counts;
      }),
    endpoints: (family) =>
      inTurn(async () => {
        const counts = new Map<string, Map<string, number>>();
        if (what === 'services') return counts;
        await each(family, countingMaps, (_, { key, packets, value = '' }) => {
          const frontend = key.slice(0, key.lastIndexOf(' . '));
          let endpoints = counts.get(frontend);
          if (endpoints === undefined) counts.set(frontend, (endpoints = new Map()));
          const target = value.replace(' . ', ' ');
          endpoints.set(target, (endpoints.get(target) ?? 0) + packets);
        });
        return counts;
      }),
  };
}

const none = { packets: 0, bytes: 0 };
const nothing: FrontendCounts = { connections: 0, refused: none, dropped: none, barred: none };
