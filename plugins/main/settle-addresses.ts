/** Waiting for IPv6 addresses of which the kernel still looks for duplicates. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { formatPrefix } from '#pkg/ip/prefix.ts';
import { listAddresses } from '#pkg/netlink/address.ts';
import { getLink } from '#pkg/netlink/link.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';

/**
 * Waits until every IPv6 address of the link may be used.
 *
 * @throws {AgentError} AddressInUse when another host has one; AddressUnsettled when the kernel has
 *   not finished after five seconds, though the link has a carrier
 */
export function settleAddresses(pod: NetlinkSocket, linkIndex: number): void {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    const addresses = listAddresses(pod, { family: 'ip6', linkIndex });
    const taken = addresses.find(({ dadFailed }) => dadFailed);
    if (taken !== undefined) {
      throw new AgentError(
        'AddressInUse',
        `Cannot use address ${formatPrefix(taken.prefix)}: another host has it`,
      );
    }
    const waiting = addresses.find(({ tentative }) => tentative);
    if (waiting === undefined) return;
    if (performance.now() > deadlineMs) {
      // Without a carrier there is nobody to ask, and the kernel waits for one.
      if (getLink(pod, linkIndex)?.running !== true) return;
      throw new AgentError(
        'AddressUnsettled',
        `Cannot use address ${formatPrefix(waiting.prefix)}: still tentative after ${timeoutMs} ms`,
      );
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pollMs);
  }
}

const timeoutMs = 5000;
const pollMs = 10;
