/** The pod network's hands on this machine's kernel. */
import { applyHostNetwork } from '#pkg/host-network/apply.ts';
import { observeHostNetwork } from '#pkg/host-network/observe.ts';
import { openHostKernel } from '#pkg/host-network/rtnetlink.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { applyNftables } from '#pkg/nftables/apply.ts';
import { observeNftables } from '#pkg/nftables/observe.ts';
import { masqueradeTable } from '#pkg/pod-network/masquerade.ts';
import { readSysctl } from '#pkg/sysctl/sysctl.ts';
import { observeHostLinks } from './host-facts.ts';
import { runNft } from './nft-command.ts';
import type { HostDriver, TableDriver } from './round.ts';

/** Links, addresses, routes, neighbours and sysctls of the socket's namespace. */
export function createHostDriver(socket: NetlinkSocket): HostDriver {
  const kernel = openHostKernel(socket);
  return {
    facts: () => ({
      links: observeHostLinks(socket),
      sysctls: (link) => ({ acceptRa: readSysctl(`net/ipv6/conf/${link}/accept_ra`) }),
    }),
    observe: (want) =>
      observeHostNetwork(
        kernel,
        want.filter((object) => object.kind === 'sysctl'),
      ),
    apply: (steps, signal) => applyHostNetwork(kernel, steps, signal),
  };
}

/** The masquerade table, by the program nft. */
export const tableDriver: TableDriver = {
  observe: (signal) => observeNftables(runNft, [masqueradeTable], signal),
  apply: (steps, signal) => applyNftables(runNft, steps, signal),
};
