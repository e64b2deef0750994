/** Waiting for a link's carrier. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { getLink } from '#pkg/netlink/link.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';

/**
 * Waits until an end of a veth is running. Before, what it sends is lost, and a bridge forwards none of
 * its frames. The kernel starts each end by itself, in no promised order, within a tenth of a millisecond
 * when it is idle; on Linux 6.18 it is done when one asks.
 *
 * @throws {AgentError} LinkDown after two seconds
 */
export function waitUntilRunning(socket: NetlinkSocket, name: string): void {
  const deadlineMs = performance.now() + timeoutMs;
  for (let waitMs = shortestWaitMs; getLink(socket, name)?.running !== true; waitMs *= 2) {
    if (performance.now() > deadlineMs) {
      throw new AgentError('LinkDown', `Cannot use ${name}: no carrier after ${timeoutMs} ms`);
    }
    // Longer each time: the kernel's own thread may be waiting for the processor we ask on.
    sleep(Math.min(waitMs, longestWaitMs));
  }
}

const timeoutMs = 2000;
const shortestWaitMs = 0.1;
const longestWaitMs = 1;

/** The plugin is synchronous throughout: no event loop runs while it works. */
function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
