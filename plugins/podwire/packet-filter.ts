/**
 * A pod's elements in the kernel: its host ports, and the addresses it may send from. They go in
 * and out by nfnetlink; the program nft is run only where a table is missing.
 */
import { AgentError, isErrno } from '#pkg/errors/agent-error.ts';
import {
  addElements,
  deleteElements,
  describe,
  getElements,
  listElements,
  openNetfilterSocket,
  type ElementChange,
} from '#pkg/nfnetlink/nf-tables.ts';
import type { SetElement } from '#pkg/nfnetlink/set-element.ts';
import type { NetlinkSocket } from '#pkg/netlink/socket.ts';
import type { Sys } from '#pkg/sys/sys.ts';
import type { RunNetfilter } from '#plugins/meta/run-netfilter.ts';
import { notingOwners, sweepingAround } from './abandoned-tables.ts';
import type { AttachmentRecord } from './attachment-record.ts';
import { elementLine } from './element-line.ts';
import { filterTables, setsOf, tableText, type FilterTable } from './filter-tables.ts';
import { refuseOverlaps, takenPort, withPortLock } from './host-port-owner.ts';
import { ownerComment, podElements } from './pod-elements.ts';

export interface PacketFilter {
  readonly sys: Sys;
  readonly socket: NetlinkSocket;
  readonly run: RunNetfilter;
  /** Where a lock may be, for those who give out host ports. */
  readonly directory: string;
  /** All pods of this node, the oldest first, for a table that was lost. */
  readonly everyRecord: () => readonly AttachmentRecord[];
  /** Whether this pod still is one: its DEL says that it is not, before it deletes any element. */
  readonly isKept: (record: AttachmentRecord) => boolean;
}

/** The kernel's packet filter, in the calling thread's network namespace; opened when it is used. */
export function openPacketFilter(
  sys: Sys,
  context: Omit<PacketFilter, 'sys' | 'socket'>,
): PacketFilter & Disposable {
  let socket: NetlinkSocket | undefined;
  return {
    ...context,
    sys,
    get socket() {
      return (socket ??= openNetfilterSocket(sys));
    },
    [Symbol.dispose]: () => socket?.[Symbol.dispose](),
  };
}

/**
 * Adds a pod's elements, all or none.
 *
 * @throws {CniError} code 100 for a host port that another pod has
 */
export function installPod(filter: PacketFilter, record: AttachmentRecord): void {
  const elements = podElements(record);
  if (elements.length === 0) return;
  const install = (): void => {
    if (record.hostPorts.length === 0) return addOrMakeTables(filter, record, elements);
    withPortLock(filter, () => {
      refuseOverlaps(filter, record);
      addOrMakeTables(filter, record, elements);
    });
  };
  sweepingAround(filter, install, (owners) => removeUnkept(filter, owners));
}

/** Deletes the elements of those owners that have no record, or one that is retired. */
function removeUnkept({ socket, everyRecord }: PacketFilter, owners: ReadonlySet<string>): void {
  for (const set of filterTables.flatMap(setsOf)) {
    const elements = listElements(socket, set).filter(({ comment = '' }) => owners.has(comment));
    if (elements.length === 0) continue;
    // Read after the elements: a pod is recorded before it gets any.
    const kept = new Set(everyRecord().map(ownerComment));
    const stale = elements.filter(({ comment = '' }) => !kept.has(comment));
    deleteInPieces(
      socket,
      stale.map((element) => ({ set, element })),
    );
  }
}

/** Deletes what is this pod's and no other's; nothing there is no error. */
export function removePod(filter: PacketFilter, record: AttachmentRecord): void {
  const elements = podElements(record);
  if (elements.length === 0) return;
  const { socket } = filter;
  const owner = ownerComment(record);
  // Its record may name a host port that it never got, because it was another pod's.
  const present = getElements(socket, elements);
  deleteElements(
    socket,
    elements.filter((_, i) => present[i]?.comment === owner),
  );
}

/** Deletes every element whose comment says so. A kernel without nf_tables has none. */
export function removeWhere(
  { openFilter }: { readonly openFilter: () => PacketFilter & Disposable },
  matches: (comment: string) => boolean,
): void {
  try {
    using filter = openFilter();
    const { socket } = filter;
    for (const set of filterTables.flatMap(setsOf)) {
      const elements = listElements(socket, set).filter(({ comment }) => matches(comment ?? ''));
      deleteInPieces(
        socket,
        elements.map((element) => ({ set, element })),
      );
    }
  } catch (error) {
    if (!['EINVAL', 'EOPNOTSUPP', 'EPROTONOSUPPORT'].some((code) => isErrno(error, code)))
      throw error;
  }
}

/** A transaction must fit in the socket's send buffer. */
function deleteInPieces(socket: NetlinkSocket, changes: readonly ElementChange[]): void {
  const size = 256;
  for (let at = 0; at < changes.length; at += size) {
    deleteElements(socket, changes.slice(at, at + size));
  }
}

/** @throws {AgentError} that names a set which lacks an element of the pod */
export function checkPod(filter: PacketFilter, record: AttachmentRecord): void {
  const elements = podElements(record);
  if (elements.length === 0) return;
  const present = getElements(filter.socket, elements);
  const at = elements.findIndex(({ element }, i) => !isSame(present[i], element));
  const missing = elements[at];
  if (missing === undefined) return;
  throw new AgentError(
    'NetworkChanged',
    `Cannot confirm the pod's network: nf_tables ${describe(missing.set)} lacks its element`,
  );
}

/** Adds elements; makes the tables they need where the kernel has none. */
function addOrMakeTables(
  filter: PacketFilter,
  record: AttachmentRecord,
  elements: readonly ElementChange[],
): void {
  const errors = addElements(filter.socket, elements);
  if (errors.every((error) => error === undefined)) return;
  const lost = filterTables.filter((table) =>
    elements.some(({ set }, i) => isErrno(errors[i], 'ENOENT') && isOf(set, table)),
  );
  if (lost.length > 0) {
    // Before the new pod: nobody may take the host port of a pod that runs.
    notingOwners(filter, (note) => {
      for (const table of lost) makeTable(filter, { added: record, table, note });
    });
    refuseOverlaps(filter, record);
  }
  addMissing(filter, record, elements);
}

/**
 * Adds the elements that are not there just so. Some may be: who found a table lost and made it puts
 * in all pods whose records it sees, this one's too.
 */
function addMissing(
  filter: PacketFilter,
  record: AttachmentRecord,
  elements: readonly ElementChange[],
): void {
  const { socket } = filter;
  for (;;) {
    const present = getElements(socket, elements);
    const rest = elements.filter(({ element }, i) => !isSame(present[i], element));
    const errors = addElements(socket, rest);
    const at = errors.findIndex((error) => error !== undefined);
    const [refused, refusal] = [rest[at], errors[at]];
    if (refused === undefined || refusal === undefined) return;
    const [there] = getElements(socket, [refused]);
    // Not when it was put in just now.
    if (!isSame(there, refused.element)) throw takenPort(filter, record, refused) ?? refusal;
  }
}

/**
 * Makes a table with all pods but the one that is added. A table that was lost held them: somebody
 * flushed the ruleset. They get their elements in the transaction that makes the table, so that who
 * is killed leaves either no table, which the next ADD makes, or a whole one.
 *
 * A pod whose DEL runs at this moment must not come back: either that DEL deletes what was put back
 * here, or it had said before that the pod is going, and then it is taken out again. Who is killed
 * before that leaves it to the next ADD (abandoned-tables.ts).
 */
function makeTable(
  filter: PacketFilter,
  {
    added,
    table,
    note,
  }: {
    readonly added: AttachmentRecord;
    readonly table: FilterTable;
    readonly note: (owners: readonly string[]) => void;
  },
): void {
  const own = ownerComment(added);
  const records = filter.everyRecord().filter((record) => ownerComment(record) !== own);
  note(records.map(ownerComment));
  const elements = oldestOfEachKey(records.flatMap(podElements), table);
  const lines = elements.map((element) => ({ element, line: elementLine(element) }));
  const text = lines.flatMap(({ line }) => line ?? []).join('\n');
  let unmade: readonly ElementChange[] = lines
    .filter(({ line }) => line === undefined)
    .map(({ element }) => element);
  if (text === '' || !tryNft(filter, `${tableText(table)}${text}\n`)) {
    createTable(filter, tableText(table));
    // One that nft refuses must not keep the others out.
    unmade = elements;
  }
  for (const element of unmade) addElements(filter.socket, [element]);
  for (const record of records) if (!filter.isKept(record)) removePod(filter, record);
}

/** The elements of a table; where pods dispute a host port, it is the first one's. */
function oldestOfEachKey(
  elements: readonly ElementChange[],
  table: FilterTable,
): readonly ElementChange[] {
  const byKey = new Map<string, ElementChange>();
  for (const change of elements.filter(({ set }) => isOf(set, table))) {
    const key = `${change.set.set} ${Buffer.from(change.element.key).toString('hex')}`;
    if (!byKey.has(key)) byKey.set(key, change);
  }
  return [...byKey.values()];
}

/** False where nft refused, whatever it was. */
function tryNft({ run }: PacketFilter, text: string): boolean {
  try {
    run('nft', ['-f', '-'], text);
    return true;
  } catch (error) {
    if (isErrno(error, 'CommandFailed')) return false;
    throw isErrno(error, 'CommandMissing') ? noNft(error) : error;
  }
}

function createTable({ run }: PacketFilter, text: string): void {
  try {
    run('nft', ['-f', '-'], text);
  } catch (error) {
    if (isErrno(error, 'CommandMissing')) throw noNft(error);
    // A pod that starts at the same moment was faster.
    const { stderr } = error instanceof AgentError ? (error.details ?? {}) : {};
    if (typeof stderr !== 'string' || !stderr.includes('File exists')) throw error;
  }
}

function noNft(cause: unknown): AgentError {
  return new AgentError(
    'NftMissing',
    'Cannot set up host ports and anti-spoofing: there is no program nft in PATH; ' +
      'install the package nftables on this node, or set antiSpoofing to false',
    { cause },
  );
}

function isOf(set: FilterTable, { family, table }: FilterTable): boolean {
  return set.family === family && set.table === table;
}

function isSame(a: SetElement | undefined, b: SetElement): boolean {
  return a !== undefined && a.comment === b.comment && isEqual(a.data, b.data);
}

function isEqual(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return Buffer.compare(a, b) === 0;
}
