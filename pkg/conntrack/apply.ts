/**
 * Makes the kernel forget stale flows: asks it for the flows to certain destinations, and deletes
 * those that are found stale. Works in parts, so that a table of a million
 * entries neither fills the memory nor holds up the event loop.
 */
import { isErrno } from '#pkg/errors/agent-error.ts';
import { addressFromBytes, formatAddress, tryParseAddress } from '#pkg/ip/address.ts';
import {
  conntrackDeletion,
  conntrackDump,
  peekDestination,
  peekServer,
  type ConntrackQuery,
  type RawEndpoint,
} from '#pkg/netlink/conntrack.ts';
import { NETLINK_NETFILTER } from '#pkg/netlink/constants.ts';
import { DumpSocket } from '#pkg/netlink/dump-socket.ts';
import type { Message } from '#pkg/netlink/message.ts';
import type { NetlinkRequest, NetlinkResult } from '#pkg/netlink/socket.ts';
import { NetlinkSocket } from '#pkg/netlink/socket.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import type { FlowSearch, FlowsRemoved } from './flow.ts';

/** The kernel, as far as this needs it: replaced in tests. */
export interface ConntrackKernel extends Disposable {
  dump(query: ConntrackQuery): AsyncIterator<readonly Message[], 'whole' | 'interrupted'>;
  delete(requests: readonly NetlinkRequest[]): readonly Pick<NetlinkResult, 'error'>[];
}

/**
 * A filtered dump costs the kernel a walk of its whole table, and us next to nothing; one of all
 * flows of the protocol costs us some microseconds for each. Measured with a million entries, a
 * quarter of them ours (hack/bench/conntrack): 0.7 s a walk, 2.7 s to read them all.
 */
const maxQueries = 4;

/** Listings the kernel marks as interrupted are made again this many times. */
const maxAttempts = 5;

/** The connection tracking table of the calling thread's network namespace. */
export function openConntrack(sys: Sys): ConntrackKernel {
  const stack = new DisposableStack();
  try {
    const lister = stack.use(new DumpSocket(sys, NETLINK_NETFILTER));
    const deleter = stack.use(new NetlinkSocket(sys, NETLINK_NETFILTER));
    return {
      dump: (query) => lister.dump(conntrackDump(query)),
      delete: (requests) => deleter.batch(requests),
      [Symbol.dispose]: () => stack.dispose(),
    };
  } catch (error) {
    stack.dispose();
    throw error;
  }
}

/**
 * Deletes the flows that the search finds stale.
 *
 * @throws {NetlinkError} when the kernel refuses to list or to delete; what was found before is
 *   deleted then. A kernel that tracks nothing has nothing to delete.
 */
export async function removeFlows(
  kernel: ConntrackKernel,
  search: FlowSearch,
  signal: AbortSignal,
): Promise<FlowsRemoved> {
  const removal = new Removal(kernel, search);
  const queries = queriesFor(search);
  let complete = true;
  for (const query of queries) {
    complete = (await listRepeatedly(removal, query, signal)) && complete;
    if (removal.sawAll) break;
  }
  return { ...removal.counts, complete };
}

/** Whether one listing came to its end. */
async function listRepeatedly(
  removal: Removal,
  query: ConntrackQuery,
  signal: AbortSignal,
): Promise<boolean> {
  for (let attempt = 0; attempt < maxAttempts; attempt++) {
    try {
      if ((await removal.list(query, signal)) === 'whole') return true;
    } catch (error) {
      // Kernels that know the filter but not all of its fields: then without those.
      const isNarrow = query.destinationPort !== undefined;
      const isUnknown = isErrno(error, 'EOPNOTSUPP') || isErrno(error, 'EINVAL');
      if (!isUnknown) throw error;
      // The module nf_conntrack_netlink is not there.
      if (!isNarrow) return true;
      return await listRepeatedly(removal, wide(query), signal);
    }
  }
  return false;
}

/** A narrow query for each destination, or a wide one for all. */
function queriesFor(search: FlowSearch): readonly ConntrackQuery[] {
  const { destinations, family, protocol } = search;
  const queries = new Map<string, ConntrackQuery>();
  for (const { addresses, port } of destinations) {
    const [only] = addresses;
    const destination =
      family === 'ip' && only !== undefined && addresses.length === 1
        ? tryParseAddress(only)
        : undefined;
    const key = `${destination === undefined ? '' : only} ${port}`;
    const destinationPort = port;
    queries.set(key, { family, protocol, direction: 'original', destinationPort, destination });
  }
  const [first] = queries.values();
  if (first === undefined || queries.size <= maxQueries) return [...queries.values()];
  return [wide(first)];
}

function wide({ family, protocol, direction }: ConntrackQuery): ConntrackQuery {
  return { family, protocol, direction, destinationPort: undefined };
}

/** One search under way. */
class Removal {
  readonly #kernel: ConntrackKernel;
  readonly #search: FlowSearch;
  readonly #ports: ReadonlySet<number>;
  #deleted = 0;
  #listed = 0;
  #requests = 0;
  #sawAll = false;

  constructor(kernel: ConntrackKernel, search: FlowSearch) {
    this.#kernel = kernel;
    this.#search = search;
    this.#ports = new Set(search.destinations.map(({ port }) => port));
  }

  get counts(): { readonly deleted: number; readonly listed: number; readonly requests: number } {
    return { deleted: this.#deleted, listed: this.#listed, requests: this.#requests };
  }

  /** One listing had the flows to all destinations in it, so no other is needed. */
  get sawAll(): boolean {
    return this.#sawAll;
  }

  async list(query: ConntrackQuery, signal: AbortSignal): Promise<'whole' | 'interrupted'> {
    this.#requests += 1;
    if (query.destinationPort === undefined) this.#sawAll = true;
    const parts = this.#kernel.dump(query);
    try {
      for (;;) {
        const next = await parts.next();
        if (next.done === true) return next.value;
        this.#take(next.value, query);
        signal.throwIfAborted();
      }
    } finally {
      await parts.return?.('interrupted');
    }
  }

  #take(part: readonly Message[], query: ConntrackQuery): void {
    this.#listed += part.length;
    const stale = part.filter((message) => {
      const destination = peekDestination(message);
      if (destination?.port === undefined) return false;
      // Kernels before 5.8 ignore the filter and list all there is.
      if (destination.port !== (query.destinationPort ?? destination.port)) this.#sawAll = true;
      const { protocol } = this.#search;
      if (destination.protocol !== protocol || !this.#ports.has(destination.port)) return false;
      const to = endpointText(destination);
      const server = endpointText(peekServer(message));
      if (to === undefined || server === undefined) return false;
      return this.#search.isStale({ destination: to, server });
    });
    if (stale.length === 0) return;
    const { family } = this.#search;
    this.#requests += stale.length;
    const results = this.#kernel.delete(stale.map((m) => conntrackDeletion(family, m)));
    for (const { error } of results) {
      if (error === undefined) this.#deleted += 1;
      // It ended by itself meanwhile.
      else if (!isErrno(error, 'ENOENT')) throw error;
    }
  }
}

/** "ip:port" or "[ip]:port". IPv4 is by far the most, and written without ado. */
function endpointText({ address, port }: RawEndpoint): string | undefined {
  if (address?.byteLength === 4) {
    return `${address[0]}.${address[1]}.${address[2]}.${address[3]}:${port ?? 0}`;
  }
  if (address?.byteLength !== 16) return undefined;
  return `[${formatAddress(addressFromBytes(address))}]:${port ?? 0}`;
}
