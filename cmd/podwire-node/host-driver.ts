/** The pod network's hands on this machine's kernel. */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { applyHostNetwork, type KernelWriter } from '#pkg/host-network/apply.ts';
import { observeHostNetwork } from '#pkg/host-network/observe.ts';
import { openHostKernel, type DeviceDrivers } from '#pkg/host-network/rtnetlink.ts';
import type { Step } from '#pkg/host-network/step.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import { applyNftables } from '#pkg/nftables/apply.ts';
import { observeNftables, type NftCommand } from '#pkg/nftables/observe.ts';
import { masqueradeTable } from '#pkg/pod-network/masquerade.ts';
import { readSysctl } from '#pkg/sysctl/sysctl.ts';
import { observeHostLinks } from './host-facts.ts';
import type { HostDriver, TableDriver } from './round-parts.ts';

/** Of each step what went wrong. */
type Outcomes = ReturnType<KernelWriter['write']>;

/**
 * Links, addresses, routes, neighbours and sysctls of the socket's namespace.
 *
 * @param around carries out each write, and so knows which changes are ours
 */
export function createHostDriver(
  socket: NetlinkSocket,
  drivers: DeviceDrivers = {},
  around: (steps: readonly Step[], write: () => Outcomes) => Outcomes = (_, write) => write(),
): HostDriver {
  const kernel = openHostKernel(socket, drivers);
  const writer: KernelWriter = { write: (steps) => around(steps, () => kernel.write(steps)) };
  return {
    facts: () => ({
      ...observeHostLinks(socket),
      acceptRa: (link) => readSysctl(`net/ipv6/conf/${link}/accept_ra`),
    }),
    observe: (want) => observeHostNetwork(kernel, want),
    apply: (steps, signal) => applyHostNetwork(writer, steps, signal),
  };
}

/**
 * The masquerade table, by the program nft. Where nothing is to be masqueraded, a machine without
 * nft has no table of ours either.
 */
export function createTableDriver(
  nft: NftCommand,
  options: { readonly masquerade: boolean },
  exempt: <T>(write: () => Promise<T>) => Promise<T> = (write) => write(),
): TableDriver {
  return {
    observe: async (signal) => {
      try {
        return await observeNftables(nft, [masqueradeTable], signal);
      } catch (error) {
        if (!options.masquerade && isErrno(error, 'NftMissing')) return [];
        throw error;
      }
    },
    apply: (steps, signal) => exempt(() => applyNftables(nft, steps, signal)),
  };
}
