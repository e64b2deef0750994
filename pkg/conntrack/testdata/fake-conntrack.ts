/** A connection tracking table that answers as a kernel does. */
import { AgentError } from '#pkg/errors/agent-error.ts';
import { sameAddress } from '#pkg/ip/address.ts';
import { findAttribute } from '#pkg/netlink/attribute.ts';
import { readConntrack, type ConntrackQuery } from '#pkg/netlink/conntrack.ts';
import type { Message } from '#pkg/netlink/message.ts';
import { NetlinkError } from '#pkg/netlink/netlink-error.ts';
import type { NetlinkRequest } from '#pkg/netlink/socket.ts';
import type { ConntrackKernel } from '#pkg/conntrack/apply.ts';
import { entryMessage, parseEntry } from './entry.ts';

export class FakeConntrack implements ConntrackKernel {
  readonly queries: ConntrackQuery[] = [];
  /** Deletions asked for. */
  deletions = 0;
  /** What the kernel makes of filters: as since 5.8, as before, or not those. */
  filters: 'known' | 'ignored' | 'refused' = 'known';
  /** No connection tracking: every request is refused so. */
  absent = false;
  /** The next dumps break off in the middle. */
  interruptions = 0;
  /** Errno of the next deletions. */
  deletionErrnos: number[] = [];
  readonly #entries = new Map<number, string>();
  #lastId = 1_000_000;

  /** @param entries as {@link parseEntry} reads them */
  constructor(entries: readonly string[]) {
    for (const entry of entries) this.add(entry);
  }

  get entries(): readonly string[] {
    return [...this.#entries.values()];
  }

  add(entry: string): void {
    this.#lastId += 1;
    this.#entries.set(this.#lastId, entry);
  }

  // oxlint-disable-next-line typescript/require-await -- the kernel's answers come later too
  async *dump(query: ConntrackQuery): AsyncGenerator<readonly Message[], 'whole' | 'interrupted'> {
    this.queries.push(query);
    const isNarrow = query.destinationPort !== undefined;
    if (this.absent || (isNarrow && this.filters === 'refused')) {
      throw new NetlinkError('list', { errno: this.absent ? 22 : 95, text: undefined });
    }
    const found = [...this.#entries]
      .filter(([, text]) => text.includes('[') === (query.family === 'ip6'))
      .map(([id, text]) => entryMessage(parseEntry(text), id))
      .filter((message) => this.filters === 'ignored' || isAsked(message, query));
    const isBroken = this.interruptions > 0;
    if (isBroken) this.interruptions -= 1;
    const length = isBroken ? Math.floor(found.length / 2) : found.length;
    for (let at = 0; at < length; at += 10) yield found.slice(at, Math.min(at + 10, length));
    return isBroken ? 'interrupted' : 'whole';
  }

  delete(requests: readonly NetlinkRequest[]): { readonly error: NetlinkError | undefined }[] {
    return requests.map(({ body }) => {
      this.deletions += 1;
      const errno = this.deletionErrnos.shift();
      if (errno !== undefined) {
        return { error: new NetlinkError('delete', { errno, text: undefined }) };
      }
      const id = body.map((part) => findAttribute(part, 12)).find((found) => found !== undefined);
      if (id === undefined) throw new AgentError('TestFailed', 'Cannot delete: no identity');
      this.#entries.delete(new DataView(id.buffer, id.byteOffset).getUint32(0));
      return { error: undefined };
    });
  }

  [Symbol.dispose](): void {}
}

function isAsked(message: Message, query: ConntrackQuery): boolean {
  const original = readConntrack(message)?.original;
  if (original === undefined || original.protocol !== query.protocol) return false;
  if (original.destinationPort !== (query.destinationPort ?? original.destinationPort)) return false;
  return query.destination === undefined || sameAddress(query.destination, original.destination);
}
