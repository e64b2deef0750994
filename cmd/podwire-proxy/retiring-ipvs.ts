/** The host's IPVS on its way out: what `ipvs-retirement.ts` asks of it. */
import { readFile } from 'node:fs/promises';
import { openConntrack, removeFlows } from '#pkg/conntrack/apply.ts';
import type { runCommand } from '#pkg/exec/run.ts';
import type { CommandRunner } from '#pkg/iptables/detect.ts';
import { families } from '#pkg/ip/address.ts';
import { applyIpvs } from '#pkg/ipvs/apply.ts';
import { observeIpvs } from '#pkg/ipvs/observe.ts';
import { parseIpvsProc } from '#pkg/ipvs/parse.ts';
import type { VirtualServer } from '#pkg/ipvs/virtual-server.ts';
import { openSys } from '#pkg/sys/open-sys.ts';
import type { RetiringIpvs } from './ipvs-retirement.ts';

const IPPROTO_UDP = 17;

/** @param isOurs whether a virtual server may be deleted */
export function retiringIpvs(
  runner: CommandRunner,
  isOurs: (server: VirtualServer) => boolean,
  signal: AbortSignal,
): RetiringIpvs {
  const run: typeof runCommand = (file, args, options) =>
    runner(file, args, { ...options, signal });
  return {
    servers: async () => [...(await observeIpvs(run, signal)).values()].filter(isOurs),
    apply: (steps) => applyIpvs(run, steps, signal),
    connections: async (keys) => {
      const listed = parseIpvsProc(await readFile('/proc/net/ip_vs', { encoding: 'utf8', signal }));
      let count = 0;
      for (const [key, server] of listed) if (keys.has(key)) count += server.activeConnections;
      return count;
    },
    forgetFlows: async (servers) => {
      if (servers.length === 0) return;
      using kernel = openConntrack(await openSys());
      for (const family of families) {
        const destinations = servers
          .filter((server) => server.family === family)
          .map(({ address, port }) => ({ addresses: [address], port }));
        const to = new Set(
          destinations.map(({ addresses: [address], port }) => `${address} ${port}`),
        );
        // Flows to other addresses may have such a port, too.
        const isStale = ({ destination }: { readonly destination: string }): boolean => {
          const [, v6, v4, port] = /^(?:\[(.*)\]|(.*)):(\d+)$/.exec(destination) ?? [];
          return to.has(`${v6 ?? v4} ${port}`);
        };
        const search = { family, protocol: IPPROTO_UDP, destinations, isStale };
        await removeFlows(kernel, search, signal);
      }
    },
  };
}
